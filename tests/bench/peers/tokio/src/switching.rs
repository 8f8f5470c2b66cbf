// SPDX-License-Identifier: Apache-2.0

//! yield, spawn, pingpong, mutex, parked and bracket.

use crate::clock::{cpu_us, median, now, Meter};
use crate::{fail, figure, on_workers, Args};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, Mutex, RwLock, Semaphore};
use tokio::task::{block_in_place, yield_now};

/// Eight tasks a worker that do nothing but yield.
pub fn yields(args: Args) {
    let procs = args.number("procs") as usize;
    let tasks = 8 * procs as u64;
    on_workers(procs, async move {
        let mut meter = Meter::new(args.number("ms"));
        loop {
            let each = meter.n.div_ceil(tasks);
            let start = now();
            let spawn = |_| {
                tokio::spawn(async move {
                    for _ in 0..each {
                        yield_now().await;
                    }
                })
            };
            let all: Vec<_> = (0..tasks).map(spawn).collect();
            for task in all {
                task.await.unwrap();
            }
            let took = (now() - start) * meter.n as i64 / (each * tasks) as i64;
            if let Some(ns) = meter.add(took) {
                return figure("ns_per_op", ns);
            }
        }
    });
}

/// Batches of a hundred, joined through their handles.
pub fn spawn(args: Args) {
    const BATCH: usize = 100;
    on_workers(args.number("procs") as usize, async move {
        let mut meter = Meter::new(args.number("ms"));
        loop {
            let start = now();
            let mut batch = Vec::with_capacity(BATCH);
            for _ in 0..meter.n / BATCH as u64 {
                batch.extend((0..BATCH).map(|_| tokio::spawn(async {})));
                for task in batch.drain(..) {
                    task.await.unwrap();
                }
            }
            let took = now() - start;
            if let Some(ns) = meter.add(took) {
                return figure("ns_per_op", ns);
            }
        }
    });
}

/// There and back through two channels with room for one value, the smallest tokio has.
pub fn pingpong(args: Args) {
    on_workers(args.number("procs") as usize, async move {
        let mut meter = Meter::new(args.number("ms"));
        loop {
            let n = meter.n;
            let (ping, mut pinged) = mpsc::channel::<u64>(1);
            let (pong, mut ponged) = mpsc::channel::<u64>(1);
            let echo = tokio::spawn(async move {
                while let Some(value) = pinged.recv().await {
                    pong.send(value).await.unwrap();
                }
            });
            let start = now();
            for i in 0..n {
                ping.send(i).await.unwrap();
                if ponged.recv().await != Some(i) {
                    fail("a value came back wrong");
                }
            }
            let took = now() - start;
            drop(ping);
            echo.await.unwrap();
            if let Some(ns) = meter.add(took) {
                return figure("ns_per_op", ns);
            }
        }
    });
}

/// How many locks of task t come before its first for writing, if one in `every` is.
fn first_write(t: u64, every: u64) -> u64 {
    if every == u64::MAX {
        every
    } else {
        t % every
    }
}

/// Lock and unlock, for writing or reading, by so many tasks.
pub fn mutex(args: Args) {
    let tasks = args.number("tasks") as u64;
    let reads = args.text("kind") != "mutex";
    let write_every = match args.text("kind") {
        "rwmutex_mix" => args.number("write_every") as u64,
        _ => u64::MAX,
    };
    on_workers(args.number("procs") as usize, async move {
        let mut meter = Meter::new(args.number("ms"));
        let (mut ops, cpu) = (0, cpu_us());
        loop {
            let each = meter.n.div_ceil(tasks);
            ops += meter.n;
            let (lock, rwlock) = (Arc::new(Mutex::new(())), Arc::new(RwLock::new(())));
            let start = now();
            let spawn = |t: u64| {
                let (lock, rwlock) = (lock.clone(), rwlock.clone());
                tokio::spawn(async move {
                    let mut until_write = first_write(t, write_every);
                    for _ in 0..each {
                        if reads && until_write != 0 {
                            until_write -= 1;
                            drop(rwlock.read().await);
                        } else if reads {
                            until_write = write_every - 1;
                            drop(rwlock.write().await);
                        } else {
                            drop(lock.lock().await);
                        }
                    }
                })
            };
            let all: Vec<_> = (0..tasks).map(spawn).collect();
            for task in all {
                task.await.unwrap();
            }
            let took = (now() - start) * meter.n as i64 / (each * tasks) as i64;
            if let Some(ns) = meter.add(took) {
                figure("ns_per_op", ns);
                return figure("cpu_ns_each", (cpu_us() - cpu) * 1000.0 / ops as f64);
            }
        }
    });
}

fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64
}

/// n tasks wait for a semaphore: tokio's mpsc has only one receiver.
pub fn parked(args: Args) {
    let n = args.number("n");
    on_workers(2, async move {
        let gate = Arc::new(Semaphore::new(0));
        let begun = Arc::new(AtomicI64::new(0));
        let before = resident_bytes();
        for _ in 0..n {
            let (gate, begun) = (gate.clone(), begun.clone());
            tokio::spawn(async move {
                begun.fetch_add(1, Relaxed);
                let _ = gate.acquire().await;
            });
        }
        while begun.load(Relaxed) < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await; // the last are between count and park
        figure("bytes_each", (resident_bytes() - before) / n as f64);
        std::process::exit(0)
    });
}

fn getppid() {
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// block_in_place around a call that does not block, less the call alone. Both are followed by a
/// yield: without one a worker given away stays away, and later calls find nothing to give.
pub fn bracket(args: Args) {
    const CALLS: i64 = 500;
    on_workers(1, async move {
        let mut extra = Vec::new();
        let until = now() + args.number("ms") * 1_000_000;
        while now() < until {
            let start = now();
            for _ in 0..CALLS {
                getppid();
                yield_now().await;
            }
            let middle = now();
            for _ in 0..CALLS {
                block_in_place(getppid);
                yield_now().await;
            }
            let end = now();
            extra.push(((end - middle) - (middle - start)) as f64 / CALLS as f64);
        }
        figure("extra_ns", median(&mut extra));
    });
}
