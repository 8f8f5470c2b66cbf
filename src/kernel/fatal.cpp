// SPDX-License-Identifier: Apache-2.0
#include "kernel/fatal.hpp"

#include <cstddef>
#include <cstdlib>

#include "kernel/syscall.hpp"

namespace baton::kernel {
namespace {

/// One line in a fixed buffer; what does not fit is lost.
class Line {
public:
    void text(const char* s) noexcept {
        for (; *s != '\0'; ++s) put(*s);
    }

    void number(long value) noexcept {
        char digits[24];
        std::size_t n = 0;
        // Through unsigned: LONG_MIN has no positive counterpart.
        unsigned long rest =
            value < 0 ? 0UL - static_cast<unsigned long>(value) : static_cast<unsigned long>(value);
        do {
            digits[n++] = static_cast<char>('0' + rest % 10);
            rest /= 10;
        } while (rest != 0);
        if (value < 0) put('-');
        while (n > 0) put(digits[--n]);
    }

    void put(char c) noexcept {
        if (length_ < sizeof buffer_) buffer_[length_++] = c;
    }

    void write() noexcept { raw_syscall(__NR_write, 2, buffer_, length_); }

private:
    char buffer_[256];
    std::size_t length_ = 0;
};

} // namespace

void fatal(const char* what, const char* a_name, long a, const char* b_name, long b) noexcept {
    Line line;
    line.text("baton: ");
    line.text(what);
    line.text(": ");
    line.text(a_name);
    line.put('=');
    line.number(a);
    line.put(' ');
    line.text(b_name);
    line.put('=');
    line.number(b);
    line.put('\n');
    line.write();
    std::abort();
}

} // namespace baton::kernel
