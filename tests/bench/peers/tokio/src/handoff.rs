// SPDX-License-Identifier: Apache-2.0

//! The rounds of the handoff benchmark, as tests/bench/support/duel.hpp has them; the call that
//! blocks is announced by block_in_place.

use crate::clock::{now, percentile};
use crate::{fail, figure, on_workers, Args};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{block_in_place, yield_now};

struct Duel {
    pipe: [i32; 2],
    took: Vec<AtomicU32>,
    until: i64,
    settled: AtomicU64,
    seen: AtomicU64,
    stamp: AtomicI64,
    round: AtomicU64,
    over: AtomicBool,
}

fn lost(expected: u64, came: u64) -> ! {
    fail(&format!("round {expected} expected, {came} came: a round was lost or doubled"))
}

impl Duel {
    fn new(rounds: i64, ms: i64) -> Duel {
        let mut pipe = [0; 2];
        if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            fail("pipe");
        }
        Duel {
            pipe,
            took: (0..rounds).map(|_| AtomicU32::new(1)).collect(),
            until: if ms == 0 { i64::MAX } else { now() + ms * 1_000_000 },
            settled: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            stamp: AtomicI64::new(0),
            round: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn begin(&self) -> bool {
        let settled = self.settled.load(Ordering::Relaxed);
        if settled == self.took.len() as u64 || now() >= self.until {
            self.over.store(true, Ordering::Release);
            return false;
        }
        self.stamp.store(now(), Ordering::Relaxed);
        self.round.store(settled + 1, Ordering::Release);
        true
    }

    fn wait(&self) -> u64 {
        let mut number = 0u64;
        let n = unsafe { libc::read(self.pipe[0], (&raw mut number).cast(), 8) };
        if n == 8 {
            number
        } else {
            0
        }
    }

    fn settle(&self, number: u64) {
        let settled = self.settled.load(Ordering::Relaxed);
        if number != settled + 1 {
            lost(settled + 1, number);
        }
        self.settled.store(number, Ordering::Relaxed);
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn look(&self) -> bool {
        let round = self.round.load(Ordering::Acquire);
        let seen = self.seen.load(Ordering::Relaxed);
        if round == seen {
            return false;
        }
        let took = now() - self.stamp.load(Ordering::Relaxed);
        self.took[round as usize - 1].store(took.min(u32::MAX as i64) as u32, Ordering::Relaxed);
        if round != seen + 1 {
            lost(seen + 1, round);
        }
        self.seen.store(round, Ordering::Relaxed);
        if unsafe { libc::write(self.pipe[1], (&raw const round).cast(), 8) } != 8 {
            fail("write");
        }
        unsafe { libc::sched_yield() }; // lets the one just woken by
        true
    }

    fn report(&self) {
        let settled = self.settled.load(Ordering::Relaxed);
        if self.seen.load(Ordering::Relaxed) != settled {
            lost(settled, self.seen.load(Ordering::Relaxed));
        }
        let taken = &self.took[..settled as usize];
        let mut taken: Vec<u32> = taken.iter().map(|t| t.load(Ordering::Relaxed)).collect();
        figure("p50_ns", percentile(&mut taken, 0.5));
        figure("p99_ns", percentile(&mut taken, 0.99));
        figure("max_ns", percentile(&mut taken, 1.0));
    }
}

/// Both tasks are runnable all the time.
async fn steady(duel: Arc<Duel>) {
    let other = duel.clone();
    let other = tokio::spawn(async move {
        while !other.over() {
            other.look();
            yield_now().await;
        }
    });
    while duel.begin() {
        duel.settle(block_in_place(|| duel.wait()));
        yield_now().await;
    }
    other.await.unwrap();
}

/// Nothing runs for a while, then the second task is started and the first blocks.
async fn dozing(duel: Arc<Duel>, pause: Duration) {
    let mut more = true;
    while more {
        tokio::time::sleep(pause).await;
        let other = duel.clone();
        let other = tokio::spawn(async move {
            while !other.over() && !other.look() {
                yield_now().await;
            }
        });
        more = duel.begin();
        if more {
            duel.settle(block_in_place(|| duel.wait()));
        }
        other.await.unwrap();
    }
}

pub fn run(args: Args) {
    on_workers(1, async move {
        let duel = Arc::new(Duel::new(args.number("rounds"), args.number("ms")));
        if args.text("load") == "dozing" {
            dozing(duel.clone(), Duration::from_micros(args.number("pause_us") as u64)).await;
        } else {
            steady(duel.clone()).await;
        }
        duel.report();
        std::process::exit(0)
    })
}
