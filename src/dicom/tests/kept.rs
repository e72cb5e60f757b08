//! Pixels that are kept as they came and written again: expected bytes are laid out on the page (PS3.5 sections 7.1.2, 8.1.1, A.4).

use super::sample::*;
use crate::control::Control;
use crate::dicom::{IdentifiedStudy, Limits, Loader, Policy, Selection};
use crate::error::{Kind, Result};
use crate::secret::Plain;

fn load_kept(file: Vec<u8>) -> Result<IdentifiedStudy> {
    let mut loader = Loader::new(Limits::default(), Selection::default(), Policy::default()).keep_pixels();
    loader.add(1, Plain::new(file), &Control::new())?;
    loader.finish(&Control::new())
}

/// Transfer syntax, and the element of the pixel data.
fn written(file: Vec<u8>) -> (&'static str, Vec<u8>) {
    let study = load_kept(file).unwrap();
    let [pixels] = study.pixels.as_slice() else { panic!("{} instances", study.pixels.len()) };
    let mut out = Vec::new();
    pixels.write(&mut out).unwrap();
    (pixels.transfer_syntax(), out)
}

fn native(vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    [&[0xE0, 0x7F, 0x10, 0x00], &vr[..], &[0, 0], &(value.len() as u32).to_le_bytes(), value].concat()
}

fn words(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn item(content: &[u8]) -> Vec<u8> {
    [&[0xFE, 0xFF, 0x00, 0xE0][..], &(content.len() as u32).to_le_bytes(), content].concat()
}

fn encapsulated(items: &[Vec<u8>]) -> Vec<u8> {
    let head = [0xE0, 0x7F, 0x10, 0x00, b'O', b'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
    [&head[..], &items.concat(), &[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]].concat()
}

#[test]
fn native_pixels_are_written_in_little_endian_from_every_form() {
    let plain = slice(0.0, 258);
    let expected = (EXPLICIT, native(b"OW", &words(&[258, 259, 260, 261, 262, 263])));
    assert_eq!(written(explicit(&plain)), expected);
    assert_eq!(written(file(IMPLICIT, &write(&plain, Form::Implicit))), expected);
    assert_eq!(written(file(BIG, &write(&plain, Form::Big))), expected);
    // 8-bit samples of big-endian words (PS3.5 section A.3), five of them, hence with padding.
    let image = with(with(with(plain.clone(), word((0x0028, 0x0100), 8)), word((0x0028, 0x0101), 8)), word((0x0028, 0x0102), 7));
    let image = with(with(with(image, word((0x0028, 0x0010), 1)), word((0x0028, 0x0011), 5)), pixels(Value::Bytes(vec![2, 1, 4, 3, 0, 5])));
    assert_eq!(written(file(BIG, &write(&image, Form::Big))), (EXPLICIT, native(b"OB", &[1, 2, 3, 4, 5, 0])));
}

#[test]
fn bits_beside_the_stored_ones_are_cleared() {
    let stored = |signed: u16, high: u16, values: [u16; 6]| {
        let image = with(with(slice(0.0, 0), word((0x0028, 0x0101), 12)), word((0x0028, 0x0102), high));
        written(explicit(&with(with(image, word((0x0028, 0x0103), signed)), pixels(Value::Words(values.to_vec()))))).1
    };
    // An overlay in bits 12 to 15 of unsigned samples.
    assert_eq!(stored(0, 11, [0x1123, 0xF000, 0x0FFF, 0x8001, 0, 1]), native(b"OW", &words(&[0x0123, 0, 0x0FFF, 1, 0, 1])));
    // Signed samples keep their value: the sign goes to the top whatever lay there.
    assert_eq!(stored(1, 11, [0x0FFF, 0xFFFF, 0xF7FF, 0x0800, 0, 1]), native(b"OW", &words(&[0xFFFF, 0xFFFF, 0x07FF, 0xF800, 0, 1])));
    // Bits below the stored ones, too.
    assert_eq!(stored(0, 13, [0xC004, 0xFFFF, 3, 4, 0x3FFC, 1]), native(b"OW", &words(&[0x0004, 0x3FFC, 0, 4, 0x3FFC, 0])));
}

/// An RLE frame of six 16-bit samples: two segments of literal runs, of which the second is one byte shorter than even.
fn rle(first: u8) -> Vec<u8> {
    let mut frame: Vec<u8> = [2u32, 64, 71].iter().flat_map(|word| word.to_le_bytes()).collect();
    frame.resize(64, 0);
    frame.extend([5, 0, 0, 0, 0, 0, 0]);
    frame.extend([5, first, first + 1, first + 2, first + 3, first + 4, first + 5]);
    frame
}

#[test]
fn compressed_frames_are_one_fragment_each_behind_a_table() {
    let place = |z: f64| vec![items((0x0020, 0x9113), vec![vec![text((0x0020, 0x0032), "DS", &format!("0\\0\\{z}"))]])];
    let frames = with(slice(0.0, 0), items((0x5200, 0x9230), vec![place(0.0), place(2.0)]));
    let frames = with(without(frames, (0x0020, 0x0032)), text((0x0028, 0x0008), "IS", "2"));
    let (one, two) = (rle(1), rle(50));
    assert_eq!(one.len(), 78);
    // The first frame comes in two fragments; the table says where frames begin.
    let table = [0u32, 94].iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let came = Value::Fragments(vec![table, one[..40].to_vec(), one[40..].to_vec(), two.clone()]);
    let image = with(frames, pixels(came));
    let offsets = [0u32, 86].iter().flat_map(|offset| offset.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(written(file(RLE, &write(&image, Form::Explicit))), (RLE, encapsulated(&[item(&offsets), item(&one), item(&two)])));
    // A single frame has an empty table.
    let single = with(slice(0.0, 0), pixels(Value::Fragments(vec![vec![], one.clone()])));
    assert_eq!(written(file(RLE, &write(&single, Form::Explicit))).1, encapsulated(&[item(&[]), item(&one)]));
}

#[test]
fn what_a_code_stream_says_about_a_person_is_overwritten() {
    // Lossless JPEG of 3 x 2 samples of 8 bits, all 128 (the default prediction), a code of one bit for a difference of zero (T.81 annex H).
    let comment = [&[0xFF, 0xFE, 0, 10][..], b"Doe^Jane"].concat();
    let table = [0xFF, 0xC4, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let frame_header = [0xFF, 0xC3, 0, 11, 8, 0, 2, 0, 3, 1, 1, 0x11, 0];
    let scan = [0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0, 0b0000_0011, 0xFF, 0xD9];
    let stream = |comment: &[u8]| [&[0xFF, 0xD8][..], comment, &table, &frame_header, &scan].concat();
    let came = stream(&comment);
    assert_eq!(came.len() % 2, 0);
    let image = with(with(with(slice(0.0, 0), word((0x0028, 0x0100), 8)), word((0x0028, 0x0101), 8)), word((0x0028, 0x0102), 7));
    let image = with(image, pixels(Value::Fragments(vec![vec![], came])));
    let (syntax, bytes) = written(file(JPEG_LOSSLESS, &write(&image, Form::Explicit)));
    let blanked = [&[0xFF, 0xFE, 0, 10][..], &[0; 8]].concat();
    assert_eq!((syntax, bytes), (JPEG_LOSSLESS, encapsulated(&[item(&[]), item(&stream(&blanked))])));
}

#[test]
fn nothing_is_kept_unless_asked_for() {
    assert!(load([explicit(&slice(0.0, 0))]).unwrap().pixels.is_empty());
    assert_eq!(load_kept(explicit(&without(slice(0.0, 0), (0x7FE0, 0x0010)))).err().unwrap().kind(), Kind::NoDicomFiles);
}
