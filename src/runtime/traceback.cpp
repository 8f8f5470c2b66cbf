// SPDX-License-Identifier: Apache-2.0
#include "runtime/traceback.hpp"

#include <algorithm>
#include <cstdio>

#include "runtime/entry.hpp"
#include "runtime/foreign.hpp"

namespace baton::rt {

namespace {

using State = GoroutineSnap::State;
constexpr const char* kUnavailable =
    "\tgoroutine running on other thread; stack unavailable\n"; // the reference's words
constexpr std::size_t kThrowDepth = 24; // a throw's own frames are among so many

const char* state_text(const GoroutineSnap& g) {
    switch (g.state) {
    case State::kWaiting:
        return to_string(g.reason);
    case State::kRunnable:
        return "runnable";
    case State::kRunning:
        return "running";
    case State::kSyscall:
        return "syscall";
    }
    return "?";
}

// The rest is how the runtime parks, and how it calls what a goroutine is to run.
bool shown(const Frame& f) { return f.of == Frame::Of::kProgram || f.of == Frame::Of::kThrow; }

// The frames of a stack; null where some were left out.
std::vector<const Frame*> expand(const StackSnap& stack, Symbolizer& symbols) {
    std::vector<const Frame*> all;
    for (std::uint32_t i = 0; i < stack.n; i++) {
        if (i == Stack::kInner && stack.elided != 0) all.push_back(nullptr);
        for (const Frame& f : symbols.at(stack.pcs[i])) all.push_back(&f);
    }
    return all;
}

std::size_t behind_throw(const std::vector<const Frame*>& all) {
    std::size_t first = 0;
    for (std::size_t i = 0; i < all.size() && i < kThrowDepth; i++) {
        if (all[i] && all[i]->of == Frame::Of::kThrow) first = i + 1;
    }
    return first;
}

std::string frame_text(const Frame& f) { return f.function + f.detail + "\n\t" + f.where + "\n"; }

} // namespace

std::size_t header(const GoroutineSnap& g, bool runtime, char* text, std::size_t size) {
    char where[64] = "", minutes[32] = "";
    if (runtime) {
        int n = std::snprintf(where, sizeof where, " gp=%p m=", static_cast<const void*>(g.gp));
        const auto left = sizeof where - static_cast<std::size_t>(n);
        g.m ? std::snprintf(where + n, left, "%u", g.m) : std::snprintf(where + n, left, "nil");
    }
    if (g.minutes) std::snprintf(minutes, sizeof minutes, ", %u minutes", g.minutes);
    const int n = std::snprintf(text, size, "goroutine %llu%s [%s%s%s]:\n",
                                static_cast<unsigned long long>(g.goid), where, state_text(g),
                                minutes, g.locked ? ", locked to thread" : "");
    return std::min(static_cast<std::size_t>(n), size - 1);
}

std::string frames(const StackSnap& stack, Show show, Symbolizer& symbols) {
    if (!stack.begun) return {};
    if (stack.n == 0) return kUnavailable;
    const std::vector<const Frame*> all = expand(stack, symbols);
    std::string text;
    for (std::size_t i = show.thrown && !show.runtime ? behind_throw(all) : 0; i < all.size();
         i++) {
        const Frame* f = all[i];
        if (!f) {
            text.append("...").append(std::to_string(stack.elided)).append(" frames elided...\n");
        } else if (show.runtime || shown(*f)) {
            text.append(frame_text(*f));
        }
    }
    if (stack.torn) text.append("\tthe rest of the stack cannot be read\n");
    return text;
}

std::string created_by(const GoroutineSnap& g, Symbolizer& symbols) {
    if (g.gopc == 0) return {};
    // The first function that is not the one which makes it, if that was inlined.
    const std::vector<Frame>& at = symbols.at(g.gopc - 1);
    auto f =
        std::find_if(at.begin(), at.end(), [](const Frame& c) { return c.of != Frame::Of::kGo; });
    if (f == at.end()) f = std::prev(at.end());
    if (f->of == Frame::Of::kRuntime) return {};
    std::string text = "created by " + f->function;
    if (g.parent) text.append(" in goroutine ").append(std::to_string(g.parent));
    return text + "\n\t" + f->where + "\n";
}

void write_goroutines(const Snapshot& goroutines, Show show, Symbolizer& symbols,
                      void (*write)(const std::string& text, void* arg), void* arg) {
    for (std::size_t i = 0; i < goroutines.size(); i++) {
        char head[256];
        const GoroutineSnap& g = goroutines[i];
        const std::size_t n = header(g, show.runtime, head, sizeof head);
        std::string text = "\n" + std::string(head, n);
        text.append(frames(goroutines.stack(i), show, symbols));
        text.append(created_by(g, symbols));
        write(text, arg);
    }
    if (const std::size_t n = goroutines.left_out(); n != 0)
        write("\n..." + std::to_string(n) + " more goroutines left out...\n", arg);
}

void write_threads(void (*write)(const std::string& text, void* arg), void* arg) {
    struct Thread {
        int tid;
        WaitReason reason;
    };
    std::vector<Thread, PageAllocator<Thread>> waiting; // as a lock is held while they are found
    {
        Entry entry;
        each_foreign(
            [](int tid, WaitReason reason, void* to) {
                if (reason == WaitReason::kStackDump) return; // for this
                static_cast<decltype(waiting)*>(to)->push_back({tid, reason});
            },
            &waiting);
    }
    for (const Thread& t : waiting)
        write("\nthread " + std::to_string(t.tid) + " [" + to_string(t.reason) + "]\n", arg);
}

} // namespace baton::rt
