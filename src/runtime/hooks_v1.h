/* SPDX-License-Identifier: Apache-2.0
 *
 * What the runtime tells libbaton_preload.so, so that there is one runtime in the process whichever
 * way the program has it: the library needs none of its own, it defines baton_preload_attach_v1,
 * and the runtime, when it starts, looks that name up and hands it this table.
 *
 * Deadlines are CLOCK_MONOTONIC in nanoseconds, INT64_MAX for none. Nothing here touches errno.
 */
#pragma once

#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One for each descriptor number, zero at first; the runtime's, but for gen. */
struct baton_fd_slot {
    void* pd;
    uint32_t opening;
    uint32_t reader; /* 0: nobody waits, 1: somebody, 2: others queue behind that one */
    uint32_t writer;
    uint32_t gen; /* one up when the descriptor is closed */
};

/* A wait for one direction of a descriptor whose slot is of that gen. */
struct baton_fd_ask {
    struct baton_fd_slot* slot;
    int fd;
    int for_write;
    uint32_t gen;
};
#define BATON_ASKS_MOST 16

/* A call on a file that is under way; the runtime's. */
struct baton_file_call {
    void* word[3];
};

/* What ring_connect and ring_read say besides a result or -errno: there is no ring, nothing has
 * been done; and another than the caller had the kernel give it up. */
#define BATON_NO_RING (-4096)
#define BATON_GIVEN_UP (-4097)

enum baton_place {
    BATON_ELSEWHERE,  /* a plain thread, the runtime's own code, a signal handler's own stack */
    BATON_IN_BRACKET, /* a goroutine inside baton::blocking, which may not park */
    BATON_MAY_PARK    /* a goroutine */
};

struct baton_hooks_v1 {
    uint32_t size;
    /* The word at this offset from the thread pointer is 0 on threads that are no Ms. */
    long m_offset;
    enum baton_place (*place)(void);
    uint64_t (*goid)(void);
    /* An announced blocking call: leave what enter returned, unless that is null. */
    void* (*enter)(void);
    void (*leave)(void* entered);
    void (*pin)(void);
    void (*unpin)(void);

    /* Those below park: where place() is BATON_MAY_PARK only. */
    void (*sleep_until)(int64_t when);
    /* Others that are ready go first. */
    void (*yield)(void);
    /* 0: fd may be ready, try again; ETIMEDOUT; EBADF: the slot's gen is another; else it cannot be
     * waited for here, and why. */
    int (*fd_wait)(struct baton_fd_slot* slot, int fd, int for_write, int64_t deadline,
                   uint32_t gen);
    /* The same for whichever of them is first, BATON_ASKS_MOST at most and no two for the same.
     * EBUSY: another goroutine waits for one of them. */
    int (*fd_wait_any)(const struct baton_fd_ask* asks, unsigned n, int64_t deadline);
    /* 0: woken by wake; EAGAIN: still(arg) was 0, asked when nobody could have woken us;
     * ETIMEDOUT. */
    int (*park)(const void* addr, int (*still)(void*), void* arg, int64_t deadline);
    /* connect, and pread of a file, by a ring. -ETIMEDOUT past the deadline, too. */
    long (*ring_connect)(int fd, const void* to, uint32_t len, int64_t deadline);
    long (*ring_read)(int fd, const struct iovec* iov, int n, int64_t at);
    /* An announced call on a file, if in_turn one of BATON_FILE_THREADS. leave does not park. */
    void (*file_enter)(struct baton_file_call* call, int in_turn);
    void (*file_leave)(struct baton_file_call* call);

    /* Any thread. */
    int (*wake)(const void* addr, int most); /* how many were woken */
    /* Are about half of the turns taken? If not, they are not when the caller has taken one,
     * either, nor is the last one. */
    int (*file_busy)(void);
    /* Ends the ring_connect calls of that descriptor that the kernel has by now. */
    void (*ring_cancel)(int fd);
    /* Who waits for the slot's descriptor looks at gen. */
    void (*fd_evict)(struct baton_fd_slot* slot);
    /* In a forked child, once the runtime has forgotten its parent. */
    void (*fd_forget)(struct baton_fd_slot* slot);
};

/* Of libbaton_preload.so. 0: the hooks are at work; else they are switched off. */
int baton_preload_attach_v1(const struct baton_hooks_v1* runtime);

#ifdef __cplusplus
}
#endif
