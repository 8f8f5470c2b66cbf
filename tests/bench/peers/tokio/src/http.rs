// SPDX-License-Identifier: Apache-2.0

//! A task for each connection. What the request parser does, all servers of these benchmarks do:
//! find the end of the headers, take the request line apart, walk the header lines for
//! `Connection: close`, keep what was read beyond the request, answer in one write.

use crate::{fail, on_workers};
use std::io::Write;
use std::sync::LazyLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;

fn response(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| response("200 OK", "Hello, World!"));
static SLEPT: LazyLock<Vec<u8>> = LazyLock::new(|| response("200 OK", "slept"));
static NOT_FOUND: LazyLock<Vec<u8>> = LazyLock::new(|| response("404 Not Found", "not found"));

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

/// Takes a header block, with its last empty line, apart: the path, and whether to keep alive.
fn parse(mut head: &[u8]) -> Option<(&[u8], bool)> {
    let mut end = find(head, b"\r\n")?;
    let line = &head[..end];
    let first = line.iter().position(|&c| c == b' ')?;
    let last = line.iter().rposition(|&c| c == b' ')?;
    if first == last || &line[..first] != b"GET" || !line[last + 1..].starts_with(b"HTTP/1.") {
        return None;
    }
    let mut keep_alive = !line.ends_with(b"1.0");
    loop {
        head = &head[end + 2..];
        end = find(head, b"\r\n")?;
        if end == 0 {
            return Some((&line[first + 1..last], keep_alive));
        }
        let colon = head[..end].iter().position(|&c| c == b':')?;
        if head[..colon].eq_ignore_ascii_case(b"connection") {
            keep_alive = find(&head[colon..end], b"close").is_none();
        }
    }
}

fn sleep(us: &[u8]) {
    let us: i64 = std::str::from_utf8(us).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
    let t = libc::timespec { tv_sec: us / 1_000_000, tv_nsec: us % 1_000_000 * 1000 };
    unsafe { libc::syscall(libc::SYS_nanosleep, &t, 0) };
}

fn answer(path: &[u8]) -> &'static [u8] {
    if path == b"/" {
        return &HELLO;
    }
    if let Some(us) = path.strip_prefix(b"/block?us=") {
        block_in_place(|| sleep(us));
        return &SLEPT;
    }
    if let Some(us) = path.strip_prefix(b"/nap?us=") {
        sleep(us); // the runtime is not told
        return &SLEPT;
    }
    &NOT_FOUND
}

async fn converse(mut conn: TcpStream) -> std::io::Result<()> {
    let mut buf = [0u8; 8192];
    let mut filled = 0;
    loop {
        let n = conn.read(&mut buf[filled..]).await?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
        let mut used = 0;
        while let Some(end) = find(&buf[used..filled], b"\r\n\r\n") {
            let Some((path, keep_alive)) = parse(&buf[used..used + end + 4]) else {
                return Ok(());
            };
            conn.write_all(answer(path)).await?;
            if !keep_alive {
                return Ok(());
            }
            used += end + 4;
        }
        buf.copy_within(used..filled, 0);
        filled -= used;
    }
}

pub fn serve() {
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    on_workers(workers, async {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|e| fail(&e.to_string()));
        println!("listening on {}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        loop {
            let (conn, _) = listener.accept().await.unwrap_or_else(|e| fail(&e.to_string()));
            let _ = conn.set_nodelay(true);
            tokio::spawn(converse(conn));
        }
    })
}
