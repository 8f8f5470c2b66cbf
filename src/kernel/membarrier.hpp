// SPDX-License-Identifier: Apache-2.0
//
// Making another CPU give up its restartable sequence.
//
// Threads: any thread; not from signal handlers before membarrier_register.
//
// Ordering: when membarrier_rseq_cpu(c) returns, (A) every thread of this process that was on CPU
// c has executed a full barrier since the call, and (B) none is in a sequence it had begun
// before the call: it restarts through its abort address. A thread on c that was not running has
// passed the context switch, which does the same. So: what was stored before the call is seen by
// each sequence on c that commits after it, and a commit before it is seen after it here.
#pragma once

namespace baton::kernel {

/// Once per process, before the first membarrier_rseq_cpu: 0, or -errno where the kernel does
/// not have it or the feature is switched off. Children of fork inherit it, exec clears it.
[[nodiscard]] int membarrier_register() noexcept;

/// Restarts the sequences on `cpu`, or on every CPU when it is negative. An offline or impossible
/// CPU is no error. Aborts the process when the kernel refuses: whoever calls this can neither go
/// on nor go back without it.
void membarrier_rseq_cpu(int cpu) noexcept;

} // namespace baton::kernel
