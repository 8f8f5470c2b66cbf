// SPDX-License-Identifier: Apache-2.0
//
// Where a symbol goes on to: the next object in the order of loading that defines it, by its GNU or
// ELF hash table. dlsym would do the same, but it allocates, and an allocator may be what calls us.
//
// Of several versions of a symbol the default one is taken, as by dlsym. What is there in one
// hidden version only (pthread functions that libc once kept apart) is taken in that.
#include <cstring>

#include <elf.h>
#include <link.h>

#include "preload/preload.hpp"

namespace baton::preload {

constinit void* real_slots[kReals] = {};

#define PARK(group, type, name, params, args) #name,
#define SAME(group, type, name, params, target, args) #name,
const char* const kRealNames[kReals] = {
#include "preload/symbols.def"
};

namespace {

constexpr ElfW(Versym) kHidden = 0x8000;

struct Object {
    ElfW(Addr) base = 0;
    const ElfW(Sym) * symbols = nullptr;
    const char* strings = nullptr;
    const std::uint32_t* gnu_hash = nullptr;
    const std::uint32_t* hash = nullptr;
    const ElfW(Versym) * versions = nullptr;
};

std::uint32_t gnu_hash_of(const char* name) {
    std::uint32_t h = 5381;
    for (; *name; name++) h = h * 33 + static_cast<unsigned char>(*name);
    return h;
}

std::uint32_t elf_hash_of(const char* name) {
    std::uint32_t h = 0;
    for (; *name; name++) {
        h = (h << 4) + static_cast<unsigned char>(*name);
        const std::uint32_t high = h & 0xf0000000;
        h ^= high >> 24;
        h &= ~high;
    }
    return h;
}

/// Looks at one symbol of that hash; true ends the search.
struct Match {
    const Object& object;
    const char* name;
    const ElfW(Sym) * best = nullptr;

    bool operator()(std::uint32_t i) {
        const ElfW(Sym)& symbol = object.symbols[i];
        const auto type = ELF64_ST_TYPE(symbol.st_info);
        if (symbol.st_shndx == SHN_UNDEF || symbol.st_value == 0) return false;
        if (type != STT_FUNC && type != STT_GNU_IFUNC && type != STT_NOTYPE) return false;
        if (std::strcmp(object.strings + symbol.st_name, name) != 0) return false;
        best = &symbol;
        return !object.versions || !(object.versions[i] & kHidden);
    }
};

void search_gnu(const Object& object, Match& match) {
    const std::uint32_t* table = object.gnu_hash;
    const std::uint32_t buckets = table[0], first = table[1], bloom = table[2];
    const std::uint32_t* bucket = table + 4 + bloom * (sizeof(ElfW(Addr)) / 4);
    const std::uint32_t* chain = bucket + buckets;
    const std::uint32_t hash = gnu_hash_of(match.name);
    if (buckets == 0) return;
    std::uint32_t i = bucket[hash % buckets];
    if (i < first) return;
    for (;; i++) {
        const std::uint32_t there = chain[i - first];
        if ((there | 1) == (hash | 1) && match(i)) return;
        if (there & 1) return;
    }
}

void search_elf(const Object& object, Match& match) {
    const std::uint32_t buckets = object.hash[0];
    const std::uint32_t* bucket = object.hash + 2;
    const std::uint32_t* chain = bucket + buckets;
    if (buckets == 0) return;
    for (std::uint32_t i = bucket[elf_hash_of(match.name) % buckets]; i != 0; i = chain[i])
        if (match(i)) return;
}

void* find_in(const Object& object, const char* name) {
    if (!object.symbols || !object.strings) return nullptr;
    Match match{object, name};
    if (object.gnu_hash) {
        search_gnu(object, match);
    } else if (object.hash) {
        search_elf(object, match);
    }
    if (!match.best) return nullptr;
    auto* at = reinterpret_cast<void*>(object.base + match.best->st_value);
    if (ELF64_ST_TYPE(match.best->st_info) != STT_GNU_IFUNC) return at;
    return reinterpret_cast<void* (*)()>(at)();
}

bool contains(const dl_phdr_info* info, const void* address) {
    const auto at = reinterpret_cast<ElfW(Addr)>(address) - info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr)& p = info->dlpi_phdr[i];
        if (p.p_type == PT_LOAD && at >= p.p_vaddr && at < p.p_vaddr + p.p_memsz) return true;
    }
    return false;
}

Object object_of(const dl_phdr_info* info) {
    Object object;
    object.base = info->dlpi_addr;
    const ElfW(Dyn)* dynamic = nullptr;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            dynamic =
                reinterpret_cast<const ElfW(Dyn)*>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    // The loader makes these absolute; the vDSO's it leaves as they are.
    const auto address = [&](const ElfW(Dyn) & d) {
        return d.d_un.d_ptr < info->dlpi_addr ? info->dlpi_addr + d.d_un.d_ptr : d.d_un.d_ptr;
    };
    for (const ElfW(Dyn)* d = dynamic; d && d->d_tag != DT_NULL; d++) {
        switch (d->d_tag) {
        case DT_SYMTAB:
            object.symbols = reinterpret_cast<const ElfW(Sym)*>(address(*d));
            break;
        case DT_STRTAB:
            object.strings = reinterpret_cast<const char*>(address(*d));
            break;
        case DT_GNU_HASH:
            object.gnu_hash = reinterpret_cast<const std::uint32_t*>(address(*d));
            break;
        case DT_HASH:
            object.hash = reinterpret_cast<const std::uint32_t*>(address(*d));
            break;
        case DT_VERSYM:
            object.versions = reinterpret_cast<const ElfW(Versym)*>(address(*d));
            break;
        default:
            break;
        }
    }
    return object;
}

struct Search {
    const char* name;
    bool past_us = false;
    void* after = nullptr;  // the first behind us
    void* before = nullptr; // the last before us: where we were loaded late
};

int look(dl_phdr_info* info, std::size_t, void* arg) {
    auto* search = static_cast<Search*>(arg);
    if (contains(info, reinterpret_cast<const void*>(&find_real))) {
        search->past_us = true;
        return 0;
    }
    void* found = find_in(object_of(info), search->name);
    if (found) (search->past_us ? search->after : search->before) = found;
    return search->after != nullptr;
}

} // namespace

void* find_real(RealIndex i) {
    Search search{kRealNames[i]};
    ::dl_iterate_phdr(look, &search);
    void* found = search.after ? search.after : search.before;
    // relaxed: see real_at.
    std::atomic_ref(real_slots[i]).store(found, std::memory_order_relaxed);
    return found;
}

namespace {

[[gnu::constructor(101)]] void find_all() {
    for (unsigned i = 0; i < kReals; i++) (void)find_real(static_cast<RealIndex>(i));
}

} // namespace

} // namespace baton::preload
