// SPDX-License-Identifier: Apache-2.0
//
// An exception that escapes a goroutine. The unwinder looks for who catches it before it unwinds
// anything, and comes to the goroutine's first frame last (switch.S), whose personality routine
// this is: the stack is still that of the throw.
//
// Rejected: a catch around the goroutine's function, as by then the stack is gone; and
// std::set_terminate, which is the program's.
#include <cxxabi.h>
#include <unwind.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <typeinfo>

#include "runtime/crash.hpp"
#include "runtime/runtime.hpp"

namespace baton::rt {

namespace {

constexpr int kNestedMost = 20;

void say_current(int depth) noexcept;

void say(int depth, const char* type, const char* what) {
    const auto say_it = depth == 0 ? say_panic : say_nested_in;
    what ? say_it("%s: %s", type, what) : say_it("%s", type);
}

void follow(const std::nested_exception* in, int depth) {
    if (!in || !in->nested_ptr() || depth == kNestedMost) return;
    try {
        in->rethrow_nested();
    } catch (...) {
        say_current(depth + 1);
    }
}

struct Decimal {
    explicit Decimal(int n) { *std::to_chars(text, text + sizeof text - 1, n).ptr = '\0'; }
    char text[16];
};

// Of what std::throw_with_nested makes: the type it was given.
const char* thrown_type(char* name) {
    constexpr std::string_view kWrapped = "std::_Nested_exception<";
    const std::size_t n = std::strlen(name);
    if (!std::string_view(name).starts_with(kWrapped) || name[n - 1] != '>') return name;
    name[n - 1] = '\0';
    return name + kWrapped.size();
}

// In a handler: a line for the exception it has caught, and for each nested in it.
void say_current(int depth) noexcept {
    const std::type_info* type = abi::__cxa_current_exception_type();
    int status = 0;
    char* name = type ? abi::__cxa_demangle(type->name(), nullptr, nullptr, &status) : nullptr;
    const char* text = name ? thrown_type(name) : type ? type->name() : "a foreign exception";
    try {
        throw;
    } catch (const std::exception& e) {
        say(depth, text, e.what());
        follow(dynamic_cast<const std::nested_exception*>(&e), depth);
    } catch (const std::nested_exception& e) {
        say(depth, text, nullptr);
        follow(&e, depth);
    } catch (const std::string& s) {
        say(depth, "std::string", s.c_str());
    } catch (const char* s) {
        say(depth, text, s);
    } catch (int n) {
        say(depth, text, Decimal(n).text);
    } catch (...) {
        say(depth, text, nullptr);
    }
    std::free(name);
}

} // namespace

extern "C" [[gnu::visibility("hidden")]] _Unwind_Reason_Code
baton_uncaught(int, _Unwind_Action actions, _Unwind_Exception_Class, _Unwind_Exception* exception,
               _Unwind_Context*) {
    // The end of a thread, by pthread_exit or by being cancelled, catches nothing.
    if (!(actions & _UA_SEARCH_PHASE)) return _URC_CONTINUE_UNWIND;
    begin_crash();
    abi::__cxa_begin_catch(exception);
    say_current(0);
    print_crash({.thrown = true});
    die();
}

} // namespace baton::rt
