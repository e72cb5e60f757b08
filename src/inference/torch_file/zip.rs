//! The directory of a zip archive (PKWARE APPNOTE 6.3.10), read so strictly that two readers cannot disagree about what is in the archive.
//!
//! Nothing is unpacked. The reader of an archive is libtorch, later; this file refuses what would make libtorch read something else than
//! was looked at (doubled names, overlapping or hidden entries, another directory than the one at the end) or more than the file can
//! honestly hold (zip bombs). PyTorch stores weights as they are and deflates only code, so an honest archive is about as large as what is
//! in it.

use std::collections::HashSet;

/// Most entries of an archive.
const MAX_ENTRIES: u64 = 65_536;
/// Longest name, bytes.
const MAX_NAME: usize = 4096;
/// Most bytes of all entries together.
const MAX_TOTAL: u64 = 4 << 30;
/// What deflated code and its source map may add to the size of the file.
const DEFLATED: u64 = 64 << 20;
/// Deflate makes text up to about ten times smaller; bombs of one stream reach 1000.
const MAX_RATIO: u64 = 100;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;

/// One file of the archive.
struct Entry<'a> {
    name: &'a str,
    flags: u16,
    method: u16,
    packed: u64,
    size: u64,
    /// Of its local header.
    offset: u64,
}

/// Names of the archive's files in the directory's order; the error is a reason in our words.
pub(super) fn names(bytes: &[u8]) -> Result<Vec<&str>, &'static str> {
    let (directory, count, start) = directory(bytes)?;
    let mut rest = directory;
    let mut entries = Vec::new();
    entries.try_reserve_exact(count).map_err(|_| "not enough memory for the archive's directory")?;
    for _ in 0..count {
        entries.push(entry(&mut rest)?);
    }
    if !rest.is_empty() {
        return Err("an archive whose directory is longer than its entries");
    }
    check_sizes(&entries, bytes.len() as u64)?;
    let mut seen = HashSet::new();
    if !entries.iter().all(|entry| seen.insert(entry.name)) {
        return Err("an archive with two entries of one name");
    }
    entries.sort_by_key(|entry| entry.offset);
    let mut free = 0;
    for entry in &entries {
        if entry.offset < free {
            return Err("an archive with overlapping entries");
        }
        free = data_end(bytes, entry)?;
        if free > start {
            return Err("an archive whose entries reach into its directory");
        }
    }
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

/// The central directory, its number of entries and its place, from the record at the very end of the file (4.3.16).
fn directory(bytes: &[u8]) -> Result<(&[u8], usize, u64), &'static str> {
    const CUT: &str = "an archive that is cut off or damaged";
    if !bytes.starts_with(&LOCAL.to_le_bytes()) {
        return Err("an archive with something before its first entry");
    }
    // No comment is accepted: it could hold another end record, which other readers would take.
    let at = bytes.len().checked_sub(22).ok_or(CUT)?;
    if u32_at(bytes, at) != Some(END) || u16_at(bytes, at + 20) != Some(0) {
        return Err(CUT);
    }
    let small = |offset: usize| u16_at(bytes, at + offset).ok_or(CUT);
    let wide = |offset: usize| u32_at(bytes, at + offset).ok_or(CUT);
    if small(4)? != small(6)? || !matches!(small(4)?, 0 | u16::MAX) || small(8)? != small(10)? {
        return Err("an archive of several parts");
    }
    let (mut count, mut size, mut offset) = (u64::from(small(10)?), u64::from(wide(12)?), u64::from(wide(16)?));
    let mut end = at as u64;
    // PyTorch's writer always adds the 64-bit record (4.3.14), found by its locator (4.3.15).
    if let Some(locator) = at.checked_sub(20).filter(|place| u32_at(bytes, *place) == Some(LOCATOR_64)) {
        end = u64_at(bytes, locator + 8).ok_or(CUT)?;
        let record = usize::try_from(end).map_err(|_| CUT)?;
        if u32_at(bytes, record) != Some(END_64)
            || u64_at(bytes, record.saturating_add(4)) != Some(44)
            || end.checked_add(56) != Some(locator as u64)
        {
            return Err(CUT);
        }
        let long = |offset: usize| u64_at(bytes, record + offset).ok_or(CUT);
        let agree = |short: u64, none: u64, long: u64| short == none || short == long;
        let sixty_four = (long(32)?, long(40)?, long(48)?);
        if long(24)? != sixty_four.0
            || !agree(count, u64::from(u16::MAX), sixty_four.0)
            || !agree(size, u64::from(u32::MAX), sixty_four.1)
            || !agree(offset, u64::from(u32::MAX), sixty_four.2)
        {
            return Err("an archive with two directories that disagree");
        }
        (count, size, offset) = sixty_four;
    }
    if count > MAX_ENTRIES {
        return Err("an archive of more than 65536 entries");
    }
    if offset.checked_add(size) != Some(end) {
        return Err(CUT);
    }
    // An entry takes at least 46 bytes, so a count beyond the directory is a lie that would cost memory.
    if count.saturating_mul(46) > size {
        return Err(CUT);
    }
    let range = usize::try_from(offset).map_err(|_| CUT)?..usize::try_from(end).map_err(|_| CUT)?;
    let directory = bytes.get(range).ok_or(CUT)?;
    Ok((directory, usize::try_from(count).map_err(|_| CUT)?, offset))
}

/// The next entry of the directory (4.3.12).
fn entry<'a>(rest: &mut &'a [u8]) -> Result<Entry<'a>, &'static str> {
    const DAMAGED: &str = "an archive whose directory is damaged";
    let bytes = *rest;
    if u32_at(bytes, 0) != Some(CENTRAL) {
        return Err(DAMAGED);
    }
    let small = |offset: usize| u16_at(bytes, offset).ok_or(DAMAGED);
    let wide = |offset: usize| u32_at(bytes, offset).map(u64::from).ok_or(DAMAGED);
    let (name_length, extra_length, comment_length) = (usize::from(small(28)?), usize::from(small(30)?), usize::from(small(32)?));
    if small(34)? != 0 {
        return Err("an archive of several parts");
    }
    let (body, after) = bytes.split_at_checked(46 + name_length + extra_length + comment_length).ok_or(DAMAGED)?;
    *rest = after;
    let name =
        body.get(46..46 + name_length).and_then(|name| std::str::from_utf8(name).ok()).ok_or("an archive with a name that is not text")?;
    if !is_plain(name) {
        return Err("an archive with an unsafe name");
    }
    let mut extra = body.get(46 + name_length..46 + name_length + extra_length).ok_or(DAMAGED)?;
    let (mut packed, mut size, mut offset) = (wide(20)?, wide(24)?, wide(42)?);
    while let (Some(id), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let field = extra.get(4..4 + usize::from(length)).ok_or(DAMAGED)?;
        if id == 1 {
            // The 64-bit field holds only those numbers that the 32-bit ones could not (4.5.3).
            let mut place = 0;
            for number in [&mut size, &mut packed, &mut offset] {
                if *number == u64::from(u32::MAX) {
                    *number = u64_at(field, place).ok_or(DAMAGED)?;
                    place += 8;
                }
            }
        }
        extra = extra.get(4 + usize::from(length)..).ok_or(DAMAGED)?;
    }
    Ok(Entry { name, flags: small(8)?, method: small(10)?, packed, size, offset })
}

/// Names that stay inside any folder, in one spelling.
fn is_plain(name: &str) -> bool {
    name.len() <= MAX_NAME
        && !name.contains(['\\', '\0', ':'])
        && !name.chars().any(char::is_control)
        && name.strip_suffix('/').unwrap_or(name).split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn check_sizes(entries: &[Entry], file: u64) -> Result<(), &'static str> {
    let mut total = 0u64;
    for entry in entries {
        // Bits 0 and 6: encrypted; bit 13: names hidden (4.4.4).
        if entry.flags & (1 | 1 << 6 | 1 << 13) != 0 {
            return Err("an encrypted archive");
        }
        match entry.method {
            0 if entry.packed == entry.size => {}
            8 if entry.size <= entry.packed.saturating_mul(MAX_RATIO) => {}
            0 => return Err("an archive with a stored entry of two sizes"),
            8 => return Err("an archive that would unpack to more than 100 times its size"),
            _ => return Err("an archive packed in a way that pytorch does not use"),
        }
        total = total.saturating_add(entry.size);
    }
    if total > MAX_TOTAL {
        return Err("an archive of more than 4 GiB");
    }
    if total > file + file / 20 + DEFLATED {
        return Err("an archive that would unpack to far more than its size");
    }
    Ok(())
}

/// End of an entry's data, after its local header was found to say the same as the directory (4.3.7).
fn data_end(bytes: &[u8], entry: &Entry) -> Result<u64, &'static str> {
    const DISAGREE: &str = "an archive whose entries and directory disagree";
    let at = usize::try_from(entry.offset).map_err(|_| DISAGREE)?;
    let header = bytes.get(at..).and_then(|rest| rest.get(..30)).ok_or(DISAGREE)?;
    let small = |offset: usize| u16_at(header, offset).ok_or(DISAGREE);
    let wide = |offset: usize| u32_at(header, offset).map(u64::from).ok_or(DISAGREE);
    let name_length = usize::from(small(26)?);
    let name = bytes.get(at + 30..at + 30 + name_length).ok_or(DISAGREE)?;
    if u32_at(header, 0) != Some(LOCAL) || name != entry.name.as_bytes() || small(8)? != entry.method || small(6)? != entry.flags {
        return Err(DISAGREE);
    }
    // Bit 3: the sizes come after the data, and are 0 or unknown here. 64-bit sizes stand in an extra field.
    let same = |here: u64, there: u64| here == there || here == u64::from(u32::MAX) || (entry.flags & 1 << 3 != 0 && here == 0);
    if !same(wide(18)?, entry.packed) || !same(wide(22)?, entry.size) {
        return Err(DISAGREE);
    }
    let data = at as u64 + 30 + name_length as u64 + u64::from(small(28)?);
    data.checked_add(entry.packed).ok_or(DISAGREE)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}
