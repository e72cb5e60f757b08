//! The least that any download does: ranged GETs over several connections, thrown away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The ranges that the library asks for.
const RANGE: u64 = 512 * (16 * 1024 + 16);

pub fn get(port: u16, prefix: &str, connections: usize) {
    let mut ranges = Vec::new();
    for (name, size) in list(port, prefix) {
        let mut start = 0;
        while start < size {
            ranges.push((name.clone(), start, (start + RANGE).min(size)));
            start += RANGE;
        }
    }
    let next = AtomicUsize::new(0);
    let bytes: u64 = std::thread::scope(|scope| {
        let work = || {
            let mut stream = connect(port);
            let mut buffer = vec![0; 1 << 20];
            let mut bytes = 0;
            while let Some((name, start, end)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                let request = format!("GET /b/{name} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={start}-{}\r\n\r\n", end - 1);
                stream.get_mut().write_all(request.as_bytes()).unwrap();
                let mut left = length(&mut stream);
                bytes += left as u64;
                while left > 0 {
                    let part = left.min(buffer.len());
                    stream.read_exact(&mut buffer[..part]).unwrap();
                    left -= part;
                }
            }
            bytes
        };
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{} ranges, {bytes} bytes", ranges.len());
}

fn connect(port: u16) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::with_capacity(1 << 18, stream)
}

fn length(stream: &mut BufReader<TcpStream>) -> usize {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if line == "\r\n" {
            return length;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
}

/// Names and sizes, out of the listing's XML.
fn list(port: u16, prefix: &str) -> Vec<(String, u64)> {
    let mut stream = connect(port);
    stream.get_mut().write_all(format!("GET /b?list-type=2&prefix={prefix} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let mut text = vec![0; length(&mut stream)];
    stream.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let between = |text: &str, tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>")).unwrap();
        rest.split_once(&format!("</{tag}>")).unwrap().0.to_owned()
    };
    text.split("<Contents>").skip(1).map(|object| (between(object, "Key"), between(object, "Size").parse().unwrap())).collect()
}
