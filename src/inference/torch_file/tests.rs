//! Tests of the look at PyTorch's files: archives are written here, byte by byte, honest ones and others.

use super::*;

/// One entry as a hostile writer can set it.
#[derive(Clone)]
struct Entry {
    name: &'static str,
    data: Vec<u8>,
    method: u16,
    flags: u16,
    /// What the directory says of the size; `None` = the truth.
    claimed: Option<u32>,
    /// Of the local header, when it is another entry's.
    offset: Option<u32>,
    local_name: &'static str,
}

fn stored(name: &'static str, data: &[u8]) -> Entry {
    Entry { name, data: data.to_vec(), method: 0, flags: 0, claimed: None, offset: None, local_name: name }
}

fn put(out: &mut Vec<u8>, numbers: &[(u64, usize)]) {
    for (value, width) in numbers {
        out.extend_from_slice(&value.to_le_bytes()[..*width]);
    }
}

/// A zip archive, with the 64-bit end record when asked.
fn archive(entries: &[Entry], wide: bool) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = entry.offset.map_or(out.len() as u64, u64::from);
        let (packed, size) = (entry.data.len() as u64, entry.claimed.map_or(entry.data.len() as u64, u64::from));
        let common = [(20, 2), (u64::from(entry.flags), 2), (u64::from(entry.method), 2), (0, 4), (0, 4), (packed, 4), (size, 4)];
        put(&mut out, &[(0x0403_4b50, 4)]);
        put(&mut out, &common);
        put(&mut out, &[(entry.local_name.len() as u64, 2), (0, 2)]);
        out.extend_from_slice(entry.local_name.as_bytes());
        out.extend_from_slice(&entry.data);
        put(&mut directory, &[(0x0201_4b50, 4), (20, 2)]);
        put(&mut directory, &common);
        put(&mut directory, &[(entry.name.len() as u64, 2), (0, 2), (0, 2), (0, 2), (0, 2), (0, 4), (offset, 4)]);
        directory.extend_from_slice(entry.name.as_bytes());
    }
    let (start, size, count) = (out.len() as u64, directory.len() as u64, entries.len() as u64);
    out.extend_from_slice(&directory);
    if wide {
        let end = out.len() as u64;
        put(&mut out, &[(0x0606_4b50, 4), (44, 8), (45, 2), (45, 2), (0, 4), (0, 4), (count, 8), (count, 8), (size, 8), (start, 8)]);
        put(&mut out, &[(0x0706_4b50, 4), (0, 4), (end, 8), (1, 4)]);
        put(&mut out, &[(0x0605_4b50, 4), (0, 2), (0, 2), (0xffff, 2), (0xffff, 2), (0xffff_ffff, 4), (0xffff_ffff, 4), (0, 2)]);
    } else {
        put(&mut out, &[(0x0605_4b50, 4), (0, 2), (0, 2), (count, 2), (count, 2), (size, 4), (start, 4), (0, 2)]);
    }
    out
}

fn torchscript() -> Vec<Entry> {
    ["net/data.pkl", "net/code/__torch__.py", "net/constants.pkl", "net/version"].map(|name| stored(name, b"0123456789")).to_vec()
}

fn deflated(name: &'static str, data: &[u8]) -> Entry {
    use std::io::Write;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    Entry { method: 8, claimed: Some(data.len() as u32), ..stored(name, &encoder.finish().unwrap()) }
}

fn refused(bytes: &[u8]) -> (Kind, String) {
    let error = check(bytes).unwrap_err();
    if error.kind() != Kind::ModelUnreadable {
        assert!(error.hint().unwrap().contains("torch.jit.script"), "{error}");
        assert!(error.hint().unwrap().contains("torch.onnx.export"), "{error}");
    }
    (error.kind(), error.detail().to_owned())
}

#[test]
fn a_torchscript_archive_is_accepted_with_either_end_record() {
    for wide in [false, true] {
        assert!(check(&archive(&torchscript(), wide)).is_ok());
        let mut entries = torchscript();
        entries.push(deflated("net/code/__torch__.py.debug_pkl", &b"a source map ".repeat(20)));
        assert!(check(&archive(&entries, wide)).is_ok());
    }
}

#[test]
fn pickles_are_refused_whatever_they_lie_in() {
    let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M\xe9\x03.";
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    for bytes in [
        &b"\x80\x02}q\x00."[..],
        b"\x80\x04\x95",
        legacy,
        b"ctorch._utils\n_rebuild\nq\x00.",
        b"(dp0\nS'a'\np1\nI1\ns.\n",
        &tar,
        &archive(&[stored("archive/data.pkl", b"x"), stored("archive/data/0", b"weights")], true),
        &archive(&[stored("m/.data/extern_modules", b"x"), stored("m/model/model.pkl", b"x")], false),
    ] {
        assert_eq!(refused(bytes).0, Kind::ModelPickle, "{:?}", &bytes[..bytes.len().min(16)]);
        assert!(is_torch(bytes));
    }
    assert!(!is_torch(b"\x08\x09\x12\x07pytorch"));
}

#[test]
fn torch_export_archives_are_refused_by_name() {
    for names in [["net/archive_format", "net/models/model.json"], ["serialized_exported_program.json", "version"]] {
        let bytes = archive(&names.map(|name| stored(name, b"pt2")), false);
        let (kind, detail) = refused(&bytes);
        assert_eq!(kind, Kind::Unsupported);
        assert!(detail.contains(".pt2"));
    }
}

#[test]
fn bombs_and_archives_that_two_readers_could_read_differently_are_refused() {
    let with = |entry: Entry| [torchscript(), vec![entry]].concat();
    let good = stored("net/data/0", b"weights");
    let many: Vec<Entry> = (0..8).map(|_| Entry { claimed: Some(100_000_000), ..deflated("", &[7; 1 << 20]) }).collect();
    let named = ["net/a", "net/b", "net/c", "net/d", "net/e", "net/f", "net/g", "net/h"];
    // Each entry is a megabyte of incompressible data, so that only the sum is wrong.
    let noise: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let many: Vec<Entry> =
        many.into_iter().zip(named).map(|(entry, name)| Entry { name, local_name: name, data: noise.clone(), ..entry }).collect();
    for (entries, expected) in [
        (with(deflated("net/data/0", &[0; 4 << 20])), "more than 100 times"),
        (with(Entry { claimed: Some(4_000_000_000), ..deflated("net/data/0", &b"abc".repeat(9)) }), "more than 100 times"),
        ([torchscript(), many].concat(), "far more than its size"),
        (with(Entry { claimed: Some(900), ..good.clone() }), "stored entry of two sizes"),
        (with(Entry { flags: 1, ..good.clone() }), "encrypted"),
        (with(Entry { method: 12, ..good.clone() }), "does not use"),
        (with(Entry { offset: Some(0), name: "net/data.pkl2", ..good.clone() }), "overlapping"),
        (with(Entry { offset: Some(5), ..good.clone() }), "overlapping"),
        (with(Entry { local_name: "net/data/1", ..good.clone() }), "disagree"),
        (with(stored("net/data.pkl", b"again")), "two entries of one name"),
        (with(stored("net/../../etc/passwd", b"x")), "unsafe name"),
        (with(stored("/etc/passwd", b"x")), "unsafe name"),
        (with(stored("net\\data", b"x")), "unsafe name"),
        (with(stored("other/data", b"x")), "not a model"),
        (vec![stored("net/readme.txt", b"x")], "not a torchscript model"),
        (torchscript()[..2].to_vec(), "not a torchscript model"),
    ] {
        let (kind, detail) = refused(&archive(&entries, true));
        assert_eq!(kind, Kind::ModelUnreadable);
        assert!(detail.contains(expected), "{detail}, not {expected}");
    }
}

#[test]
fn a_name_or_a_directory_beyond_the_limits_is_refused() {
    let long: &'static str = Box::leak(format!("net/{}", "n".repeat(4096)).into_boxed_str());
    assert!(refused(&archive(&[torchscript(), vec![stored(long, b"")]].concat(), false)).1.contains("unsafe name"));
    let good = archive(&torchscript(), true);
    // The number of entries in the 64-bit record, both of it.
    let record = good.len() - 22 - 20 - 56;
    for (count, expected) in [(65_537u64, "65536"), (5, "cut off"), (3, "longer"), (u64::MAX, "65536")] {
        let mut bytes = good.clone();
        bytes[record + 24..record + 32].copy_from_slice(&count.to_le_bytes());
        bytes[record + 32..record + 40].copy_from_slice(&count.to_le_bytes());
        let detail = refused(&bytes).1;
        assert!(detail.contains(expected) || detail.contains("damaged"), "{detail}");
    }
}

#[test]
fn no_damage_is_accepted_and_none_is_a_panic() {
    for wide in [false, true] {
        let good = archive(&torchscript(), wide);
        for length in 0..good.len() {
            assert!(check(&good[..length]).is_err(), "{length}");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                // Damage to contents, dates and versions is not seen here.
                let _ = check(&bytes);
            }
        }
        assert!(check(&[&b"#!/bin/sh\n"[..], &good].concat()).is_err());
        assert!(check(&[&good[..], b"PK\x05\x06"].concat()).is_err());
    }
    assert!(check(b"").is_err());
    assert!(check(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").is_err());
}
