// SPDX-License-Identifier: Apache-2.0
//
// A parked G cannot be unwound from outside without a library for it: its callers' registers are
// wherever the compiler put them. But it can be asked. It is switched to, as if it were to go on,
// and what each context does first (after_switch) walks the stack it finds itself on with the
// C++ runtime's own unwinder, then switches back. The G has not noticed: what it had saved lies
// above the frames of that visit, and its saved context is put back.
//
// Names come from the symbol table of the file a function is in; without one there is the offset in
// that file, which addr2line takes.
//
// Rejected: libunwind, which can start from a saved context but would be a dependency of every
// program for this alone.
#include "runtime/traceback.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <gelf.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "kernel/syscall.hpp"
#include "runtime/foreign.hpp"
#include "runtime/sched.hpp"
#include "runtime/stack.hpp"
#include "runtime/switch.hpp"

namespace baton::rt {

namespace {

constexpr int kFramesMax = 64;
constexpr std::ptrdiff_t kRoom = 8192; // what the visit takes of the G's stack, and more

struct Walk {
    void* pc[kFramesMax];
    int n = 0;
};

_Unwind_Reason_Code note_frame(_Unwind_Context* context, void* arg) {
    auto* walk = static_cast<Walk*>(arg);
    if (walk->n == kFramesMax) return _URC_END_OF_STACK;
    const _Unwind_Ptr pc = _Unwind_GetIP(context);
    if (pc == 0) return _URC_END_OF_STACK;
    walk->pc[walk->n++] = reinterpret_cast<void*>(pc);
    return _URC_NO_REASON;
}

// On the stack of the G that is visited.
void walk_and_return(G* gp, M* m) {
    _Unwind_Backtrace(note_frame, m->waitlock);
    switch_g_to_g0(m, gp);
}

void walk_stack(G* gp, Walk* walk) {
    if (static_cast<std::byte*>(gp->sched.sp) - gp->stack_lo < kRoom) return;
    M* m = getm();
    const arch::Context saved = gp->sched;
    const EhGlobals eh = gp->eh;
    m->waitlock = walk;
    m->prev = gp;
    m->after = walk_and_return;
    switch_g0_to_g(m, gp);
    gp->sched = saved;
    gp->eh = eh;
}

/// The functions of one file.
class Symbols {
public:
    explicit Symbols(const char* file) {
        elf_version(EV_CURRENT);
        const int fd = ::open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return;
        if (Elf* elf = elf_begin(fd, ELF_C_READ, nullptr)) {
            read(elf);
            elf_end(elf);
        }
        ::close(fd);
    }
    /// The function at `address` of the file, or of memory where it is not position-independent,
    /// and how far into it that is.
    const std::string* find(std::uint64_t address, std::uint64_t base,
                            std::uint64_t* offset) const {
        const std::uint64_t at = fixed_ ? address : address - base;
        auto next = by_start_.upper_bound(at);
        if (next == by_start_.begin()) return nullptr;
        const auto& [start, function] = *--next;
        if (at - start >= function.size) return nullptr;
        *offset = at - start;
        return &function.name;
    }

private:
    struct Function {
        std::uint64_t size;
        std::string name;
    };
    void read(Elf* elf) {
        GElf_Ehdr header;
        fixed_ = gelf_getehdr(elf, &header) && header.e_type == ET_EXEC;
        Elf_Scn* section = nullptr;
        while ((section = elf_nextscn(elf, section)) != nullptr) {
            GElf_Shdr sh;
            if (!gelf_getshdr(section, &sh) || sh.sh_entsize == 0) continue;
            if (sh.sh_type != SHT_SYMTAB && sh.sh_type != SHT_DYNSYM) continue;
            Elf_Data* data = elf_getdata(section, nullptr);
            const auto n = static_cast<int>(sh.sh_size / sh.sh_entsize);
            for (int i = 0; data && i < n; i++) {
                GElf_Sym sym;
                if (!gelf_getsym(data, i, &sym) || GELF_ST_TYPE(sym.st_info) != STT_FUNC) continue;
                const char* name = elf_strptr(elf, sh.sh_link, sym.st_name);
                if (name && sym.st_size != 0) by_start_[sym.st_value] = {sym.st_size, name};
            }
        }
    }

    bool fixed_ = false;
    std::map<std::uint64_t, Function> by_start_;
};

std::string demangled(const std::string& name) {
    int status = 0;
    char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
    if (!text) return name;
    std::string result = text;
    std::free(text);
    return result;
}

struct Frame {
    std::string name; ///< empty: unknown
    std::string text;
};

class Symbolizer {
public:
    const Frame& frame(void* pc) {
        const auto [at, fresh] = frames_.try_emplace(pc);
        if (fresh) at->second = describe(reinterpret_cast<std::uint64_t>(pc));
        return at->second;
    }

private:
    Frame describe(std::uint64_t pc) {
        char line[64];
        Frame frame;
        Dl_info info;
        // A return address may be the first of the next function: the call is one byte before.
        if (dladdr(reinterpret_cast<void*>(pc - 1), &info) == 0) {
            std::snprintf(line, sizeof line, "%#llx", static_cast<unsigned long long>(pc));
            return {"", line};
        }
        const auto base = reinterpret_cast<std::uint64_t>(info.dli_fbase);
        const std::string file = info.dli_fname;
        auto found = files_.find(file);
        if (found == files_.end()) {
            // dladdr gives argv[0] for the program, which may be a relative name.
            const char* path = file.find('/') == 0 ? file.c_str() : "/proc/self/exe";
            found = files_.emplace(file, Symbols(path)).first;
        }
        std::uint64_t offset = 0;
        if (const std::string* name = found->second.find(pc - 1, base, &offset)) {
            frame.name = demangled(*name);
            offset++;
            std::snprintf(line, sizeof line, "+%#llx", static_cast<unsigned long long>(offset));
            frame.text.append(frame.name).append(line);
        } else {
            frame.text.append("?");
        }
        std::snprintf(line, sizeof line, "+%#llx", static_cast<unsigned long long>(pc - base));
        frame.text.append("\n\t").append(file).append(line);
        return frame;
    }

    std::map<std::string, Symbols> files_;
    std::map<void*, Frame> frames_;
};

void print(const std::string& text) { kernel::raw_syscall(SYS_write, 2, text.data(), text.size()); }

// The runtime's own frames, inside the call that parked and where the goroutine began, are of no
// use to whoever reads this.
bool is_runtime(const Frame& frame) {
    return frame.name.starts_with("baton::rt::") || frame.name.starts_with("baton::detail::") ||
           frame.name == "baton_context_start";
}

std::string stack_of(G* gp, Symbolizer& symbols) {
    Walk walk;
    walk_stack(gp, &walk);
    int first = 0;
    int end = walk.n;
    while (first < end && is_runtime(symbols.frame(walk.pc[first]))) first++;
    while (first < end && is_runtime(symbols.frame(walk.pc[end - 1]))) end--;
    std::string text;
    for (int i = first; i < end; i++) text.append(symbols.frame(walk.pc[i]).text).append("\n");
    if (text.empty()) text.append("\tstack unavailable\n"); // too little room left on it
    return text;
}

void print_goroutine(G* gp, Symbolizer& symbols) {
    const char* reason = to_string(gp->waitreason);
    // relaxed: see G::status
    const bool waits = gp->status.load(std::memory_order_relaxed) == GStatus::kWaiting;
    char head[128];
    std::snprintf(head, sizeof head, "\ngoroutine %llu [%s%s]:\n",
                  static_cast<unsigned long long>(gp->goid), waits ? reason : "runnable",
                  gp->lockedm ? ", locked to thread" : "");
    std::string text = head;
    if (gp->lockedm) { // its thread sleeps on it, and cannot be asked
        text.append("\tgoroutine running on other thread; stack unavailable\n");
    } else if (waits) {
        text.append(stack_of(gp, symbols));
    }
    print(text);
}

} // namespace

void print_goroutines() {
    std::vector<G*> all;
    each_g(
        [](G* gp, void* arg) {
            // relaxed: see G::status
            const GStatus status = gp->status.load(std::memory_order_relaxed);
            if (status == GStatus::kIdle || status == GStatus::kDead || gp->forks != forks) return;
            static_cast<std::vector<G*>*>(arg)->push_back(gp);
        },
        &all);
    std::sort(all.begin(), all.end(), [](G* a, G* b) { return a->goid < b->goid; });
    Symbolizer symbols;
    for (G* gp : all) print_goroutine(gp, symbols);
    each_foreign(
        [](int tid, WaitReason reason, void*) {
            char line[96];
            std::snprintf(line, sizeof line, "\nthread %d [%s]\n", tid, to_string(reason));
            print(line);
        },
        nullptr);
}

} // namespace baton::rt
