// SPDX-License-Identifier: Apache-2.0
#include "baton/future.hpp"

namespace baton::detail {

void throw_future_error(std::future_errc code) { throw std::future_error(code); }

} // namespace baton::detail
