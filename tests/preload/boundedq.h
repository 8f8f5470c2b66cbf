/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded queue of numbers between threads, in plain C with a mutex and condition variables. It
 * knows nothing of goroutines.
 */
#ifndef BOUNDEDQ_H
#define BOUNDEDQ_H

#ifdef __cplusplus
extern "C" {
#endif

struct boundedq;

struct boundedq* boundedq_new(unsigned capacity);
void boundedq_free(struct boundedq* q);
/* 0, ETIMEDOUT, or EPIPE once it is closed (and empty, for get). A negative timeout is none. */
int boundedq_put(struct boundedq* q, long value, int timeout_ms);
int boundedq_get(struct boundedq* q, long* value, int timeout_ms);
void boundedq_close(struct boundedq* q);

#ifdef __cplusplus
}
#endif
#endif
