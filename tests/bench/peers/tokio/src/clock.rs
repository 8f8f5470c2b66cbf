// SPDX-License-Identifier: Apache-2.0

//! The clock and the way to find a number of operations, as on the other sides.

use std::sync::OnceLock;
use std::time::Instant;

/// CLOCK_MONOTONIC through the vDSO, in nanoseconds since the first call.
pub fn now() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as i64
}

/// User and system time of the whole process.
pub fn cpu_us() -> f64 {
    let us = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        us(usage.ru_utime) + us(usage.ru_stime)
    }
}

/// How many operations to do at a time, and what they took: doubling until that is a fiftieth of
/// the window, which warms up, then again and again for the window, and those are the figure.
pub struct Meter {
    pub n: u64,
    window_ns: i64,
    warm: bool,
    took: i64,
    done: u64,
}

impl Meter {
    pub fn new(ms: i64) -> Meter {
        Meter { n: 100, window_ns: ms * 1_000_000, warm: false, took: 0, done: 0 }
    }

    /// After `n` operations: nanoseconds for each, once it is known.
    pub fn add(&mut self, took: i64) -> Option<f64> {
        if !self.warm {
            self.warm = took >= self.window_ns / 50;
            self.n *= if self.warm { 1 } else { 2 };
            return None;
        }
        self.took += took;
        self.done += self.n;
        (self.took >= self.window_ns).then(|| self.took as f64 / self.done as f64)
    }
}

/// Both reorder their samples.
pub fn percentile<T: PartialOrd + Copy + Into<f64>>(samples: &mut [T], q: f64) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    samples.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap());
    samples[(samples.len() - 1).min((samples.len() as f64 * q) as usize)].into()
}

pub fn median<T: PartialOrd + Copy + Into<f64>>(samples: &mut [T]) -> f64 {
    percentile(samples, 0.5)
}
