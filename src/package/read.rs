//! Reading the packs of an opened package: ranges in, whole files out.
//!
//! A pack is fetched in ranges of about 8 MiB, its last one first: its hash proves the length, and its short last chunk is opened before anything
//! of the pack is given out. Then the others follow in order. Each range passes three gates: its leaf hash (checked by the
//! fetching threads, so a damaged range is fetched again), the tags of its chunks (checked on the rayon pool), and, for each file that it completes,
//! the file's own SHA-256, which is kept up as the file fills.
//!
//! Chunks are decrypted to where their file's bytes will stay; only a chunk that several files share goes through a scratch buffer. Memory
//! holds the ranges in flight and the tail, all still sealed, and the files that are not complete yet.

use std::collections::VecDeque;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::chunked::{self, CHUNK, Chunks, Fault, PREFIX, SEALED_CHUNK};
use super::derive;
use super::manifest::FileEntry;
use super::open::{Object, SealedPackage};
use super::tree::{self, Hash, RANGE_CHUNKS};
use super::{PlainFile, digests_differ};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::hex;
use crate::secret::Plain;
use crate::transfer::FetchPlan;

type Deliver<'a> = &'a mut dyn FnMut(PlainFile) -> Result<()>;

impl SealedPackage {
    /// Decrypts every file, in manifest order, each delivered once its own digest agreed. The tail of each pack is authenticated first.
    /// Callers must throw away what they were given if this returns an error.
    pub(super) fn read(&self, control: &Control, deliver: &mut dyn FnMut(PlainFile) -> Result<()>) -> Result<()> {
        let total: u64 = self.packs.iter().map(|pack| pack.signed.size).sum();
        control.begin_transfer(total, self.packs.len() as u64);
        let (mut first, mut before) = (0, 0);
        for (number, pack) in self.packs.iter().enumerate() {
            let rest = self.files.get(first..).unwrap_or_default();
            let count = rest.iter().take_while(|file| file.pack == number).count();
            let files = rest.get(..count).unwrap_or_default();
            let leaves = self.leaves.get(number).map(Vec::as_slice).unwrap_or_default();
            let progress = |done: u64| control.progress("fetch", (before + done) as f64 / total.max(1) as f64);
            self.read_pack(pack, leaves, Assembler::new(files, first), control, &progress, deliver)?;
            control.object_transferred();
            first += count;
            before += pack.signed.size;
        }
        if first == self.files.len() { Ok(()) } else { Err(defect("a file lies in no pack")) }
    }

    fn read_pack(
        &self,
        pack: &Object,
        leaves: &[Hash],
        mut files: Assembler<'_>,
        control: &Control,
        progress: &dyn Fn(u64),
        deliver: Deliver<'_>,
    ) -> Result<()> {
        let ranges = tree::ranges(pack.signed.size);
        let last = ranges.len().saturating_sub(1);
        let order: Vec<usize> = [last].into_iter().chain(0..last).collect();
        let planned: Vec<_> = order.iter().filter_map(|number| ranges.get(*number).cloned()).collect();
        // The spool's file name must tell nothing and be guessed by nobody; both names are random.
        let spool_key = format!("{}-{}", hex(&self.id), hex(&pack.signed.name));
        let plan = FetchPlan { name: &pack.remote, version: &pack.version, ranges: &planned, spool_key: Some(&spool_key) };
        let numbered = |index: usize| order.get(index).copied().ok_or_else(|| defect("a range was not asked for"));

        let check = |index: usize, bytes: &[u8]| {
            let number = numbered(index)?;
            let expected = leaves.get(number).ok_or_else(|| defect("a range has no leaf"))?;
            let found = tree::leaf(bytes);
            let range = || format!("{} range {number} of {}", pack.label, ranges.len());
            if found == *expected { Ok(()) } else { Err(digests_differ(&range(), expected, &found)) }
        };

        let mut opener = Opener { package: self, pack, last, chunks: None, tail: Vec::new() };
        let mut done = 0;
        let mut accept = |index: usize, bytes: Vec<u8>| {
            control.check()?;
            done += bytes.len() as u64;
            opener.accept(numbered(index)?, bytes, &mut files)?;
            progress(done);
            files.hand_out(control, deliver)
        };
        self.client.fetch(&plan, &check, &mut accept, control)?;
        opener.finish(&mut files)?;
        files.hand_out(control, deliver)?;
        files.finish()
    }
}

/// Opens the ranges of one pack as they come: the tail, then the others from the first.
struct Opener<'a> {
    package: &'a SealedPackage,
    pack: &'a Object,
    /// Number of the last range.
    last: usize,
    /// Known once the first range, which begins with salt and commitment, has arrived.
    chunks: Option<Chunks>,
    /// The last range, sealed, if it is not the first as well.
    tail: Vec<u8>,
}

impl Opener<'_> {
    /// Takes a range whose leaf agreed and puts its plaintext into the files; the tail is kept for its turn.
    fn accept(&mut self, number: usize, range: Vec<u8>, files: &mut Assembler<'_>) -> Result<()> {
        if number > 0 && number == self.last {
            self.tail = range;
            return Ok(());
        }
        let mut sealed = range.as_slice();
        if number == 0 {
            let (prefix, rest) = range.split_at_checked(PREFIX).ok_or_else(|| self.failed(Fault::Length))?;
            let (name, id) = (&self.pack.signed.name, &self.package.id);
            let key = derive::object_key(self.package.key.expose(), id, name)?;
            let context = derive::context(self.pack.role, id, name);
            let chunks = Chunks::resume(key.expose(), prefix, &context).map_err(|fault| self.failed(fault))?;
            self.check_end(&chunks)?;
            self.chunks = Some(chunks);
            sealed = rest;
        }
        self.open(number, sealed, files)
    }

    /// Opens the last chunk of the tail, before anything of the pack is given out: that it is the short one proves the end of the pack.
    fn check_end(&self, chunks: &Chunks) -> Result<()> {
        if self.last > 0 {
            let before = self.tail.len() / SEALED_CHUNK;
            let end = self.tail.get(before * SEALED_CHUNK..).unwrap_or_default();
            chunks.open_whole_run(first_chunk(self.last) + before as u64, end, true).map_err(|fault| self.failed(fault))?;
        }
        Ok(())
    }

    fn open(&self, number: usize, sealed: &[u8], files: &mut Assembler<'_>) -> Result<()> {
        let chunks = self.chunks.as_ref().ok_or_else(|| defect("the first range did not come first"))?;
        files.fill(range_start(number), sealed.len(), |places| {
            chunks.open_run(first_chunk(number), sealed, number == self.last, places).map_err(|fault| self.failed(fault))
        })
    }

    /// The tail's turn.
    fn finish(self, files: &mut Assembler<'_>) -> Result<()> {
        if self.last > 0 { self.open(self.last, &self.tail, files) } else { Ok(()) }
    }

    fn failed(&self, fault: Fault) -> Error {
        fault.of(&self.pack.label)
    }
}

/// Plaintext position at which a range starts.
fn range_start(number: usize) -> u64 {
    number as u64 * (RANGE_CHUNKS * CHUNK) as u64
}

fn first_chunk(range: usize) -> u64 {
    (range * RANGE_CHUNKS) as u64
}

/// Puts the files of one pack together from runs of chunks that come in order.
struct Assembler<'a> {
    files: &'a [FileEntry],
    /// Number of the first of them in the manifest.
    first: usize,
    /// Files begun, counted from `first`.
    begun: usize,
    /// Plaintext position up to which the files are filled.
    filled: u64,
    /// Files that were begun and not given out, in order.
    open: VecDeque<OpenFile<'a>>,
}

/// A file that is being filled.
struct OpenFile<'a> {
    index: usize,
    entry: &'a FileEntry,
    bytes: Plain,
    digest: Sha256,
    /// Bytes that the digest has seen.
    hashed: usize,
}

/// A piece of a file that shares its chunk with something else.
struct Edge<'a> {
    chunk: usize,
    /// Where in the chunk the piece begins.
    within: usize,
    piece: &'a mut [u8],
}

impl<'a> Assembler<'a> {
    fn new(files: &'a [FileEntry], first: usize) -> Assembler<'a> {
        Assembler { files, first, begun: 0, filled: 0, open: VecDeque::new() }
    }

    /// Takes a run of `sealed` bytes whose plaintext begins at `at` in the pack. `open` gets a place for every chunk: where it lies in its file if it
    /// belongs to one alone, otherwise in a scratch buffer.
    fn fill(&mut self, at: u64, sealed: usize, open: impl FnOnce(&mut [&mut [u8]]) -> Result<()>) -> Result<()> {
        let length = chunked::opened_len(sealed);
        let end = at + length as u64;
        if at != self.filled {
            return Err(defect("plaintext came out of order"));
        }
        self.begin(end)?;
        let chunk_len = |chunk: usize| CHUNK.min(length.saturating_sub(chunk * CHUNK));
        let mut places: Vec<Option<&mut [u8]>> = Vec::new();
        places.resize_with(sealed.div_ceil(SEALED_CHUNK), || None);
        let mut edges = Vec::new();
        for file in &mut self.open {
            let (mut position, mut rest) = file.part(at, end)?;
            while !rest.is_empty() {
                let (chunk, within) = (position / CHUNK, position % CHUNK);
                let here = rest.len().min(chunk_len(chunk) - within);
                let (piece, later) = rest.split_at_mut(here);
                match places.get_mut(chunk) {
                    Some(place) if here == chunk_len(chunk) => *place = Some(piece),
                    _ => edges.push(Edge { chunk, within, piece }),
                }
                (position, rest) = (position + here, later);
            }
        }
        let shared = places.iter().filter(|place| place.is_none()).count();
        let mut scratch = Plain::new(vec![0u8; shared * CHUNK]);
        let mut spare = scratch.chunks_mut(CHUNK);
        let places = places.into_iter().enumerate();
        let places = places.map(|(chunk, own)| own.or_else(|| spare.next()?.get_mut(..chunk_len(chunk))).unwrap_or_default());
        let mut places: Vec<&mut [u8]> = places.collect();
        open(&mut places)?;
        for edge in edges {
            let from = places.get(edge.chunk).and_then(|chunk| chunk.get(edge.within..edge.within + edge.piece.len()));
            edge.piece.copy_from_slice(from.ok_or_else(|| defect("a file lies outside of its chunks"))?);
        }
        self.filled = end;
        self.open.par_iter_mut().for_each(|file| file.hash(end));
        Ok(())
    }

    /// Makes room for every file that begins before a position, or lies there and is empty.
    fn begin(&mut self, end: u64) -> Result<()> {
        while let Some(entry) = self.files.get(self.begun)
            && (entry.offset < end || (entry.size == 0 && entry.offset == end))
        {
            // One allocation of the whole size: a buffer that grows leaves copies of plaintext behind. The size is at most that of
            // the pack, whose length the sender signed and the store was seen to hold.
            let size = usize::try_from(entry.size).map_err(|_| out_of_memory(entry.size))?;
            let mut bytes = Plain::default();
            bytes.try_reserve_exact(size).map_err(|_| out_of_memory(entry.size))?;
            bytes.resize(size, 0);
            self.open.push_back(OpenFile { index: self.first + self.begun, entry, bytes, digest: Sha256::new(), hashed: 0 });
            self.begun += 1;
        }
        Ok(())
    }

    /// Gives out the files that are complete, in order, each after its digest agreed.
    fn hand_out(&mut self, control: &Control, deliver: Deliver<'_>) -> Result<()> {
        while let Some(file) = self.open.pop_front_if(|file| file.entry.offset + file.entry.size <= self.filled) {
            control.check()?;
            let found: Hash = file.digest.finalize().into();
            if found != file.entry.sha256 {
                return Err(digests_differ(&format!("file {}", file.index), &file.entry.sha256, &found));
            }
            deliver(PlainFile { index: file.index, bytes: file.bytes })?;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if self.begun == self.files.len() && self.open.is_empty() { Ok(()) } else { Err(defect("a file is not complete")) }
    }
}

impl OpenFile<'_> {
    /// The part of the file that lies between two positions of the pack, and where it begins, counted from the first of them.
    fn part(&mut self, at: u64, end: u64) -> Result<(usize, &mut [u8])> {
        let (start, stop) = (self.entry.offset.max(at), (self.entry.offset + self.entry.size).min(end));
        let within = |position: u64| usize::try_from(position.saturating_sub(self.entry.offset)).ok();
        let bounds = within(start).zip(within(stop)).filter(|(from, to)| from <= to);
        let position = usize::try_from(start - at).ok();
        let part = bounds.and_then(|(from, to)| self.bytes.get_mut(from..to));
        position.zip(part).ok_or_else(|| defect("a file lies outside of its pack"))
    }

    /// Takes what came up to a position into the digest.
    fn hash(&mut self, end: u64) {
        let filled = usize::try_from(end.saturating_sub(self.entry.offset)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.digest.update(self.bytes.get(self.hashed..filled).unwrap_or_default());
        self.hashed = filled;
    }
}

fn out_of_memory(size: u64) -> Error {
    Error::new(Kind::OutOfMemory, format!("a file of {size} bytes")).at(Stage::Package)
}

fn defect(detail: &'static str) -> Error {
    Error::new(Kind::Internal, detail).at(Stage::Package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn entry(offset: u64, contents: &[u8]) -> FileEntry {
        let sha256 = Sha256::digest(contents).into();
        FileEntry { pack: 0, offset, size: contents.len() as u64, sha256, path: Zeroizing::new("x".to_owned()) }
    }

    /// Feeds plaintext as one sealed run whose chunks open to it.
    fn feed(assembler: &mut Assembler<'_>, at: u64, plain: &[u8]) -> Result<()> {
        let sealed = chunked::run_len(plain.len(), true).unwrap();
        assembler.fill(at, sealed, |places| {
            let mut pieces = plain.chunks(CHUNK);
            places.iter_mut().for_each(|place| place.copy_from_slice(pieces.next().unwrap_or_default()));
            Ok(())
        })
    }

    fn hand_out(assembler: &mut Assembler<'_>) -> (Result<()>, Vec<(usize, Vec<u8>)>) {
        let mut seen = Vec::new();
        let outcome = assembler.hand_out(&Control::new(), &mut |file| {
            seen.push((file.index, file.bytes.to_vec()));
            Ok(())
        });
        (outcome, seen)
    }

    #[test]
    fn files_come_out_whole_and_in_order() {
        let plain: Vec<u8> = (0..3 * CHUNK + 100).map(|at| (at * 7 % 256) as u8).collect();
        let places = [
            (0, 0),
            (0, 5),
            (5, 0),
            (5, CHUNK),
            (CHUNK + 5, 2),
            (2 * CHUNK, CHUNK),
            (3 * CHUNK, 0),
            (3 * CHUNK, 20),
            (3 * CHUNK + 90, 10),
            (3 * CHUNK + 100, 0),
        ];
        let files: Vec<FileEntry> = places.iter().map(|(offset, size)| entry(*offset as u64, &plain[*offset..offset + size])).collect();
        let expected: Vec<_> =
            places.iter().enumerate().map(|(n, (offset, size))| (10 + n, plain[*offset..offset + size].to_vec())).collect();
        // At once, and in two runs that meet inside of a file.
        for cut in [None, Some(CHUNK), Some(2 * CHUNK), Some(3 * CHUNK)] {
            let mut assembler = Assembler::new(&files, 10);
            let mut seen = Vec::new();
            let start = cut.unwrap_or(0);
            if start > 0 {
                assembler
                    .fill(0, start / CHUNK * SEALED_CHUNK, |places| {
                        places.iter_mut().zip(plain.chunks(CHUNK)).for_each(|(place, piece)| place.copy_from_slice(piece));
                        Ok(())
                    })
                    .unwrap();
                let (outcome, given) = hand_out(&mut assembler);
                outcome.unwrap();
                seen.extend(given);
            }
            feed(&mut assembler, start as u64, &plain[start..]).unwrap();
            let (outcome, given) = hand_out(&mut assembler);
            outcome.unwrap();
            seen.extend(given);
            assembler.finish().unwrap();
            assert!(seen == expected, "{cut:?}");
        }
    }

    #[test]
    fn a_file_whose_digest_differs_is_not_given_out() {
        let mut files = vec![entry(0, b"first"), entry(5, b"second")];
        files[1].sha256[0] ^= 1;
        let mut assembler = Assembler::new(&files, 0);
        feed(&mut assembler, 0, b"firstsecond").unwrap();
        let (outcome, given) = hand_out(&mut assembler);
        assert_eq!(outcome.unwrap_err().kind(), Kind::IntegrityFailed);
        assert_eq!(given, [(0, b"first".to_vec())]);
    }

    #[test]
    fn nothing_is_given_out_of_a_run_that_does_not_open() {
        let files = vec![entry(0, b"first"), entry(5, b"second")];
        let mut assembler = Assembler::new(&files, 0);
        let sealed = chunked::run_len(11, true).unwrap();
        assert!(assembler.fill(0, sealed, |_| Err(Fault::Chunk(0).of("pack 0"))).is_err());
        let (outcome, given) = hand_out(&mut assembler);
        outcome.unwrap();
        assert!(given.is_empty());
        assert!(assembler.finish().is_err());
    }

    #[test]
    fn a_missing_end_is_noticed() {
        let files = vec![entry(0, b"0123456789")];
        let mut assembler = Assembler::new(&files, 0);
        feed(&mut assembler, 0, b"01234").unwrap();
        let (outcome, given) = hand_out(&mut assembler);
        outcome.unwrap();
        assert!(given.is_empty());
        assert!(assembler.finish().is_err());
    }

    #[test]
    fn plaintext_out_of_order_is_refused() {
        let files = vec![entry(0, b"0123456789")];
        assert!(feed(&mut Assembler::new(&files, 0), 5, b"56789").is_err());
    }
}
