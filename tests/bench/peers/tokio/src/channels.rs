// SPDX-License-Identifier: Apache-2.0

//! chan and select.

use crate::clock::{now, Meter};
use crate::{fail, figure, on_workers, switching, Args};
use std::sync::Arc;
use tokio::sync::{mpsc, Mutex};

pub fn channels(args: Args) {
    let sides = match args.text("kind") {
        "roundtrip" => return switching::pingpong(args),
        "stream" => 1,
        _ => 8,
    };
    on_workers(args.number("procs") as usize, async move {
        let mut meter = Meter::new(args.number("ms"));
        loop {
            let took = if sides == 1 { stream(meter.n).await } else { many(meter.n, sides).await };
            if let Some(ns) = meter.add(took) {
                return figure("ns_per_op", ns);
            }
        }
    });
}

fn check(sum: u64, n: u64) {
    if sum != n * (n - 1) / 2 {
        fail("values were lost or doubled");
    }
}

async fn stream(n: u64) -> i64 {
    let (send, mut receive) = mpsc::channel::<u64>(128);
    let start = now();
    let sender = tokio::spawn(async move {
        for i in 0..n {
            send.send(i).await.unwrap();
        }
    });
    let receiver = tokio::spawn(async move {
        let mut sum = 0;
        while let Some(value) = receive.recv().await {
            sum += value;
        }
        sum
    });
    sender.await.unwrap();
    check(receiver.await.unwrap(), n);
    now() - start
}

/// The receivers share the one end there is, under a mutex.
async fn many(n: u64, sides: u64) -> i64 {
    let (send, receive) = mpsc::channel::<u64>(128);
    let receive = Arc::new(Mutex::new(receive));
    let start = now();
    for side in 0..sides {
        let send = send.clone();
        tokio::spawn(async move {
            for i in (side..n).step_by(sides as usize) {
                send.send(i).await.unwrap();
            }
        });
    }
    drop(send);
    let receivers: Vec<_> = (0..sides)
        .map(|_| {
            let receive = receive.clone();
            tokio::spawn(async move {
                let mut sum = 0;
                loop {
                    let Some(value) = receive.lock().await.recv().await else { return sum };
                    sum += value;
                }
            })
        })
        .collect();
    let mut sum = 0;
    for receiver in receivers {
        sum += receiver.await.unwrap();
    }
    check(sum, n);
    now() - start
}

const BATCH: u64 = 64;

pub fn selects(args: Args) {
    on_workers(1, async move {
        let mut meter = Meter::new(args.number("ms"));
        loop {
            let took = match args.text("kind") {
                "ready" => ready(meter.n).await,
                "one_of_16" => one_of_16(meter.n).await,
                _ => woken(meter.n).await,
            };
            if let Some(ns) = meter.add(took) {
                return figure("ns_per_op", ns);
            }
        }
    });
}

/// Whole batches were run, of n asked for.
fn per_n(took: i64, got: u64, n: u64) -> i64 {
    if got < n {
        fail("a select received nothing");
    }
    took * n as i64 / (n.div_ceil(BATCH) * BATCH) as i64
}

async fn ready(n: u64) -> i64 {
    let (s0, mut c0) = mpsc::channel::<u64>(BATCH as usize);
    let (s1, mut c1) = mpsc::channel::<u64>(BATCH as usize);
    let (s2, mut c2) = mpsc::channel::<u64>(BATCH as usize);
    let (s3, mut c3) = mpsc::channel::<u64>(BATCH as usize);
    let (mut got, mut took) = (0, 0);
    for _ in 0..n.div_ceil(BATCH) {
        for s in [&s0, &s1, &s2, &s3] {
            while s.try_send(1).is_ok() {}
        }
        let start = now();
        for _ in 0..BATCH {
            got += tokio::select! {
                Some(v) = c0.recv() => v,
                Some(v) = c1.recv() => v,
                Some(v) = c2.recv() => v,
                Some(v) = c3.recv() => v,
                else => 0,
            };
        }
        took += now() - start;
    }
    per_n(took, got, n)
}

async fn one_of_16(n: u64) -> i64 {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..16).map(|_| mpsc::channel::<u64>(BATCH as usize)).unzip();
    let Ok(
        [mut c0, mut c1, mut c2, mut c3, mut c4, mut c5, mut c6, mut c7, mut c8, mut c9, mut c10, mut c11, mut c12, mut c13, mut c14, mut c15],
    ) = <[mpsc::Receiver<u64>; 16]>::try_from(receivers)
    else {
        fail("not sixteen channels")
    };
    let (mut got, mut took) = (0, 0);
    for _ in 0..n.div_ceil(BATCH) {
        while senders[15].try_send(1).is_ok() {}
        let start = now();
        for _ in 0..BATCH {
            got += tokio::select! {
                Some(v) = c0.recv() => v,
                Some(v) = c1.recv() => v,
                Some(v) = c2.recv() => v,
                Some(v) = c3.recv() => v,
                Some(v) = c4.recv() => v,
                Some(v) = c5.recv() => v,
                Some(v) = c6.recv() => v,
                Some(v) = c7.recv() => v,
                Some(v) = c8.recv() => v,
                Some(v) = c9.recv() => v,
                Some(v) = c10.recv() => v,
                Some(v) = c11.recv() => v,
                Some(v) = c12.recv() => v,
                Some(v) = c13.recv() => v,
                Some(v) = c14.recv() => v,
                Some(v) = c15.recv() => v,
                else => 0,
            };
        }
        took += now() - start;
    }
    per_n(took, got, n)
}

async fn woken(n: u64) -> i64 {
    let (s0, mut c0) = mpsc::channel::<u64>(1);
    let (s1, mut c1) = mpsc::channel::<u64>(1);
    let (s2, mut c2) = mpsc::channel::<u64>(1);
    let (s3, mut c3) = mpsc::channel::<u64>(1);
    let (answer, mut answers) = mpsc::channel::<u64>(1);
    tokio::spawn(async move {
        for _ in 0..n {
            let value = tokio::select! {
                Some(v) = c0.recv() => v,
                Some(v) = c1.recv() => v,
                Some(v) = c2.recv() => v,
                Some(v) = c3.recv() => v,
                else => 0,
            };
            answer.send(value).await.unwrap();
        }
    });
    let senders = [s0, s1, s2, s3];
    let start = now();
    for i in 0..n {
        senders[i as usize % 4].send(i).await.unwrap();
        if answers.recv().await != Some(i) {
            fail("a value came back wrong");
        }
    }
    now() - start
}

type Node = std::pin::Pin<Box<dyn std::future::Future<Output = ()> + Send>>;

fn node(parent: mpsc::Sender<i64>, first: i64, size: i64) -> Node {
    Box::pin(async move {
        if size == 1 {
            parent.send(first).await.unwrap();
            return;
        }
        let (own, mut sums) = mpsc::channel(10);
        let each = size / 10;
        for i in 0..10 {
            tokio::spawn(node(own.clone(), first + i * each, each));
        }
        let mut sum = 0;
        for _ in 0..10 {
            sum += sums.recv().await.unwrap();
        }
        parent.send(sum).await.unwrap();
    })
}

/// A tree of a million tasks that sum their numbers.
pub fn skynet(args: Args) {
    const LEAVES: i64 = 1_000_000;
    on_workers(args.number("procs") as usize, async {
        let (result, mut sum) = mpsc::channel(1);
        let start = now();
        tokio::spawn(node(result, 0, LEAVES));
        if sum.recv().await != Some(LEAVES * (LEAVES - 1) / 2) {
            fail("the sum is wrong");
        }
        figure("ms", (now() - start) as f64 / 1e6);
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
        let kib = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init().ru_maxrss
        };
        figure("rss_mb", kib as f64 * 1024.0 / 1e6);
    });
}
