//! What was encrypted: a tar archive, taken apart as it streams by, or one DICOM file.
//!
//! The archive comes from an authenticated sender and is treated as hostile all the same. Of everything that tar can say, regular files with
//! their names count: ustar, GNU long names, and the `path` of pax headers. Folders are implied by the files in them. Links, devices, pipes and sparse files are refused, not
//! skipped: a study from which something was left out in silence is worse than none. Names obey `paths`, as those of a sealed package do; a
//! leading `./` is dropped, decomposed Unicode (macOS) is composed. The archive must be whole: every file in its full length, both blocks of
//! zeros at the end, nothing behind them.
//!
//! This is a reader of our own because the usual crate takes several spellings of a number, reads extended headers of any size into memory and
//! quotes file names, which name patients, in its errors.

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::package::paths::Taken;
use crate::package::{Limits, over_limit};

/// A tar block. POSIX.1-2024, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
const BLOCK: usize = 512;
/// Largest extended header: a path has 1,024 bytes at most, but others keep attributes of files there.
const MAX_EXTENSION: u64 = 1 << 20;
/// Where a DICOM file says that it is one (PS3.10, 7.1). In a tar header the place is inside the size, where letters cannot be.
const DICOM_MARK: std::ops::Range<usize> = 128..132;
/// What a DICOM file that was not in an archive is called.
const SINGLE_NAME: &str = "study.dcm";

/// Takes files as they come out of an archive.
pub(in crate::package) trait Files {
    /// A file begins. Its path obeys the rules of `paths` and is new; its size is at most what is left of the content.
    fn begin(&mut self, index: usize, path: &str, size: u64) -> Result<()>;
    /// Its next bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()>;
    /// It is complete.
    fn end(&mut self) -> Result<()>;
}

/// What comes next in the content.
enum Expect {
    /// A header block, with what has come of it.
    Header { block: Box<Zeroizing<[u8; BLOCK]>>, have: usize },
    /// The rest of an extended header.
    Extension { kind: Extension, text: Zeroizing<Vec<u8>>, left: usize, padding: usize },
    /// The rest of a file.
    File { left: u64, padding: usize },
    /// The rest of a file that is the whole content.
    Single { left: u64 },
    /// Bytes that fill a block up.
    Padding { left: usize },
    /// Zeros to the end, of which so many have come.
    End { zeros: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// GNU `L`: the name of the next file.
    LongName,
    /// GNU `K`: where the next link leads. The link itself will be refused.
    LongLink,
    /// pax `x`: about the next file.
    Next,
    /// pax `g`: about all that follow.
    All,
}

/// What extended headers said of the next file.
#[derive(Default)]
struct Announced {
    name: Option<Zeroizing<Vec<u8>>>,
    size: Option<u64>,
    any: bool,
}

/// Takes content apart. Files are handed on as they come, so what was handed on counts only after [`Unpacker::finish`].
pub(super) struct Unpacker<'a> {
    limits: &'a Limits,
    taken: Taken,
    expect: Expect,
    announced: Announced,
    /// Content that has not come yet.
    left: u64,
    is_first: bool,
    files: usize,
    bytes: u64,
}

impl<'a> Unpacker<'a> {
    /// Starts on content of a length.
    pub(super) fn new(content: u64, limits: &'a Limits) -> Unpacker<'a> {
        Unpacker {
            limits,
            taken: Taken::default(),
            expect: header(),
            announced: Announced::default(),
            left: content,
            is_first: true,
            files: 0,
            bytes: 0,
        }
    }

    /// Takes the next content.
    pub(super) fn feed(&mut self, mut bytes: &[u8], files: &mut dyn Files) -> Result<()> {
        while !bytes.is_empty() {
            let taken = self.step(bytes, files)?;
            self.left = self.left.saturating_sub(taken as u64);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the content: files and their bytes.
    pub(super) fn finish(self) -> Result<(usize, u64)> {
        match self.expect {
            Expect::End { zeros } if zeros < 2 * BLOCK as u64 => return Err(malformed("the end of the archive is missing")),
            Expect::Single { left: 0 } | Expect::End { .. } => {}
            _ if self.is_first => return Err(malformed("neither an archive nor a DICOM file")),
            _ => return Err(malformed("the archive is cut short")),
        }
        if self.files == 0 { Err(malformed("no file in the archive")) } else { Ok((self.files, self.bytes)) }
    }

    /// Takes some of the bytes, at least one; returns how many.
    fn step(&mut self, bytes: &[u8], files: &mut dyn Files) -> Result<usize> {
        match &mut self.expect {
            Expect::Header { block, have } => {
                let taken = bytes.len().min(BLOCK - *have);
                for (place, byte) in block.iter_mut().skip(*have).zip(bytes.iter().take(taken)) {
                    *place = *byte;
                }
                *have += taken;
                let have = *have;
                if self.is_first && have >= DICOM_MARK.end && block.get(DICOM_MARK) == Some(b"DICM") {
                    let (block, before) = (block.clone(), have - taken);
                    self.begin(SINGLE_NAME, self.left.saturating_add(before as u64), files)?;
                    self.expect = Expect::Single { left: self.bytes };
                    return self.single(block.get(..before).unwrap_or_default(), files).map(|_| 0);
                }
                if have == BLOCK {
                    let block = block.clone();
                    self.header(&block, taken, files)?;
                    self.is_first = false;
                }
                Ok(taken)
            }
            Expect::Extension { kind, text, left, padding } => {
                let taken = bytes.len().min(*left);
                text.extend(bytes.iter().take(taken));
                *left -= taken;
                if *left == 0 {
                    let (kind, text, padding) = (*kind, std::mem::take(text), *padding);
                    self.extension(kind, text)?;
                    self.expect = padded(padding);
                }
                Ok(taken)
            }
            Expect::File { left, padding } => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                files.bytes(bytes.get(..taken).unwrap_or_default())?;
                *left -= taken as u64;
                if *left == 0 {
                    let padding = *padding;
                    files.end()?;
                    self.expect = padded(padding);
                }
                Ok(taken)
            }
            Expect::Single { .. } => self.single(bytes, files),
            Expect::Padding { left } => {
                let taken = bytes.len().min(*left);
                let left = *left - taken;
                self.expect = padded(left);
                Ok(taken)
            }
            Expect::End { zeros } => {
                if bytes.iter().any(|byte| *byte != 0) {
                    return Err(malformed("something follows the end of the archive"));
                }
                *zeros += bytes.len() as u64;
                Ok(bytes.len())
            }
        }
    }

    fn single(&mut self, bytes: &[u8], files: &mut dyn Files) -> Result<usize> {
        let Expect::Single { left } = &mut self.expect else { return Err(malformed("a file of two kinds")) };
        *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| malformed("a file longer than the content"))?;
        let is_complete = *left == 0;
        files.bytes(bytes)?;
        if is_complete {
            files.end()?;
        }
        Ok(bytes.len())
    }

    /// A whole header block, of which the last `taken` bytes are still counted as content left.
    fn header(&mut self, block: &[u8; BLOCK], taken: usize, files: &mut dyn Files) -> Result<()> {
        if block.iter().all(|byte| *byte == 0) {
            if self.announced.any {
                return Err(malformed("an extended header without a file"));
            }
            self.expect = Expect::End { zeros: BLOCK as u64 };
            return Ok(());
        }
        let fields = Fields(block);
        if !fields.checksum_agrees() {
            return Err(malformed(if self.is_first { "neither an archive nor a DICOM file" } else { "a header is damaged" }));
        }
        let size = fields.size().ok_or_else(|| malformed("the size of an entry is not a number"))?;
        let padding = padding(size);
        // Nothing is reserved for, or begun with, a size that cannot come any more.
        let left = self.left.saturating_sub(taken as u64);
        if size.checked_add(padding as u64).is_none_or(|needed| needed > left) {
            return Err(malformed("the archive is cut short"));
        }
        let kind = match fields.kind() {
            b'0' | 0 => return self.file(&fields, size, padding, files),
            b'5' => {
                if size != 0 {
                    return Err(malformed("a folder with contents"));
                }
                self.announced = Announced::default();
                self.expect = header();
                return Ok(());
            }
            b'L' => Extension::LongName,
            b'K' => Extension::LongLink,
            b'x' => Extension::Next,
            b'g' => Extension::All,
            _ => return Err(refused(self.files, "an entry is a link, a device, a pipe or a sparse file")),
        };
        if size == 0 || size > MAX_EXTENSION {
            return Err(malformed("an extended header is empty or larger than 1 MiB"));
        }
        self.announced.any |= kind != Extension::All;
        let left = usize::try_from(size).map_err(|_| malformed("an extended header is too large"))?;
        self.expect = Expect::Extension { kind, text: Zeroizing::new(Vec::with_capacity(left)), left, padding };
        Ok(())
    }

    fn file(&mut self, fields: &Fields<'_>, size: u64, padding: usize, files: &mut dyn Files) -> Result<()> {
        let announced = std::mem::take(&mut self.announced);
        if announced.size.is_some_and(|announced| announced != size) {
            return Err(malformed("an entry has two sizes"));
        }
        let name = announced.name.unwrap_or_else(|| fields.name());
        let name = std::str::from_utf8(&name).map_err(|_| refused(self.files, "the name is not UTF-8"))?;
        if name.ends_with('/') && size == 0 {
            // How the oldest tars write a folder.
            self.expect = header();
            return Ok(());
        }
        let mut relative = name;
        while let Some(rest) = relative.strip_prefix("./") {
            relative = rest;
        }
        let path: Zeroizing<String> = Zeroizing::new(relative.nfc().collect());
        self.begin(&path, size, files)?;
        if size == 0 {
            files.end()?;
            self.expect = header();
        } else {
            self.expect = Expect::File { left: size, padding };
        }
        Ok(())
    }

    fn begin(&mut self, path: &str, size: u64, files: &mut dyn Files) -> Result<()> {
        if self.files as u64 >= self.limits.files {
            return Err(over_limit("package_files", self.limits.files));
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.study_bytes {
            return Err(over_limit("study_bytes", self.limits.study_bytes));
        }
        self.taken.claim(self.files, path)?;
        files.begin(self.files, path, size)?;
        self.files += 1;
        Ok(())
    }

    fn extension(&mut self, kind: Extension, text: Zeroizing<Vec<u8>>) -> Result<()> {
        match kind {
            Extension::LongLink => Ok(()),
            Extension::LongName => {
                // The name ends at the first NUL; GNU tar writes one.
                let name = text.split(|byte| *byte == 0).next().unwrap_or_default();
                self.announce_name(name)
            }
            Extension::Next | Extension::All => self.pax(&text, kind == Extension::All),
        }
    }

    /// Records of `length key=value\n`, the length counting all of it (POSIX.1-2024, pax, "pax Extended Header").
    fn pax(&mut self, mut text: &[u8], for_all: bool) -> Result<()> {
        let wrong = || malformed("an extended header is malformed");
        while !text.is_empty() {
            let digits = text.iter().position(|byte| *byte == b' ').filter(|count| (1..=7).contains(count)).ok_or_else(wrong)?;
            let length =
                decimal(text.get(..digits).unwrap_or_default()).and_then(|length| usize::try_from(length).ok()).ok_or_else(wrong)?;
            let record = text.get(digits + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(wrong)?;
            text = text.get(length..).ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            match key {
                b"path" | b"size" if for_all => return Err(malformed("one name or size for all files")),
                b"path" => self.announce_name(value)?,
                b"size" if self.announced.size.is_none() => self.announced.size = Some(decimal(value).ok_or_else(wrong)?),
                b"size" => return Err(malformed("an entry has two sizes")),
                b"hdrcharset" => return Err(malformed("an extended header in another character set")),
                _ if key.starts_with(b"GNU.sparse") => return Err(refused(self.files, "an entry is a sparse file")),
                // Times, owners, comments, attributes: nothing that a study needs.
                _ => {}
            }
        }
        Ok(())
    }

    /// A name for the next file. Two of them would let two readers see two names.
    fn announce_name(&mut self, name: &[u8]) -> Result<()> {
        match self.announced.name.replace(Zeroizing::new(name.to_vec())) {
            None => Ok(()),
            Some(_) => Err(malformed("an entry has two names")),
        }
    }
}

/// The fields of a header block that count.
struct Fields<'a>(&'a [u8; BLOCK]);

impl Fields<'_> {
    fn field(&self, from: usize, length: usize) -> &[u8] {
        self.0.get(from..from + length).unwrap_or_default()
    }

    /// The sum of all bytes, with the sum's own field read as spaces.
    fn checksum_agrees(&self) -> bool {
        let sum: u64 = self.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
        octal(self.field(148, 8)) == Some(sum)
    }

    /// Octal digits, or from 8 GiB on a binary number (GNU tar manual, "Basic Tar Format").
    fn size(&self) -> Option<u64> {
        match self.field(124, 12) {
            [0x80, 0, 0, 0, number @ ..] => number.try_into().ok().map(u64::from_be_bytes),
            digits => octal(digits),
        }
    }

    fn kind(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or_default()
    }

    /// The name, with its first part where POSIX keeps it. GNU tar uses that place for times.
    fn name(&self) -> Zeroizing<Vec<u8>> {
        let until_nul = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        let name = until_nul(self.field(0, 100));
        let prefix = if self.field(257, 6) == b"ustar\0" { until_nul(self.field(345, 155)) } else { Vec::new() };
        Zeroizing::new(if prefix.is_empty() { name } else { [prefix.as_slice(), b"/", &name].concat() })
    }
}

/// Octal digits, after spaces if there are any, up to a space or NUL.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| !matches!(byte, b' ' | 0));
    let (mut value, mut count) = (0u64, 0);
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(u64::from(digit - b'0'))?;
        count += 1;
    }
    (count > 0).then_some(value)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn header() -> Expect {
    Expect::Header { block: Box::new(Zeroizing::new([0; BLOCK])), have: 0 }
}

fn padded(left: usize) -> Expect {
    if left == 0 { header() } else { Expect::Padding { left } }
}

/// Bytes that fill the last block of an entry up.
fn padding(size: u64) -> usize {
    // Below 512, so it fits.
    (size.wrapping_neg() % BLOCK as u64) as usize
}

fn malformed(why: &'static str) -> Error {
    Error::new(Kind::PackageMalformed, format!("archive: {why}"))
}

fn refused(number: usize, why: &'static str) -> Error {
    Error::new(Kind::UnsafePath, format!("file {number}: {why}"))
        .with_hint("let tar follow links: tar -chf study.tar --hard-dereference STUDY/")
}
