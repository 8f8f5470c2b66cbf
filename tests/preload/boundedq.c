/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "boundedq.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

struct boundedq {
    pthread_mutex_t lock;
    pthread_cond_t not_full, not_empty;
    bool closed;
    unsigned first, count, capacity;
    long values[];
};

struct boundedq* boundedq_new(unsigned capacity) {
    struct boundedq* q = calloc(1, sizeof *q + capacity * sizeof q->values[0]);
    if (!q) return NULL;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->not_full, &attr);
    pthread_cond_init(&q->not_empty, &attr);
    pthread_condattr_destroy(&attr);
    q->capacity = capacity;
    return q;
}

void boundedq_free(struct boundedq* q) {
    pthread_cond_destroy(&q->not_full);
    pthread_cond_destroy(&q->not_empty);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

static struct timespec in_ms(int ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

/* The lock is held before and after. */
static int wait_for(struct boundedq* q, pthread_cond_t* news, int timeout_ms,
                    const struct timespec* until) {
    if (timeout_ms < 0) return pthread_cond_wait(news, &q->lock);
    return pthread_cond_timedwait(news, &q->lock, until);
}

int boundedq_put(struct boundedq* q, long value, int timeout_ms) {
    const struct timespec until = in_ms(timeout_ms);
    int err = 0;
    pthread_mutex_lock(&q->lock);
    while (!q->closed && q->count == q->capacity && err == 0)
        err = wait_for(q, &q->not_full, timeout_ms, &until);
    if (q->closed) err = EPIPE;
    if (err == 0) {
        q->values[(q->first + q->count++) % q->capacity] = value;
        pthread_cond_signal(&q->not_empty);
    }
    pthread_mutex_unlock(&q->lock);
    return err;
}

int boundedq_get(struct boundedq* q, long* value, int timeout_ms) {
    const struct timespec until = in_ms(timeout_ms);
    int err = 0;
    pthread_mutex_lock(&q->lock);
    while (!q->closed && q->count == 0 && err == 0)
        err = wait_for(q, &q->not_empty, timeout_ms, &until);
    if (q->count > 0) {
        *value = q->values[q->first];
        q->first = (q->first + 1) % q->capacity;
        q->count--;
        pthread_cond_signal(&q->not_full);
        err = 0;
    } else if (q->closed) {
        err = EPIPE;
    }
    pthread_mutex_unlock(&q->lock);
    return err;
}

void boundedq_close(struct boundedq* q) {
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->not_full);
    pthread_cond_broadcast(&q->not_empty);
    pthread_mutex_unlock(&q->lock);
}
