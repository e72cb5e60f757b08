//! Reading the packs of an opened package: ranges in, whole files out.
//!
//! A pack is fetched in ranges of about 8 MiB, its last one first: its hash proves the length, and its short last chunk is opened before anything
//! of the pack is given out. Then the others follow in order. Each range passes three gates: its leaf hash (checked by the
//! fetching threads, so a damaged range is fetched again), the tags of its chunks (checked on the rayon pool), and, for each file that it completes,
//! the file's own SHA-256. Memory holds the ranges in flight, the tail, and the files that are not complete yet.

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::chunked::{self, CHUNK, Chunks, Fault, PREFIX};
use super::derive;
use super::manifest::FileEntry;
use super::open::{Object, SealedPackage};
use super::tree::{self, Hash, RANGE_CHUNKS};
use super::{PlainFile, digests_differ};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::hex;
use crate::transfer::FetchPlan;

type Deliver<'a> = &'a mut dyn FnMut(PlainFile) -> Result<()>;

impl SealedPackage {
    /// Decrypts every file, in manifest order, each delivered once its own digest agreed. The tail of each pack is authenticated first.
    /// Callers must throw away what they were given if this returns an error.
    pub(super) fn read(&self, control: &Control, deliver: &mut dyn FnMut(PlainFile) -> Result<()>) -> Result<()> {
        let total: u64 = self.packs.iter().map(|pack| pack.signed.size).sum();
        let (mut first, mut before) = (0, 0);
        for (number, pack) in self.packs.iter().enumerate() {
            let rest = self.files.get(first..).unwrap_or_default();
            let count = rest.iter().take_while(|file| file.pack == number).count();
            let files = rest.get(..count).unwrap_or_default();
            let leaves = self.leaves.get(number).map(Vec::as_slice).unwrap_or_default();
            let progress = |done: u64| control.progress("fetch", (before + done) as f64 / total.max(1) as f64);
            self.read_pack(pack, leaves, Assembler::new(files, first), control, &progress, deliver)?;
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
            if found == *expected { Ok(()) } else { Err(digests_differ(&format!("{} range {number}", pack.label), expected, &found)) }
        };

        let mut opener = Opener { package: self, pack, last, chunks: None, tail: Zeroizing::default() };
        let mut done = 0;
        let mut accept = |index: usize, bytes: Vec<u8>| {
            control.check()?;
            done += bytes.len() as u64;
            let number = numbered(index)?;
            if let Some((at, opened)) = opener.accept(number, Zeroizing::new(bytes))? {
                files.feed(at, &opened)?;
            }
            progress(done);
            files.hand_out(control, deliver)
        };
        self.client.fetch(&plan, &check, &mut accept, control)?;
        if last > 0 {
            files.feed(range_start(last), &opener.tail)?;
            files.hand_out(control, deliver)?;
        }
        files.finish()
    }
}

/// Plaintext position at which a range starts.
fn range_start(number: usize) -> u64 {
    number as u64 * (RANGE_CHUNKS * CHUNK) as u64
}

/// Opens the ranges of one pack as they come: the tail, then the others from the first.
struct Opener<'a> {
    package: &'a SealedPackage,
    pack: &'a Object,
    /// Number of the last range.
    last: usize,
    /// Known once the first range, which begins with salt and commitment, has arrived.
    chunks: Option<Chunks>,
    /// The last range: still sealed until the first one has come, then opened.
    tail: Zeroizing<Vec<u8>>,
}

impl Opener<'_> {
    /// Takes a range whose leaf agreed; returns its plaintext position and opened chunks, or nothing while the tail waits for its key.
    fn accept(&mut self, number: usize, mut range: Zeroizing<Vec<u8>>) -> Result<Option<(u64, Zeroizing<Vec<u8>>)>> {
        let failed = |fault: Fault| fault.of(&self.pack.label);
        if number == self.last && number > 0 {
            self.tail = range;
            return Ok(None);
        }
        if number == 0 {
            let (name, id) = (&self.pack.signed.name, &self.package.id);
            let key = derive::object_key(self.package.key.expose(), id, name)?;
            let context = derive::context(self.pack.role, id, name);
            let prefix = range.get(..PREFIX).ok_or_else(|| failed(Fault::Length))?;
            let chunks = Chunks::resume(key.expose(), prefix, &context).map_err(failed)?;
            if self.last > 0 {
                // Opened before anything of the pack is given out: that the last chunk is the short one proves the end of the pack.
                chunks.open_run(first_chunk(self.last), &mut self.tail, true).map_err(failed)?;
            }
            range.drain(..PREFIX);
            self.chunks = Some(chunks);
        }
        let chunks = self.chunks.as_ref().ok_or_else(|| defect("the first range did not come first"))?;
        chunks.open_run(first_chunk(number), &mut range, number == self.last).map_err(failed)?;
        Ok(Some((range_start(number), range)))
    }
}

fn first_chunk(range: usize) -> u64 {
    (range * RANGE_CHUNKS) as u64
}

/// Puts the files of one pack together from plaintext that comes in order.
struct Assembler<'a> {
    files: &'a [FileEntry],
    /// Number of the first of them in the manifest.
    first: usize,
    /// The file that is being filled, counted from `first`.
    next: usize,
    buffer: Zeroizing<Vec<u8>>,
    complete: Vec<(usize, Zeroizing<Vec<u8>>)>,
}

impl<'a> Assembler<'a> {
    fn new(files: &'a [FileEntry], first: usize) -> Assembler<'a> {
        Assembler { files, first, next: 0, buffer: Zeroizing::default(), complete: Vec::new() }
    }

    /// Takes the plaintext of an opened run whose first byte is at `at` in the pack.
    fn feed(&mut self, mut at: u64, opened: &[u8]) -> Result<()> {
        for piece in chunked::plain_pieces(opened) {
            self.piece(at, piece)?;
            at += piece.len() as u64;
        }
        self.close_empty(at);
        Ok(())
    }

    fn piece(&mut self, at: u64, piece: &[u8]) -> Result<()> {
        let end = at + piece.len() as u64;
        while let Some(file) = self.files.get(self.next) {
            let wanted = file.offset + self.buffer.len() as u64;
            let left = file.size - self.buffer.len() as u64;
            if left == 0 {
                self.close();
                continue;
            }
            if wanted >= end {
                return Ok(());
            }
            if self.buffer.capacity() == 0 {
                // One allocation of the whole size: a buffer that grows leaves copies of plaintext behind. The size is at most that of
                // the pack, whose length the sender signed and the store was seen to hold.
                let size = usize::try_from(file.size).map_err(|_| out_of_memory(file.size))?;
                self.buffer.try_reserve_exact(size).map_err(|_| out_of_memory(file.size))?;
            }
            // Files do not overlap and pieces come in order, so what is wanted is never before `at`.
            let skip = wanted.checked_sub(at).ok_or_else(|| defect("plaintext came out of order"))?;
            let take = left.min(end - wanted);
            let bounds = usize::try_from(skip).ok().zip(usize::try_from(skip + take).ok());
            let bytes = bounds.and_then(|(from, to)| piece.get(from..to)).ok_or_else(|| defect("plaintext came out of order"))?;
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Closes files that are complete at a position without another byte: those just filled, and empty ones.
    fn close_empty(&mut self, at: u64) {
        while let Some(file) = self.files.get(self.next)
            && self.buffer.len() as u64 == file.size
            && file.offset + file.size <= at
        {
            self.close();
        }
    }

    fn close(&mut self) {
        self.complete.push((self.next, std::mem::take(&mut self.buffer)));
        self.next += 1;
    }

    /// Checks the digests of complete files, side by side, and gives the files out in order.
    fn hand_out(&mut self, control: &Control, deliver: Deliver<'_>) -> Result<()> {
        let digests: Vec<Hash> = self.complete.par_iter().map(|(_, bytes)| Sha256::digest(&***bytes).into()).collect();
        for ((position, bytes), found) in self.complete.drain(..).zip(digests) {
            control.check()?;
            let index = self.first + position;
            let expected = &self.files.get(position).ok_or_else(|| defect("a file too many"))?.sha256;
            if found != *expected {
                return Err(digests_differ(&format!("file {index}"), expected, &found));
            }
            deliver(PlainFile { index, bytes })?;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if self.next == self.files.len() { Ok(()) } else { Err(defect("a file is not complete")) }
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

    fn entry(offset: u64, contents: &[u8]) -> FileEntry {
        let sha256 = Sha256::digest(contents).into();
        FileEntry { pack: 0, offset, size: contents.len() as u64, sha256, path: Zeroizing::new("x".to_owned()) }
    }

    /// A run of opened chunks as `open_run` leaves it: each plaintext piece followed by sixteen bytes of tag.
    fn opened(plain: &[u8]) -> Vec<u8> {
        let mut run: Vec<u8> = plain.chunks(CHUNK).flat_map(|piece| [piece, &[0xEE; 16]].concat()).collect();
        if plain.len().is_multiple_of(CHUNK) {
            run.extend([0xEE; 16]);
        }
        run
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
            (3 * CHUNK + 90, 10),
            (3 * CHUNK + 100, 0),
        ];
        let files: Vec<FileEntry> = places.iter().map(|(offset, size)| entry(*offset as u64, &plain[*offset..offset + size])).collect();
        let mut assembler = Assembler::new(&files, 10);
        assembler.feed(0, &opened(&plain)).unwrap();
        let mut seen = Vec::new();
        assembler
            .hand_out(&Control::new(), &mut |file| {
                seen.push((file.index, file.bytes.to_vec()));
                Ok(())
            })
            .unwrap();
        assembler.finish().unwrap();
        let expected: Vec<_> =
            places.iter().enumerate().map(|(n, (offset, size))| (10 + n, plain[*offset..offset + size].to_vec())).collect();
        assert!(seen == expected);
    }

    #[test]
    fn a_file_whose_digest_differs_is_not_given_out() {
        let mut files = vec![entry(0, b"first"), entry(5, b"second")];
        files[1].sha256[0] ^= 1;
        let mut assembler = Assembler::new(&files, 0);
        assembler.feed(0, &opened(b"firstsecond")).unwrap();
        let mut given = 0;
        let error = assembler.hand_out(&Control::new(), &mut |_| {
            given += 1;
            Ok(())
        });
        assert_eq!(error.unwrap_err().kind(), Kind::IntegrityFailed);
        assert_eq!(given, 1);
    }

    #[test]
    fn a_missing_end_is_noticed() {
        let files = vec![entry(0, b"0123456789")];
        let mut assembler = Assembler::new(&files, 0);
        assembler.feed(0, &opened(b"01234")).unwrap();
        assert!(assembler.complete.is_empty());
        assert!(assembler.finish().is_err());
    }
}
