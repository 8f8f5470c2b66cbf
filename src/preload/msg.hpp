// SPDX-License-Identifier: Apache-2.0
//
// What is left of a vector of buffers after a part of it has been written.
#pragma once

#include <cstring>

#include "preload/preload.hpp"

namespace baton::preload {

inline constexpr int kIovMost = 1024; // IOV_MAX

class Rest {
public:
    Rest(const iovec* iov, int n) : iov_(iov), n_(n) {}
    const iovec* iov() const { return split_.iov_base ? &split_ : iov_; }
    /// While a buffer is cut in two it goes alone.
    int n() const { return split_.iov_base ? 1 : n_; }
    long done() const { return done_; }
    /// `r` bytes more are done. False: that was all.
    bool advance(long r) {
        done_ += r;
        auto left = static_cast<std::size_t>(r);
        if (split_.iov_base) {
            split_.iov_base = static_cast<char*>(split_.iov_base) + left;
            split_.iov_len -= left;
            if (split_.iov_len != 0) return true;
            split_ = {};
            return skip(0);
        }
        return skip(left);
    }

private:
    bool skip(std::size_t left) {
        while (n_ > 0 && left >= iov_->iov_len) {
            left -= iov_->iov_len;
            iov_++;
            n_--;
        }
        if (n_ == 0) return false;
        if (left == 0) return true;
        split_ = {static_cast<char*>(iov_->iov_base) + left, iov_->iov_len - left};
        iov_++;
        n_--;
        return true;
    }

    const iovec* iov_;
    int n_;
    iovec split_{};
    long done_ = 0;
};

} // namespace baton::preload
