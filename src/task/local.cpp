// SPDX-License-Identifier: Apache-2.0
//
// Local: a table for each G that has values, found through G::locals. It is made with malloc in G
// code, and ended there: by the goroutine as its last act, or by a plain thread that ends
// (foreign.cpp). Nobody else ever looks at it.
#include "baton/local.hpp"

#include <atomic>
#include <cstdlib>
#include <new>
#include <system_error>

#include "runtime/foreign.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail {

namespace {

struct Value {
    void* value = nullptr;
    void (*destroy)(void*) noexcept = nullptr;
    std::uint32_t generation = 0;
    std::uint32_t made = 0; // how many before it, in this table
};

struct Table : rt::Locals {
    Value* values = nullptr;
    std::uint32_t size = 0;
    std::uint32_t made = 0;
};

constexpr std::uint32_t kKeysMax = 4096;
// For each place how often it was given out and given back: odd while it is out.
constinit std::atomic<std::uint32_t> generations[kKeysMax] = {};

/// Takes the value made last out of the table.
Value take_last(Table* t) {
    Value* last = nullptr;
    for (std::uint32_t i = 0; i < t->size; i++) {
        Value& v = t->values[i];
        if (v.value && (!last || v.made > last->made)) last = &v;
    }
    if (!last) return {};
    return std::exchange(*last, {});
}

/// Destructors may ask for values, and so make some again; it ends when none is left.
void end_table(rt::G* gp) {
    auto* t = static_cast<Table*>(gp->locals);
    for (;;) {
        const Value v = take_last(t);
        if (!v.value) break;
        v.destroy(v.value);
    }
    gp->locals = nullptr;
    std::free(t->values);
    delete t;
}

Table* grown(rt::G* gp, std::uint32_t index) {
    auto* t = static_cast<Table*>(gp->locals);
    if (!t) {
        t = new Table;
        t->end = end_table;
        gp->locals = t;
    }
    if (index < t->size) return t;
    const std::uint32_t size = index < 4 ? 4 : 2 * index;
    void* more = std::realloc(t->values, size * sizeof(Value));
    if (!more) throw std::bad_alloc();
    t->values = static_cast<Value*>(more);
    for (; t->size < size; t->size++) ::new (&t->values[t->size]) Value;
    return t;
}

} // namespace

LocalKey local_key() {
    for (std::uint32_t i = 0; i < kKeysMax; i++) {
        // relaxed, all: the number says it all; nothing else is shared by it.
        std::uint32_t free = generations[i].load(std::memory_order_relaxed);
        if (free % 2 == 0 &&
            generations[i].compare_exchange_strong(free, free + 1, std::memory_order_relaxed))
            return {i, free + 1};
    }
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again),
                            "baton::Local: 4096 of them are in use");
}

void local_key_free(LocalKey key) noexcept {
    // relaxed: as in local_key.
    generations[key.index].fetch_add(1, std::memory_order_relaxed);
}

void* local_find(LocalKey key) noexcept {
    const auto* t = static_cast<const Table*>(rt::waiting_g()->locals);
    if (!t || key.index >= t->size) return nullptr;
    const Value& v = t->values[key.index];
    return v.generation == key.generation ? v.value : nullptr;
}

void local_set(LocalKey key, void* value, void (*destroy)(void*) noexcept) {
    Table* t = grown(rt::waiting_g(), key.index);
    // What a Local that has ended left at this place.
    const Value old =
        std::exchange(t->values[key.index], {value, destroy, key.generation, t->made++});
    if (old.value) old.destroy(old.value);
}

} // namespace baton::detail
