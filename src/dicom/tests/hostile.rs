//! Files made to hurt: every one is an error (or a harmless image), none a crash, a hang or a great deal of memory.

use std::io::Write;

use proptest::prelude::*;

use super::sample::*;
use crate::error::{Error, Kind};

fn check(bytes: Vec<u8>, kind: Kind, words: &str) -> Error {
    let error = refused(load([bytes]));
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.detail().starts_with("file 1: ") && error.detail().contains(words), "{error} should say {words:?}");
    error
}

/// Explicit sequences of undefined length, one inside the other.
fn nested(depth: usize) -> Vec<u8> {
    let mut dataset = write(&without(slice(0.0, 0), (0x7FE0, 0x0010)), Form::Explicit);
    for _ in 0..depth {
        dataset.extend([0x30, 0x00, 0x20, 0x00, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        dataset.extend([0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
    }
    file(EXPLICIT, &dataset)
}

#[test]
fn nesting_is_refused_at_any_depth() {
    for depth in [33, 2_000, 1_000_000] {
        check(nested(depth), Kind::DicomHostile, "limits.depth");
    }
    // The same hidden in an unknown element, whose content is implicit VR (PS3.5 section 6.2.2), and in implicit VR altogether.
    let level = [0x30, 0x00, 0x20, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF];
    let mut hidden = nested(0);
    hidden.extend([0x09, 0x00, 0x10, 0x10, b'U', b'N', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
    hidden.extend(level.repeat(2_000));
    check(hidden, Kind::DicomHostile, "limits.depth");
    let mut implicit = write(&slice(0.0, 0), Form::Implicit);
    implicit.extend(level.repeat(2_000));
    check(file(IMPLICIT, &implicit), Kind::DicomHostile, "limits.depth");
}

#[test]
fn as_many_levels_as_the_limit_allows_are_read() {
    let mut item = vec![text((0x0008, 0x0104), "LO", "inside")];
    for _ in 0..31 {
        item = vec![items((0x0040, 0xA730), vec![item])];
    }
    let image = with(slice(0.0, 0), items((0x0040, 0xA730), vec![item]));
    assert!(load([explicit(&image)]).is_ok());
}

#[test]
fn lengths_beyond_the_file_are_refused_before_anything_is_allocated() {
    for length in [0xFFFF_FFFEu32, 0x8000_0000, 100_000] {
        let mut dataset = write(&slice(0.0, 0), Form::Explicit);
        let at = dataset.len() - 12 - 4;
        dataset[at..at + 4].copy_from_slice(&length.to_le_bytes());
        check(file(EXPLICIT, &dataset), Kind::DicomMalformed, "(7FE0,0010)");
    }
    // An item longer than its sequence.
    let mut dataset = write(
        &[text((0x0008, 0x0060), "CS", "CT"), items((0x0008, 0x1111), vec![vec![text((0x0008, 0x1150), "UI", "1.2")]])],
        Form::Explicit,
    );
    let at = dataset.windows(4).position(|window| window == [0xFE, 0xFF, 0x00, 0xE0]).unwrap();
    dataset[at + 4] += 2;
    check(file(EXPLICIT, &dataset), Kind::DicomMalformed, "(FFFE,E000)");
}

#[test]
fn stray_delimiters_are_refused() {
    for (low, words) in [(0x0D, "stray (FFFE,E00D)"), (0xDD, "stray (FFFE,E0DD)"), (0x00, "stray (FFFE,E000)")] {
        let mut dataset = write(&without(slice(0.0, 0), (0x7FE0, 0x0010)), Form::Explicit);
        dataset.extend([0xFE, 0xFF, low, 0xE0, 0, 0, 0, 0]);
        dataset.extend(write(&[pixels(Value::Words(vec![0; 6]))], Form::Explicit));
        check(file(EXPLICIT, &dataset), Kind::DicomMalformed, words);
    }
}

#[test]
fn an_undefined_length_is_only_for_sequences_and_fragments() {
    let mut dataset = write(&without(slice(0.0, 0), (0x7FE0, 0x0010)), Form::Explicit);
    let native = dataset.clone();
    dataset.extend([0x60, 0x00, 0x00, 0x30, b'O', b'W', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    check(file(EXPLICIT, &dataset), Kind::DicomMalformed, "undefined length");
    let fragments = [native, write(&[pixels(Value::Fragments(vec![vec![], vec![0; 12]]))], Form::Explicit)].concat();
    check(file(EXPLICIT, &fragments), Kind::DicomMalformed, "undefined length");
    check(file(RLE, &write(&slice(0.0, 0), Form::Explicit)), Kind::DicomMalformed, "native pixel data");
}

#[test]
fn too_many_elements_items_or_values_are_refused() {
    let elements: Vec<u8> = (0..1_100_000).flat_map(|_| [0x08, 0x00, 0x60, 0x00, b'C', b'S', 0, 0]).collect();
    check(file(EXPLICIT, &elements), Kind::DicomHostile, "limits.elements");
    let values = with(slice(0.0, 0), Element { tag: (0x0040, 0xA160), vr: "UC", value: Value::Bytes(vec![b'\\'; 2_000_000]) });
    check(
        file(
            IMPLICIT,
            &write(&with(values, Element { tag: (0x0008, 0x0119), vr: "UC", value: Value::Bytes(vec![b'\\'; 2_000_000]) }), Form::Implicit),
        ),
        Kind::DicomHostile,
        "limits.elements",
    );
    let mut items = write(&[text((0x0008, 0x0060), "CS", "CT")], Form::Explicit);
    items.extend([0x30, 0x00, 0x20, 0x00, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    items.extend((0..1_100_000).flat_map(|_| [0xFE, 0xFF, 0x00, 0xE0, 0, 0, 0, 0]));
    check(file(EXPLICIT, &items), Kind::DicomHostile, "limits.elements");
}

#[test]
fn long_file_meta_information_is_refused() {
    let mut bytes = file(EXPLICIT, &[]);
    bytes.extend([2, 0, 2, 1, b'O', b'B', 0, 0]);
    bytes.extend(100_000u32.to_le_bytes());
    bytes.extend(vec![0; 100_000]);
    bytes.extend(write(&slice(0.0, 0), Form::Explicit));
    check(bytes, Kind::DicomHostile, "limits.meta_bytes");
}

#[test]
fn what_hides_in_a_preamble_is_passed_over() {
    // The preamble may make the file a program or a TIFF as well (PS3.10 section 7.5); it says nothing about the image and goes nowhere.
    let plain = load([explicit(&slice(5.0, 7))]).unwrap();
    for disguise in [&b"MZ\x90\0"[..], b"\x7FELF\x02\x01\x01", b"II*\0\x08\0\0\0", b"#!/bin/sh\nexit\n", b"%PDF-1.7"] {
        let mut bytes = explicit(&slice(5.0, 7));
        bytes[..disguise.len()].copy_from_slice(disguise);
        let study = load([bytes]).unwrap();
        assert!(study.voxels == plain.voxels && study.geometry == plain.geometry);
    }
}

#[test]
fn mosaics_of_impossible_numbers_are_refused() {
    let mosaic = |count: Vec<u16>| {
        let image = with(slice(0.0, 0), text((0x0008, 0x0008), "CS", "ORIGINAL\\PRIMARY\\M\\MOSAIC"));
        let image = with(image, text((0x0019, 0x0010), "LO", "SIEMENS MR HEADER"));
        explicit(&with(image, Element { tag: (0x0019, 0x100A), vr: "US", value: Value::Words(count) }))
    };
    check(mosaic(vec![0]), Kind::DicomMalformed, "the number of images in the mosaic is none");
    check(mosaic(vec![65_535]), Kind::DicomMalformed, "65535 images do not tile 3 columns and 2 rows");
    check(mosaic(vec![4]), Kind::DicomMalformed, "4 images do not tile 3 columns and 2 rows");
    check(mosaic(vec![]), Kind::GeometryMissing, "number of images in the mosaic");
    // A CSA header that is noise: nothing in it is believed.
    let image = with(slice(0.0, 0), text((0x0008, 0x0008), "CS", "ORIGINAL\\PRIMARY\\M\\MOSAIC"));
    let image = with(image, text((0x0029, 0x0010), "LO", "SIEMENS CSA HEADER"));
    let noise = [b"SV10\x04\x03\x02\x01\xFF\xFF\xFF\x7F".as_slice(), &[0x4D; 200]].concat();
    let image = with(image, Element { tag: (0x0029, 0x1010), vr: "OB", value: Value::Bytes(noise) });
    assert_eq!(refused(load([explicit(&image)])).kind(), Kind::DicomMalformed);
}

#[test]
fn a_deflate_bomb_is_refused() {
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflate.write_all(&write(&slice(0.0, 0), Form::Explicit)).unwrap();
    for _ in 0..64 {
        deflate.write_all(&vec![0; 4 << 20]).unwrap();
    }
    let bytes = file(DEFLATED, &deflate.finish().unwrap());
    assert!(bytes.len() < 400_000);
    check(bytes, Kind::DicomHostile, "limits.inflate_ratio");
}

#[test]
fn sizes_that_do_not_fit_the_pixels_are_refused() {
    let sized = |tag, value| explicit(&with(slice(0.0, 0), word(tag, value)));
    for (tag, value) in [((0x0028, 0x0010), 3), ((0x0028, 0x0010), 1), ((0x0028, 0x0011), 4), ((0x0028, 0x0100), 8), ((0x0028, 0x0002), 2)]
    {
        check(sized(tag, value), Kind::DicomMalformed, "the pixel data have 12");
    }
    for tag in [(0x0028, 0x0010), (0x0028, 0x0011), (0x0028, 0x0100)] {
        check(sized(tag, 0), Kind::DicomMalformed, "pixel data without");
    }
    let frames = |frames: &str| explicit(&with(slice(0.0, 0), text((0x0028, 0x0008), "IS", frames)));
    check(frames("2"), Kind::DicomMalformed, "make 24 bytes");
    check(frames("4294967295"), Kind::DicomHostile, "limits.slices");
    check(frames("-1"), Kind::DicomMalformed, "(0028,0008)");
    check(frames("99999999999999999999"), Kind::DicomMalformed, "(0028,0008)");
    let vast = with(with(slice(0.0, 0), word((0x0028, 0x0010), 65_535)), word((0x0028, 0x0011), 65_535));
    check(explicit(&with(vast.clone(), text((0x0028, 0x0008), "IS", "65000"))), Kind::DicomHostile, "limits.volume_bytes");
    let compressed = with(with(vast, word((0x0028, 0x0010), 60_000)), pixels(Value::Fragments(vec![vec![], vec![0; 200]])));
    check(file(JPEG_LOSSLESS, &write(&compressed, Form::Explicit)), Kind::DicomHostile, "limits.inflate_ratio");
    for (stored, high) in [(0, 0), (17, 16), (12, 3), (16, 31)] {
        let image = with(with(slice(0.0, 0), word((0x0028, 0x0101), stored)), word((0x0028, 0x0102), high));
        check(explicit(&image), Kind::DicomMalformed, "bits stored");
    }
}

#[test]
fn pixel_data_twice_are_refused() {
    let image = with(slice(0.0, 0), Element { tag: (0x7FE0, 0x0008), vr: "OF", value: Value::Bytes(vec![0; 24]) });
    check(explicit(&image), Kind::DicomMalformed, "pixel data twice");
}

fn fragmented(frames: &str, table: &[u32], fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut all = vec![table.iter().flat_map(|offset| offset.to_le_bytes()).collect()];
    all.extend(fragments.iter().cloned());
    let image = with(with(slice(0.0, 0), text((0x0028, 0x0008), "IS", frames)), pixels(Value::Fragments(all)));
    file(RLE, &write(&image, Form::Explicit))
}

/// Six pixels of 16 bits in two segments.
fn rle_frame() -> Vec<u8> {
    let mut frame: Vec<u8> = [2u32, 64, 66].iter().flat_map(|word| word.to_le_bytes()).collect();
    frame.resize(64, 0);
    frame.extend([0xFB, 0x01, 0xFB, 0x02]);
    frame
}

#[test]
fn bad_offset_tables_and_fragments_are_refused() {
    assert_eq!(*load([fragmented("1", &[], &[rle_frame()])]).unwrap().voxels, [258.0; 6]);
    let two = || [rle_frame(), rle_frame()];
    for table in [&[0, 7][..], &[0], &[4, 76], &[0, u32::MAX], &[76, 0]] {
        check(fragmented("2", table, &two()), Kind::DicomMalformed, "offset table");
    }
    check(fragmented("3", &[], &two()), Kind::DicomMalformed, "2 fragments for 3 frames");
    check(fragmented("1", &[], &[]), Kind::DicomMalformed, "0 fragments for 1 frames");
    check(fragmented("1", &[], &[vec![0xFF; 64]]), Kind::PixelsUndecodable, "rle");
    check(fragmented("1", &[], &[vec![]]), Kind::PixelsUndecodable, "rle");
}

#[test]
fn a_code_stream_that_asks_for_more_than_the_image_is_refused() {
    let frame = [0xFF, 0xD8, 0xFF, 0xC3, 0, 11, 16, 0xFF, 0xFF, 0xFF, 0xFF, 1, 1, 0x11, 0, 0xFF, 0xD9, 0];
    let image = with(slice(0.0, 0), pixels(Value::Fragments(vec![vec![], frame.to_vec()])));
    check(file(JPEG_LOSSLESS, &write(&image, Form::Explicit)), Kind::PixelsUndecodable, "65535 x 65535 x 1");
    let image = with(slice(0.0, 0), pixels(Value::Fragments(vec![vec![], vec![0; 64]])));
    for last in ["50", "51", "57", "70", "90", "91", "110", "201"] {
        let error = refused(load([file(&format!("1.2.840.10008.1.2.4.{last}"), &write(&image, Form::Explicit))]));
        assert_eq!(error.kind(), Kind::PixelsUndecodable, "{last}: {error}");
    }
}

#[test]
fn a_file_cut_anywhere_is_never_taken_for_whole() {
    let whole = explicit(&with(slice(0.0, 0), items((0x0008, 0x1140), vec![vec![text((0x0008, 0x1155), "UI", "1.2.9")]])));
    for cut in 0..whole.len() {
        assert!(load([whole[..cut].to_vec()]).is_err(), "{cut}");
    }
    assert!(load([whole]).is_ok());
}

#[test]
fn messages_never_quote_a_header() {
    let name = "Canary^Person";
    let mut files = vec![
        explicit(&with(slice(0.0, 0), text((0x0020, 0x0032), "DS", name))),
        explicit(&with(slice(0.0, 0), text((0x0028, 0x1053), "DS", name))),
    ];
    files.push(explicit(&with(slice(0.0, 0), text((0x0028, 0x0004), "CS", name))));
    files.push(explicit(&with(slice(0.0, 0), text((0x0028, 0x0008), "IS", name))));
    files.push(file(name, &write(&slice(0.0, 0), Form::Big)));
    for bytes in files {
        let error = refused(load([bytes]));
        assert!(!error.to_string().contains("Canary") && !format!("{error:?}").contains("Canary"), "{error:?}");
    }
}

/// A file that has a bit of everything.
fn rich() -> Vec<Element> {
    let inner = vec![text((0x0008, 0x0100), "SH", "A\\B"), items((0x0040, 0xA043), vec![vec![text((0x0008, 0x0104), "LO", "deep")]])];
    let image = with(slice(0.0, 0), items((0x0008, 0x1140), vec![inner.clone(), inner]));
    let image = with(image, text((0x0008, 0x0005), "CS", "ISO_IR 192"));
    with(image, items((0x0040, 0x0275), vec![vec![text((0x0040, 0x0007), "LO", "step")]]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn random_damage_never_panics(form in 0..4usize, edits in prop::collection::vec((0..2_000usize, any::<u8>(), 0..4u8), 1..8)) {
        let mut bytes = match form {
            0 => file(EXPLICIT, &write(&rich(), Form::Explicit)),
            1 => file(IMPLICIT, &write(&rich(), Form::Implicit)),
            2 => file(BIG, &write(&rich(), Form::Big)),
            _ => fragmented("2", &[0, 76], &[rle_frame(), rle_frame()]),
        };
        for (at, value, how) in edits {
            let at = 128 + at % (bytes.len() - 128);
            match how {
                0 => bytes[at] = value,
                1 => { bytes.insert(at, value); }
                2 => { bytes.remove(at); }
                _ => bytes[at] ^= 1 << (value % 8),
            }
        }
        // Whatever it is, it is an answer.
        let _ = load([bytes]);
    }
}
