// SPDX-License-Identifier: Apache-2.0

//! tokio's side of the benchmarks: `tokio BENCH key=value...` prints `figure=value` lines. Always
//! the multi-threaded runtime, even with one worker: block_in_place needs it, and servers use it.

mod channels;
mod clock;
mod file;
mod handoff;
mod http;
mod switching;
mod timers;

use std::collections::HashMap;
use std::future::Future;

pub struct Args(HashMap<String, String>);

impl Args {
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", |v| v)
    }
    pub fn number(&self, key: &str) -> i64 {
        let text = self.text(key);
        text.parse().unwrap_or_else(|_| fail(&format!("{key}={text} is no number")))
    }
}

pub fn fail(why: &str) -> ! {
    eprintln!("tokio: {why}");
    std::process::exit(1)
}

pub fn figure(name: &str, value: f64) {
    println!("{name}={value}");
}

/// Runs `main` as a task on one of `workers` threads; block_on alone would run it beside them.
pub fn on_workers<F>(workers: usize, main: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap_or_else(|e| fail(&e.to_string()));
    runtime.block_on(async { tokio::spawn(main).await.unwrap() })
}

/// The version in Cargo.lock, which is committed and built with --locked.
fn version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = lock.split("name = \"tokio\"\nversion = \"").nth(1);
    entry.and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}

fn main() {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    let mut args = Args(HashMap::new());
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => args.0.insert(key.into(), value.into()),
            None => fail(&format!("expected key=value, got '{word}'")),
        };
    }
    match what.as_str() {
        "bracket" => switching::bracket(args),
        "chan" => channels::channels(args),
        "file" => file::run(args),
        "handoff" => handoff::run(args),
        "http" | "idle" | "mixed" | "neighbour" => http::serve(),
        "mutex" => switching::mutex(args),
        "parked" => switching::parked(args),
        "pingpong" => switching::pingpong(args),
        "select" => channels::selects(args),
        "skynet" => channels::skynet(args),
        "spawn" => switching::spawn(args),
        "timers" => timers::run(args),
        "version" => println!("version={}", version()),
        "yield" => switching::yields(args),
        _ => fail(&format!("unknown benchmark '{what}'")),
    }
    std::process::exit(0) // the tasks still parked need no unwinding
}
