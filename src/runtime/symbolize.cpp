// SPDX-License-Identifier: Apache-2.0
#include "runtime/symbolize.hpp"

#include <cxxabi.h>
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>

namespace baton::rt {

namespace {

struct Free {
    void operator()(void* p) const { std::free(p); }
};
using Scopes = std::unique_ptr<Dwarf_Die, Free>;

std::string demangled(const char* name) {
    int status = 0;
    const std::unique_ptr<char, Free> text(abi::__cxa_demangle(name, nullptr, nullptr, &status));
    std::string result = text ? text.get() : name;
    constexpr std::string_view kString =
        "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";
    for (std::size_t at = 0; (at = result.find(kString, at)) != result.npos;)
        result.replace(at, kString.size(), "std::string");
    return result;
}

std::string hex(const char* before, std::uint64_t n) {
    char text[32];
    std::snprintf(text, sizeof text, "%s%#llx", before, static_cast<unsigned long long>(n));
    return text;
}

/// "/path/file.cpp:12"; empty if it is not known.
std::string place(const char* file, const char* directory, int line) {
    if (!file || line <= 0) return {};
    std::string text;
    if (*file != '/' && directory) text.append(directory).append("/");
    return text.append(file).append(":").append(std::to_string(line));
}

const char* directory_of(Dwarf_Die* cu) {
    Dwarf_Attribute attr;
    return dwarf_formstring(dwarf_attr(cu, DW_AT_comp_dir, &attr));
}

std::string place_of(Dwarf_Die* cu, Dwarf_Addr pc) {
    Dwarf_Line* line = dwarf_getsrc_die(cu, pc);
    int number = 0;
    if (!line || dwarf_lineno(line, &number) != 0) return {};
    return place(dwarf_linesrc(line, nullptr, nullptr), directory_of(cu), number);
}

/// Where the function that is inlined was called.
std::string call_of(Dwarf_Die* cu, Dwarf_Die* inlined) {
    Dwarf_Attribute attr;
    Dwarf_Word file = 0, line = 0;
    Dwarf_Files* files = nullptr;
    if (dwarf_formudata(dwarf_attr(inlined, DW_AT_call_file, &attr), &file) != 0 ||
        dwarf_formudata(dwarf_attr(inlined, DW_AT_call_line, &attr), &line) != 0 ||
        dwarf_getsrcfiles(cu, &files, nullptr) != 0)
        return {};
    return place(dwarf_filesrc(files, file, nullptr, nullptr), directory_of(cu),
                 static_cast<int>(line));
}

std::string name_of(Dwarf_Die* function);

/// What is written before "::" for what stands in this scope; empty: nothing.
std::string scope_name(Dwarf_Die* scope) {
    const char* name = dwarf_diename(scope);
    switch (dwarf_tag(scope)) {
    case DW_TAG_namespace:
        return name ? name : "(anonymous namespace)";
    case DW_TAG_class_type:
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
        return name ? name : "{lambda}";
    case DW_TAG_subprogram:
        return name_of(scope);
    default:
        return {};
    }
}

/// The name of a function without a linkage name, with the scopes around it.
std::string scoped_name(Dwarf_Die* function) {
    Dwarf_Attribute attr;
    Dwarf_Die origin = *function;
    for (const unsigned to : {DW_AT_abstract_origin, DW_AT_specification}) {
        Dwarf_Die die;
        if (dwarf_formref_die(dwarf_attr(&origin, to, &attr), &die)) origin = die;
    }
    const char* own = dwarf_diename(&origin);
    std::string name = own ? own : "?";
    Dwarf_Die* all = nullptr;
    const int n = dwarf_getscopes_die(&origin, &all);
    const Scopes scopes(all);
    for (int i = 1; i < n; i++) {
        const std::string outer = scope_name(&all[i]);
        if (!outer.empty()) name.insert(0, outer + "::");
        if (dwarf_tag(&all[i]) == DW_TAG_subprogram) break; // has its own scopes before it
    }
    return name;
}

std::string name_of(Dwarf_Die* function) {
    Dwarf_Attribute attr;
    const char* linkage =
        dwarf_formstring(dwarf_attr_integrate(function, DW_AT_linkage_name, &attr));
    const std::string name = linkage ? demangled(linkage) : "";
    // Not every name that gcc makes of a lambda is one that it can read.
    return name.empty() || name.starts_with("_Z") ? scoped_name(function) : name;
}

bool begins(std::string_view name, std::string_view scope) {
    // Of a template the return type comes first, which may be one itself.
    int depth = 0;
    for (std::size_t i = 0; i < name.size() && (depth > 0 || name[i] != '('); i++) {
        if (depth == 0 && (i == 0 || name[i - 1] == ' ') && name.substr(i).starts_with(scope))
            return true;
        depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    }
    return false;
}

Frame::Of owner(std::string_view name) {
    for (const char* ours : {"baton::rt::", "baton::detail::", "baton::assist::", "baton::kernel::",
                             "baton::arch::", "baton_"}) {
        if (begins(name, ours)) return Frame::Of::kRuntime;
    }
    for (const char* go :
         {"baton::go<", "baton::run<", "baton::WaitGroup::go<", "baton::TaskGroup::start<",
          "baton::TaskGroup::go<", "baton::TaskGroup::try_go<", "baton::async<"}) {
        if (begins(name, go)) return Frame::Of::kGo;
    }
    if (begins(name, "baton::Promise<") && name.find("::set_result_of<") != name.npos)
        return Frame::Of::kGo; // of async
    if (name.find("__cxa_throw") != name.npos || name.find("__cxa_rethrow") != name.npos ||
        name.starts_with("_Unwind_") || name.starts_with("std::rethrow_exception"))
        return Frame::Of::kThrow;
    for (const char* call : {"std::__invoke", "std::invoke", "std::apply", "std::__apply"}) {
        if (begins(name, call)) return Frame::Of::kPlumbing;
    }
    return Frame::Of::kProgram;
}

// In one module, by what its debug information says of an address.
class Inlining {
public:
    Inlining(Dwfl_Module* module, Dwarf_Addr pc) {
        cu_ = unit(module, pc);
        if (!cu_) return;
        pc -= bias_;
        where_ = place_of(cu_, pc);
        Dwarf_Die die;
        if (!innermost_at(pc, &die) && !nested_at(pc, &die)) return;
        // From there outwards; what getscopes has behind it is where it was defined.
        Dwarf_Die* out = nullptr;
        const int n = dwarf_getscopes_die(&die, &out);
        const Scopes outwards(out);
        follow(out, n);
    }
    /// Those inlined at the address, innermost first.
    std::vector<Frame> inlined;
    /// Where the function that has them is.
    const std::string& where() const { return where_; }
    /// Its name; empty: unknown.
    const std::string& function() const { return function_; }

private:
    // Not every compiler writes the table that dwfl_module_addrdie looks into.
    Dwarf_Die* unit(Dwfl_Module* module, Dwarf_Addr pc) {
        if (Dwarf_Die* cu = dwfl_module_addrdie(module, pc, &bias_)) return cu;
        Dwarf_Die* cu = nullptr;
        while ((cu = dwfl_module_nextcu(module, cu, &bias_)) != nullptr) {
            if (dwarf_haspc(cu, pc - bias_) == 1) return cu;
        }
        return nullptr;
    }
    bool innermost_at(Dwarf_Addr pc, Dwarf_Die* die) {
        Dwarf_Die* all = nullptr;
        const int n = dwarf_getscopes(cu_, pc, &all);
        const Scopes scopes(all);
        Dwarf_Die* const end = all + std::max(n, 0);
        Dwarf_Die* const found = std::find_if(all, end, [](Dwarf_Die& scope) {
            const int tag = dwarf_tag(&scope); // past blocks
            return tag == DW_TAG_inlined_subroutine || tag == DW_TAG_subprogram;
        });
        if (found == end) return false;
        *die = *found;
        return true;
    }
    // getscopes does not look for a function within another one, whose code is elsewhere: where
    // little is optimised a lambda is one.
    bool nested_at(Dwarf_Addr pc, Dwarf_Die* die) {
        struct Search {
            Dwarf_Addr pc;
            Dwarf_Die* die;
            bool found;
        } search{pc, die, false};
        dwarf_getfuncs(
            cu_,
            [](Dwarf_Die* function, void* arg) -> int {
                auto* s = static_cast<Search*>(arg);
                if (dwarf_haspc(function, s->pc) != 1) return DWARF_CB_OK;
                *s->die = *function;
                s->found = true;
                return DWARF_CB_ABORT;
            },
            &search, 0);
        while (search.found && into(pc, die)) {
        }
        return search.found;
    }
    /// To the block or inlined function in it that has the address, if one has.
    static bool into(Dwarf_Addr pc, Dwarf_Die* die) {
        Dwarf_Die child;
        if (dwarf_child(die, &child) != 0) return false;
        do {
            const int tag = dwarf_tag(&child);
            if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_lexical_block) continue;
            if (dwarf_haspc(&child, pc) != 1) continue;
            *die = child;
            return true;
        } while (dwarf_siblingof(&child, &child) == 0);
        return false;
    }
    void follow(Dwarf_Die* scopes, int n) {
        for (int i = 0; i < n; i++) {
            if (dwarf_tag(&scopes[i]) == DW_TAG_subprogram) {
                function_ = name_of(&scopes[i]);
                return;
            }
            if (dwarf_tag(&scopes[i]) != DW_TAG_inlined_subroutine) continue;
            Frame frame;
            frame.function = name_of(&scopes[i]);
            frame.of = owner(frame.function);
            frame.detail = " (inlined)";
            frame.where = where_.empty() ? "?" : where_;
            inlined.push_back(std::move(frame));
            where_ = call_of(cu_, &scopes[i]);
        }
    }

    Dwarf_Die* cu_ = nullptr;
    Dwarf_Addr bias_ = 0;
    std::string where_;
    std::string function_;
};

Frame unknown(std::uintptr_t pc) {
    Frame frame;
    frame.function = hex("", pc);
    frame.where = "?";
    return frame;
}

const Dwfl_Callbacks kCallbacks = {
    .find_elf = dwfl_linux_proc_find_elf,
    .find_debuginfo = dwfl_standard_find_debuginfo,
    .section_address = nullptr,
    .debuginfo_path = nullptr,
};

} // namespace

Symbolizer::Symbolizer() : dwfl_(dwfl_begin(&kCallbacks)) {
    if (!dwfl_) return;
    dwfl_report_begin(dwfl_);
    (void)dwfl_linux_proc_report(dwfl_, ::getpid());
    (void)dwfl_report_end(dwfl_, nullptr, nullptr);
}

Symbolizer::~Symbolizer() { dwfl_end(dwfl_); }

const std::vector<Frame>& Symbolizer::at(std::uintptr_t pc) {
    const auto [found, fresh] = known_.try_emplace(pc);
    if (fresh) found->second = describe(pc);
    return found->second;
}

std::vector<Frame> Symbolizer::describe(std::uintptr_t pc) {
    Dwfl_Module* module = dwfl_ ? dwfl_addrmodule(dwfl_, pc) : nullptr;
    if (!module) return {unknown(pc)};
    Inlining debug(module, pc);
    std::vector<Frame> frames = std::move(debug.inlined);
    Frame frame;
    GElf_Sym symbol;
    GElf_Off offset = 0;
    const char* name =
        dwfl_module_addrinfo(module, pc, &offset, &symbol, nullptr, nullptr, nullptr);
    frame.function = name ? demangled(name) : "?";
    if (frame.function.starts_with("_Z") && !debug.function().empty())
        frame.function = debug.function();
    frame.of = owner(frame.function);
    if (!debug.where().empty()) {
        frame.where = debug.where() + (name ? hex(" +", offset) : "");
    } else {
        Dwarf_Addr start = 0;
        const char* file = nullptr;
        (void)dwfl_module_info(module, nullptr, &start, nullptr, nullptr, nullptr, &file, nullptr);
        if (name) frame.detail = hex("+", offset);
        frame.where = (file ? file : "?") + hex("+", pc - start);
    }
    frames.push_back(std::move(frame));
    return frames;
}

} // namespace baton::rt
