// SPDX-License-Identifier: Apache-2.0

//! Random reads of 4 KiB by 64 tasks: a pread in spawn_blocking for each, as tokio::fs has it.

use crate::clock::{cpu_us, now, percentile};
use crate::{fail, figure, Args};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

const BLOCK: usize = 4096;
const READERS: u64 = 64;
const SAMPLES: usize = 200_000; // of each task, the first ones

#[repr(align(4096))]
struct Block([u8; BLOCK]);

fn threads() -> i64 {
    std::fs::metadata("/proc/self/task").map_or(0, |m| m.nlink() as i64 - 2)
}

async fn reader(
    file: Arc<std::fs::File>,
    blocks: u64,
    seed: u64,
    stop: Arc<AtomicBool>,
) -> (Vec<u32>, u64) {
    let mut buf = Box::new(Block([0; BLOCK]));
    let mut ns = Vec::with_capacity(SAMPLES);
    let mut x = 88172645463325252u64.wrapping_mul(2 * seed + 1);
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let at = (x % blocks * BLOCK as u64) as i64;
        let begin = now();
        let file = file.clone();
        let (back, n) = tokio::task::spawn_blocking(move || {
            let n = unsafe { libc::pread(file.as_raw_fd(), buf.0.as_mut_ptr().cast(), BLOCK, at) };
            (buf, n)
        })
        .await
        .unwrap_or_else(|e| fail(&e.to_string()));
        buf = back;
        if n != BLOCK as isize {
            fail("a read came short");
        }
        if ns.len() < SAMPLES {
            ns.push((now() - begin) as u32);
        }
        reads += 1;
    }
    (ns, reads)
}

pub fn run(args: Args) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap_or_else(|e| fail(&e.to_string())).block_on(async move {
        let flags = if args.number("cached") == 0 { libc::O_DIRECT } else { 0 };
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(args.text("file"));
        let file = Arc::new(file.unwrap_or_else(|e| fail(&e.to_string())));
        let blocks = file.metadata().map_or(0, |m| m.len()) / BLOCK as u64;
        let stop = Arc::new(AtomicBool::new(false));
        let (cpu, begin) = (cpu_us(), now());
        let end = begin + args.number("ms") * 1_000_000;
        let all: Vec<_> = (0..READERS)
            .map(|i| tokio::spawn(reader(file.clone(), blocks, i, stop.clone())))
            .collect();
        let mut most = 0;
        while now() < end {
            most = most.max(threads());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.store(true, Ordering::Relaxed);
        let (mut latencies, mut reads) = (Vec::new(), 0);
        for task in all {
            let (ns, n) = task.await.unwrap_or_else(|e| fail(&e.to_string()));
            latencies.extend(ns);
            reads += n;
        }
        let seconds = (now() - begin) as f64 / 1e9;
        figure("iops", reads as f64 / seconds);
        figure("p50_us", percentile(&mut latencies, 0.5) / 1e3);
        figure("p99_us", percentile(&mut latencies, 0.99) / 1e3);
        figure("threads", most as f64);
        figure("cpu_us_each", (cpu_us() - cpu) / reads as f64);
    });
}
