// SPDX-License-Identifier: Apache-2.0
//
// pthread_once. Who waits for another's call parks. The function itself is run by libc, on a
// goroutine, too, where it may park. If it throws, libc clears the word, which no code of ours
// sees: so who waits looks for itself now and then.
#include <climits>

#include <dlfcn.h>

#include "preload/locks.hpp"

namespace baton::preload {

namespace {

constexpr int kDone = 2;
constexpr std::int64_t kLookNs = 10'000'000;

Waiters waiters;
// The word while the function runs: a bit, and how often this process is a forked child. In a child
// what the parent was about is begun anew.
int running = 0;
pthread_once_t sample;

// seq_cst: (A)'s look in locks.hpp; and who finds it done sees what was done.
int word(pthread_once_t* once) { return std::atomic_ref(*once).load(std::memory_order_seq_cst); }

int in_libc(pthread_once_t* once, void (*init)()) {
    const int rc = real_pthread_once()(once, init);
    if (waiters.any(once)) rt->wake(once, INT_MAX);
    return rc;
}

/// What libstdc++'s call_once is to call it leaves in two variables of the thread's, where the
/// function it gives us looks. After a park that is another thread.
class ThreadsCall {
public:
    void take() {
        each([](void*& kept, void*& threads) { kept = threads; });
    }
    void give() {
        each([](void*& kept, void*& threads) { threads = kept; });
    }

private:
    template <class F>
    void each(F f) {
        static constexpr const char* kNames[] = {"_ZSt15__once_callable", "_ZSt11__once_call"};
        for (int i = 0; i < 2; i++)
            if (void* variable = ::dlsym(RTLD_DEFAULT, kNames[i])) // this thread's
                f(kept_[i], *static_cast<void**>(variable));
    }
    void* kept_[2] = {};
};

[[gnu::noinline]] int wait(pthread_once_t* once, void (*init)(), const void* caller) {
    ThreadsCall call;
    bool parked = false;
    while (on_m() && word(once) == running && may_park(kGroup_locks, caller)) {
        if (!parked) call.take();
        parked = true;
        (void)park_until(waiters, once, deadline_in(kLookNs),
                         [once] { return word(once) != running; });
    }
    if (parked && !(word(once) & kDone)) call.give(); // the one that ran has thrown
    return in_libc(once, init);
}

[[gnu::always_inline]] inline int once_by(pthread_once_t* once, void (*init)(),
                                          const void* caller) {
    // acquire: sees what was done. On x86 the order of a plain load.
    if (std::atomic_ref(*once).load(std::memory_order_acquire) & kDone) return 0;
    return wait(once, init, caller);
}

} // namespace

void note_fork_generation() {
    sample = PTHREAD_ONCE_INIT;
    (void)real_pthread_once()(&sample, [] { running = sample; });
}

int t_pthread_once(pthread_once_t* once, void (*init)(), const void* caller) {
    return once_by(once, init, caller);
}
int t___pthread_once(pthread_once_t* once, void (*init)(), const void* caller) {
    return once_by(once, init, caller);
}
void t_call_once(once_flag* once, void (*init)(), const void* caller) {
    (void)once_by(reinterpret_cast<pthread_once_t*>(once), init, caller);
}

} // namespace baton::preload
