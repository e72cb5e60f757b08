//! One object on its way to the store: plaintext goes in as it comes, sealed ranges go out, on two threads.
//!
//! The calling thread reads and hashes files and fills a range of 512 chunks; a second thread encrypts the range before it, hashes it and
//! uploads it. Two buffers of 8 MiB go round between the two, so memory does not grow with the object, and they are erased when the
//! object ends.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use zeroize::Zeroizing;

use super::super::chunked::{self, CHUNK, Chunks, PREFIX};
use super::super::tree::{self, Hash, RANGE_CHUNKS};
use crate::error::{Error, Kind, Result, Stage};

/// Plaintext bytes of a full range.
const RANGE: usize = RANGE_CHUNKS * CHUNK;

/// A sealed object: its length and the hashes of its ranges.
pub(super) struct Written {
    pub(super) size: u64,
    pub(super) leaves: Vec<Hash>,
}

/// Takes plaintext. What is written is sealed when a range is full.
pub(super) struct Writer {
    /// Plaintext of the range being filled.
    plain: Zeroizing<Vec<u8>>,
    full: SyncSender<Run>,
    empty: Receiver<Zeroizing<Vec<u8>>>,
}

/// Plaintext of a range. The last one ends the message.
struct Run {
    plain: Zeroizing<Vec<u8>>,
    last: bool,
}

/// Seals what `fill` writes and gives the ranges to `send`, in order.
pub(super) fn seal_stream<T>(
    chunks: Chunks,
    prefix: [u8; PREFIX],
    fill: impl FnOnce(&mut Writer) -> Result<T>,
    send: &mut (dyn FnMut(Vec<u8>) -> Result<()> + Send),
) -> Result<(T, Written)> {
    std::thread::scope(|scope| {
        let (full, runs) = sync_channel(1);
        let (give_back, empty) = channel();
        // Reserved at once: a buffer that grows leaves copies of plaintext behind.
        let buffer = || Zeroizing::new(Vec::with_capacity(RANGE));
        // The receiver is in this very function, so the spare arrives.
        let _ = give_back.send(buffer());
        let mut sealer = Sealer { chunks, prefix: Some(prefix), next_chunk: 0, leaves: Vec::new(), size: 0, send };
        let sealing = std::thread::Builder::new().name("smp-seal".into()).spawn_scoped(scope, move || sealer.run(&runs, &give_back));
        let sealing = sealing.map_err(|_| Error::new(Kind::OutOfMemory, "no thread could be started").at(Stage::Package))?;
        let mut writer = Writer { plain: buffer(), full, empty };
        let filled = fill(&mut writer).and_then(|value| writer.flush(true).map(|()| value));
        // Ends the other thread's loop, whatever happened.
        drop(writer);
        let sealed = sealing.join().unwrap_or_else(|_| Err(defect("the sealing thread stopped unexpectedly")));
        match (filled, sealed) {
            // Once sealing has failed, the writer only knows that nobody takes its ranges any more.
            (_, Err(error)) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(_), Ok(None)) => Err(defect("an object has no end")),
            (Ok(value), Ok(Some(written))) => Ok((value, written)),
        }
    })
}

impl Writer {
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = RANGE - self.plain.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.plain.extend_from_slice(now);
            bytes = later;
            if self.plain.len() == RANGE {
                self.flush(false)?;
            }
        }
        Ok(())
    }

    pub(super) fn zeros(&mut self, mut count: u64) -> Result<()> {
        let zeros = [0u8; CHUNK];
        while count > 0 {
            let now = count.min(CHUNK as u64);
            self.write(zeros.get(..usize::try_from(now).unwrap_or(CHUNK)).unwrap_or_default())?;
            count -= now;
        }
        Ok(())
    }

    /// Hands the range over and goes on with the buffer of the one before.
    fn flush(&mut self, last: bool) -> Result<()> {
        let stopped = || defect("nobody seals any more");
        let spare = if last { Zeroizing::default() } else { self.empty.recv().map_err(|_| stopped())? };
        let plain = std::mem::replace(&mut self.plain, spare);
        self.full.send(Run { plain, last }).map_err(|_| stopped())
    }
}

/// The second thread.
struct Sealer<'a> {
    chunks: Chunks,
    /// Goes in front of the first range.
    prefix: Option<[u8; PREFIX]>,
    next_chunk: u64,
    leaves: Vec<Hash>,
    size: u64,
    send: &'a mut (dyn FnMut(Vec<u8>) -> Result<()> + Send),
}

impl Sealer<'_> {
    /// Until the last range, or until the writer is gone; then there is no object.
    fn run(&mut self, runs: &Receiver<Run>, give_back: &Sender<Zeroizing<Vec<u8>>>) -> Result<Option<Written>> {
        for Run { mut plain, last } in runs {
            self.seal(&plain, last)?;
            if last {
                return Ok(Some(Written { size: self.size, leaves: std::mem::take(&mut self.leaves) }));
            }
            plain.clear();
            // A writer that is gone needs no buffer.
            let _ = give_back.send(plain);
        }
        Ok(None)
    }

    fn seal(&mut self, plain: &[u8], last: bool) -> Result<()> {
        let prefix = self.prefix.take();
        let start = prefix.map_or(0, |prefix| prefix.len());
        let length = chunked::run_len(plain.len(), last).ok_or_else(|| defect("a range has the wrong length"))?;
        let mut range = vec![0u8; start + length];
        let (front, body) = range.split_at_mut(start);
        if let Some(prefix) = prefix {
            front.copy_from_slice(&prefix);
        }
        self.chunks.seal_run(self.next_chunk, plain, last, body)?;
        self.next_chunk += (plain.len() / CHUNK) as u64;
        self.leaves.push(tree::leaf(&range));
        self.size += range.len() as u64;
        (self.send)(range)
    }
}

fn defect(detail: &'static str) -> Error {
    Error::new(Kind::Internal, detail).at(Stage::Package)
}

#[cfg(test)]
pub(in crate::package) mod tests {
    use super::*;

    /// Seals a message in memory as an upload would: sealed bytes and leaf hashes.
    pub(in crate::package) fn seal_message(key: &[u8; 32], context: &[u8], plain: &[u8], step: usize) -> (Vec<u8>, Vec<Hash>) {
        let (chunks, prefix) = Chunks::begin(key, context).unwrap();
        let mut sealed = Vec::new();
        let mut send = |bytes: Vec<u8>| {
            sealed.extend(bytes);
            Ok(())
        };
        let fill = |writer: &mut Writer| plain.chunks(step).try_for_each(|part| writer.write(part));
        let ((), written) = seal_stream(chunks, prefix, fill, &mut send).unwrap();
        assert_eq!(written.size, sealed.len() as u64);
        (sealed, written.leaves)
    }

    #[test]
    fn a_streamed_message_opens_whole_whatever_its_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, RANGE - 1, RANGE, RANGE + 1, 2 * RANGE + CHUNK] {
            let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let (sealed, leaves) = seal_message(&[1; 32], b"context", &plain, 1_000_003);
            assert_eq!(sealed.len() as u64, chunked::sealed_len(length as u64));
            assert_eq!(chunked::plain_len(sealed.len() as u64), Some(length as u64));
            let ranges = tree::ranges(sealed.len() as u64);
            let hashes: Vec<Hash> = ranges.iter().map(|r| tree::leaf(&sealed[r.start as usize..r.end as usize])).collect();
            assert!(hashes == leaves, "{length}");
            let opened = chunked::open_message(&[1; 32], b"context", &sealed).unwrap();
            assert!(*opened == plain, "{length}");
        }
    }

    #[test]
    fn plaintext_lies_in_two_buffers_that_never_grow() {
        let (chunks, prefix) = Chunks::begin(&[1; 32], b"").unwrap();
        let mut ranges = 0;
        let mut send = |_| {
            ranges += 1;
            Ok(())
        };
        let mut places = std::collections::BTreeSet::new();
        let fill = |writer: &mut Writer| {
            for _ in 0..40 {
                writer.write(&[7; 1 << 20])?;
                places.insert((writer.plain.as_ptr() as usize, writer.plain.capacity()));
            }
            Ok(())
        };
        seal_stream(chunks, prefix, fill, &mut send).unwrap();
        assert_eq!(ranges, 6, "40 MiB are five full ranges and the end");
        assert!(places.len() <= 2 && places.iter().all(|(_, capacity)| *capacity == RANGE));
    }

    #[test]
    fn the_first_failure_is_the_one_that_is_told() {
        let outcome = |fail_fill: bool, fail_send: bool| {
            let (chunks, prefix) = Chunks::begin(&[1; 32], b"").unwrap();
            let mut send = |_| if fail_send { Err(Error::new(Kind::StoreUnwritable, "")) } else { Ok(()) };
            let fill = |writer: &mut Writer| {
                // Enough that the writer notices that nobody takes its ranges.
                (0..5).try_for_each(|_| writer.write(&[0; RANGE]))?;
                if fail_fill { Err(Error::new(Kind::SourceChanged, "")) } else { Ok(()) }
            };
            seal_stream(chunks, prefix, fill, &mut send).map(|_| ()).map_err(|error| error.kind())
        };
        assert_eq!(outcome(false, false), Ok(()));
        assert_eq!(outcome(true, false), Err(Kind::SourceChanged));
        assert_eq!(outcome(false, true), Err(Kind::StoreUnwritable));
        assert_eq!(outcome(true, true), Err(Kind::StoreUnwritable));
    }
}
