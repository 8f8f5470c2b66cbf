// SPDX-License-Identifier: Apache-2.0

//! timers: sleepers, or timers that are set and stopped.

use crate::clock::{now, percentile};
use crate::{fail, figure, on_workers, Args};
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{sleep, Sleep};

pub fn run(args: Args) {
    let n = args.number("n") as u64;
    match args.text("kind") {
        "sleep" => sleepers(n, args.number("rounds") as u64),
        "setstop" => set_and_stop(n, false),
        "atonce" => set_and_stop(n, true),
        _ => fail("unknown kind of timers"),
    }
}

fn sleepers(n: u64, rounds: u64) {
    let (mut late_us, cpu_s) = on_workers(2, async move {
        let begin = now() + 1_000_000_000;
        let sleeper = |i: u64| {
            tokio::spawn(async move {
                let mut late_us = Vec::with_capacity(rounds as usize);
                let mut chance = 88172645463325252u64.wrapping_mul(2 * i + 1);
                let mut step = || {
                    chance ^= chance << 13;
                    chance ^= chance >> 7;
                    chance ^= chance << 17;
                    chance
                };
                let first = begin - now() + (step() % 100_000_000) as i64;
                sleep(Duration::from_nanos(first.max(0) as u64)).await;
                for _ in 0..rounds {
                    let ns = 1_000_000 + step() % 99_000_000;
                    let due = now() + ns as i64;
                    sleep(Duration::from_nanos(ns)).await;
                    late_us.push(((now() - due) / 1000) as u32);
                }
                late_us
            })
        };
        let all: Vec<_> = (0..n).map(sleeper).collect();
        sleep(Duration::from_nanos((begin - now()).max(0) as u64)).await;
        let before = cpu_s();
        let mut late_us = Vec::with_capacity((n * rounds) as usize);
        for task in all {
            late_us.extend(task.await.unwrap());
        }
        (late_us, cpu_s() - before)
    });
    figure("p50_us", percentile(&mut late_us, 0.5));
    figure("p99_us", percentile(&mut late_us, 0.99));
    figure("cpu_s", cpu_s);
}

fn cpu_s() -> f64 {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let s = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    s(usage.ru_utime) + s(usage.ru_stime)
}

/// A Sleep is set when it is polled for the first time, and stopped when it is dropped.
fn set_and_stop(n: u64, at_once: bool) {
    on_workers(2, async move {
        let mut all: Vec<Option<Pin<Box<Sleep>>>> = Vec::with_capacity(n as usize);
        let mut start = 0;
        for _ in 0..2 {
            // the first one warms up
            all.clear();
            start = now();
            for i in 0..n {
                let after = Duration::from_secs(3600) + Duration::from_micros(i * 7919 % n);
                let mut timer = Box::pin(sleep(after));
                std::future::poll_fn(|context| {
                    let _ = timer.as_mut().poll(context);
                    Poll::Ready(())
                })
                .await;
                all.push(if at_once { None } else { Some(timer) });
            }
            for timer in &mut all {
                *timer = None;
            }
        }
        figure("ns_per_op", (now() - start) as f64 / n as f64);
    });
}
