// SPDX-License-Identifier: Apache-2.0
#include "baton/future.hpp"

#include <future>

namespace baton::detail {

void throw_no_state() { throw std::future_error(std::future_errc::no_state); }
void throw_future_already_retrieved() {
    throw std::future_error(std::future_errc::future_already_retrieved);
}
void throw_promise_already_satisfied() {
    throw std::future_error(std::future_errc::promise_already_satisfied);
}
std::exception_ptr broken_promise() noexcept {
    return std::make_exception_ptr(std::future_error(std::future_errc::broken_promise));
}

} // namespace baton::detail
