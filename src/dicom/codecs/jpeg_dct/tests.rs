//! Tests: frames that other programs encoded and decoded, the transform against its definition, and damaged or hostile streams.

use std::f64::consts::PI;

use sha2::{Digest, Sha256};

use super::vectors::{VECTORS, Vector};
use super::{decode, idct};
use crate::error::{Error, Kind};

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digit = |character: u8| (character as char).to_digit(16).unwrap() as u8;
    hexadecimal.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn vector(name: &str) -> (&'static Vector, Vec<u8>) {
    let vector = VECTORS.iter().find(|vector| vector.name == name).unwrap();
    (vector, bytes(vector.frame))
}

/// The SHA-256 of the samples and the precision, or the error.
fn result(vector: &Vector, frame: &[u8]) -> Result<(String, u32), Error> {
    let decoded = decode(frame, vector.columns, vector.rows, vector.components)?;
    let size = vector.columns * vector.rows * vector.components * if decoded.precision == 8 { 1 } else { 2 };
    assert_eq!(decoded.samples.len(), size as usize);
    let digest = Sha256::digest(&decoded.samples[..]);
    Ok((digest.iter().map(|byte| format!("{byte:02x}")).collect(), decoded.precision))
}

/// The error of a damaged frame.
#[track_caller]
fn refused(vector: &Vector, frame: &[u8], kind: Kind, detail: &str) {
    let error = result(vector, frame).unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(format!("{error:?}").contains(detail), "{error:?}");
}

/// Where the marker with this code stands. None of the vectors has one of these inside its data, which the stuffing ensures, nor
/// inside a segment.
fn find(frame: &[u8], code: u8) -> Vec<usize> {
    (0..frame.len() - 1).filter(|&at| frame[at..at + 2] == [0xFF, code]).collect()
}

/// The frame without the segment, or the scan with its data, that starts here.
fn without(frame: &[u8], start: usize) -> Vec<u8> {
    let mut end = start + 2 + usize::from(u16::from_be_bytes([frame[start + 2], frame[start + 3]]));
    if frame[start + 1] == 0xDA {
        while !(frame[end] == 0xFF && frame[end + 1] != 0 && !(0xD0..0xD8).contains(&frame[end + 1])) {
            end += 1;
        }
    }
    [&frame[..start], &frame[end..]].concat()
}

#[test]
fn frames_of_other_encoders_decode_as_other_decoders_decode_them() {
    assert!(VECTORS.len() >= 20);
    for vector in VECTORS {
        let decoded = result(vector, &bytes(vector.frame));
        let (samples, precision) = decoded.unwrap_or_else(|error| panic!("{}: {error:?}", vector.name));
        assert_eq!((samples.as_str(), precision), (vector.samples, vector.precision), "{}", vector.name);
    }
}

#[test]
fn every_truncation_is_refused() {
    for vector in VECTORS {
        let frame = bytes(vector.frame);
        for length in 0..frame.len() {
            let error = result(vector, &frame[..length]).unwrap_err();
            assert_eq!(error.kind(), Kind::PixelsUndecodable, "{} at {length}: {error:?}", vector.name);
        }
        // What stands behind the end does not matter: fragments are padded to even lengths.
        let padded = [&frame[..], &[0, 0xFF, 0xDA, 7]].concat();
        assert_eq!(result(vector, &padded).unwrap().0, vector.samples);
    }
}

#[test]
fn no_corruption_panics_or_takes_long() {
    for vector in VECTORS {
        let mut frame = bytes(vector.frame);
        // The size may be corrupted too; then the caller asks for that size.
        let header = [0xC0, 0xC1, 0xC2].iter().find_map(|&code| find(&frame, code).first().copied()).unwrap();
        for at in 0..frame.len() {
            let kept = frame[at];
            for value in (0..8).map(|bit| kept ^ 1 << bit).chain([0, 0xFF, !kept, 0xD9]) {
                frame[at] = value;
                let field = |offset: usize| u32::from(u16::from_be_bytes([frame[header + offset], frame[header + offset + 1]]));
                let _ = decode(&frame, field(7), field(5), u32::from(frame[header + 9]));
            }
            frame[at] = kept;
        }
        assert_eq!(result(vector, &frame).unwrap().0, vector.samples);
    }
}

#[test]
fn random_bytes_behind_the_headers_are_refused_or_decoded() {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    for vector in VECTORS {
        let mut frame = bytes(vector.frame);
        let data = find(&frame, 0xDA)[0] + 14;
        for _ in 0..200 {
            for byte in frame.iter_mut().skip(data) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = (state >> 32) as u8;
            }
            let _ = decode(&frame, vector.columns, vector.rows, vector.components);
        }
    }
}

#[test]
fn the_size_must_be_that_of_the_data_set() {
    let (vector, frame) = vector("full_12");
    let (columns, rows, components) = (vector.columns, vector.rows, vector.components);
    for (columns, rows, components) in [(columns + 1, rows, components), (columns, rows - 1, components), (columns, rows, 3), (0, 0, 0)] {
        assert_eq!(decode(&frame, columns, rows, components).unwrap_err().kind(), Kind::PixelsUndecodable);
    }
    // A header that claims far more blocks than the stream can hold, even where the data set agrees.
    let mut large = frame.clone();
    let header = find(&frame, 0xC2)[0];
    large[header + 5..header + 9].fill(0xFF);
    let error = decode(&large, 65535, 65535, 1).unwrap_err();
    assert!(format!("{error:?}").contains("too short for its size"), "{error:?}");
}

#[test]
fn other_processes_are_unsupported() {
    let (vector, frame) = vector("extended_12");
    let header = find(&frame, 0xC1)[0];
    let patched = |offset: usize, value: &[u8]| {
        let mut frame = frame.clone();
        frame[header + offset..header + offset + value.len()].copy_from_slice(value);
        frame
    };
    for (code, detail) in
        [(0xC3, "without loss"), (0xF7, "without loss"), (0xC5, "hierarchical"), (0xC9, "arithmetically"), (0xCA, "arithmetically")]
    {
        refused(vector, &patched(1, &[code]), Kind::PixelsUnsupported, detail);
    }
    refused(vector, &patched(4, &[16]), Kind::PixelsUnsupported, "neither 8 nor 12 bits");
    refused(vector, &patched(5, &[0, 0]), Kind::PixelsUnsupported, "number of lines");
    refused(vector, &patched(9, &[5]), Kind::PixelsUnsupported, "more than four");
    // A frame that calls itself baseline though it has 12 bits is readable all the same.
    assert_eq!(result(vector, &patched(1, &[0xC0])).unwrap().0, vector.samples);
}

#[test]
fn missing_tables_and_scans_are_errors() {
    for (name, code, detail) in [
        ("extended_12", 0xDB, "lacks a quantization table"),
        ("extended_12", 0xC4, "lacks a huffman table"),
        ("full_12", 0xDB, "lacks a quantization table"),
        ("full_12", 0xC4, "lacks a huffman table"),
        ("extended_12", 0xC1, "before the frame's header"),
        ("extended_12", 0xDA, "lacks some of its scans"),
        ("colour_mixed", 0xDA, "lacks some of its scans"),
    ] {
        let (vector, frame) = vector(name);
        refused(vector, &without(&frame, find(&frame, code)[0]), Kind::PixelsUndecodable, detail);
    }
    // A progressive frame without one of its scans, of which other decoders make a blurred image.
    for name in ["spectral_12", "full_12", "full_8", "grey_bitwise", "colour_420_progressive"] {
        let (vector, frame) = vector(name);
        let scans = find(&frame, 0xDA);
        assert!(scans.len() >= 3);
        for scan in scans {
            assert_eq!(result(vector, &without(&frame, scan)).unwrap_err().kind(), Kind::PixelsUndecodable, "{name}");
        }
    }
    // A scan that comes twice.
    let (vector, frame) = vector("extended_12");
    let (scan, end) = (find(&frame, 0xDA)[0], frame.len() - 2);
    let twice = [&frame[..end], &frame[scan..]].concat();
    refused(vector, &twice, Kind::PixelsUndecodable, "does not continue");
}

#[test]
fn data_that_no_block_uses_are_errors_and_padding_is_not() {
    for name in ["extended_12", "full_12", "colour_420_restarts"] {
        let (vector, frame) = vector(name);
        // Fill bytes may stand before the marker at the end: DCMTK makes lengths even so.
        let mut end = frame.len() - 2;
        while frame[end - 1] == 0xFF {
            end -= 1;
        }
        let insert = |bytes: &[u8]| [&frame[..end], bytes, &frame[end..]].concat();
        refused(vector, &insert(&[0x5A]), Kind::PixelsUndecodable, "no block uses");
        refused(vector, &insert(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0x5A]), Kind::PixelsUndecodable, "no block uses");
        for padding in [&[0u8; 20][..], &[0xFF, 0, 0xFF, 0], &[0xFF, 0xFF, 0xFF]] {
            assert_eq!(result(vector, &insert(padding)).unwrap().0, vector.samples);
        }
    }
}

#[test]
fn restart_markers_are_checked() {
    let (vector, frame) = vector("colour_420_restarts");
    let markers = find(&frame, 0xD0);
    assert!(!markers.is_empty());
    let mut other = frame.clone();
    other[markers[0] + 1] = 0xD3;
    refused(vector, &other, Kind::PixelsUndecodable, "restart marker");
    let filled = [&frame[..markers[0]], &[0xFF; 3], &frame[markers[0]..]].concat();
    assert_eq!(result(vector, &filled).unwrap().0, vector.samples);
    refused(vector, &without(&frame, find(&frame, 0xDD)[0]), Kind::PixelsUndecodable, "");
}

/// Appends bits to a stream.
#[derive(Default)]
struct Writer {
    stream: Vec<u8>,
    bits: u64,
    count: u32,
}

impl Writer {
    fn segment(&mut self, code: u8, payload: &[u8]) {
        self.stream.extend([0xFF, code]);
        self.stream.extend((payload.len() as u16 + 2).to_be_bytes());
        self.stream.extend(payload);
    }

    fn bits(&mut self, value: usize, count: u32) {
        for bit in (0..count).rev() {
            self.bits = self.bits << 1 | (value >> bit & 1) as u64;
            self.count += 1;
            if self.count == 8 {
                self.stream.push(self.bits as u8);
                if self.bits as u8 == 0xFF {
                    self.stream.push(0);
                }
                (self.bits, self.count) = (0, 0);
            }
        }
    }

    /// Fills the last byte of a scan.
    fn align(&mut self) {
        while self.count != 0 {
            self.bits(1, 1);
        }
    }

    /// A progressive frame of 12 bits, with a one-bit code for a DC difference of 0 and AC codes "0" for a run of 16384 to 32767
    /// blocks and "10" for a new coefficient.
    fn progressive(side: u16) -> Writer {
        let mut writer = Writer { stream: vec![0xFF, 0xD8], ..Writer::default() };
        writer.segment(0xDB, &[&[0u8][..], &[1; 64]].concat());
        let side = side.to_be_bytes();
        writer.segment(0xC2, &[12, side[0], side[1], side[0], side[1], 1, 1, 0x11, 0]);
        writer.segment(0xC4, &[&[0x00u8, 1][..], &[0; 15], &[0]].concat());
        writer.segment(0xC4, &[&[0x10u8, 1, 1][..], &[0; 14], &[0xE0, 0x01]].concat());
        writer
    }

    fn scan(&mut self, first: u8, last: u8, approximation: u8) {
        self.segment(0xDA, &[1, 1, 0, first, last, approximation]);
    }
}

#[test]
fn scans_that_say_nothing_are_bounded() {
    // 1.6 million blocks, all with one coefficient, refined over and over by codes that cover whole stretches of the image.
    let side = 10240u16;
    let blocks = usize::from(side / 8).pow(2);
    let mut writer = Writer::progressive(side);
    writer.scan(0, 0, 0);
    (0..blocks).for_each(|_| writer.bits(0, 1));
    writer.align();
    writer.scan(1, 1, 0x0D);
    (0..blocks).for_each(|_| writer.bits(0b101, 3));
    writer.align();
    for coefficient in 2..20 {
        for bit in (0..=13).rev() {
            writer.scan(coefficient, coefficient, if bit == 13 { 13 } else { (bit + 1) << 4 | bit });
            let mut left = blocks;
            while left > 0 {
                let run = if left > 32767 && left < 49151 { left - 16384 } else { left.min(32767) };
                writer.bits(0, 1);
                writer.bits(run - 16384, 14);
                left -= run;
            }
            writer.align();
        }
    }
    writer.stream.extend([0xFF, 0xD9]);
    let error = decode(&writer.stream, side.into(), side.into(), 1).unwrap_err();
    assert_eq!(error.kind(), Kind::PixelsUnsupported, "{error:?}");
}

#[test]
fn runs_and_values_outside_the_standard_are_errors() {
    let decode = |writer: &Writer| decode(&[&writer.stream[..], &[0xFF, 0xD9]].concat(), 16, 16, 1).unwrap_err();
    // A run of blocks that passes the end of the scan.
    let mut writer = Writer::progressive(16);
    writer.scan(1, 63, 0);
    writer.bits(0, 15);
    writer.align();
    assert!(format!("{:?}", decode(&writer)).contains("run of zeros"));
    // Parameters of scans: a band with DC and AC, a band that ends before it starts, a refinement of two bits, a shift of 14.
    for (first, last, approximation) in [(0, 5, 0), (5, 3, 0), (1, 64, 0), (1, 63, 0x31), (1, 63, 0x0E)] {
        let mut writer = Writer::progressive(16);
        writer.scan(first, last, approximation);
        assert!(format!("{:?}", decode(&writer)).contains("outside the standard"));
    }
    // A refinement of what no scan has coded.
    let mut writer = Writer::progressive(16);
    writer.scan(1, 63, 0x10);
    assert!(format!("{:?}", decode(&writer)).contains("does not continue"));
    // Tables: more codes than two bits allow, zero steps, a destination that does not exist.
    for (code, payload) in [
        (0xC4, [&[0x00u8, 0, 5][..], &[0; 14], &[1, 2, 3, 4, 5]].concat()),
        (0xC4, [&[0x04u8, 1][..], &[0; 15], &[0]].concat()),
        (0xC4, [&[0x20u8, 1][..], &[0; 15], &[0]].concat()),
        (0xDB, vec![0; 65]),
        (0xDB, [&[0x24u8][..], &[1; 64]].concat()),
        (0xDB, vec![0, 1, 1]),
    ] {
        let mut writer = Writer::progressive(16);
        writer.segment(code, &payload);
        assert_eq!(decode(&writer).kind(), Kind::PixelsUndecodable);
        assert!(format!("{:?}", decode(&writer)).contains("table") || payload.len() == 3);
    }
}

#[test]
fn the_transform_is_the_inverse_cosine_transform() {
    let mut state = 1u64;
    for precision in [8u32, 12] {
        let half = f64::from(1 << (precision - 1));
        for round in 0..300 {
            let (mut coefficients, mut mask, mut natural) = ([0i16; 64], 0u64, [0f64; 64]);
            for k in 0..64 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if (state >> 60) < [0, 2, 16][round % 3] || k == 0 {
                    coefficients[k] = ((state >> 40) as i16) >> (16 - precision + (k as u32 / 12));
                    mask |= 1 << k;
                    natural[usize::from(idct::ZIGZAG[k])] = f64::from(coefficients[k]) * 3.0;
                }
            }
            let mut plane = [0u16; 8 * 10];
            idct::block(&coefficients, mask, &[3; 64], idct::Range::new(precision), &mut plane, 10);
            for (y, x) in (0..64).map(|index| (index / 8, index % 8)) {
                // T.81 A.3.3.
                let term = |index: usize| {
                    let (v, u) = (index / 8, index % 8);
                    let scale = |frequency: usize| if frequency == 0 { 0.5f64.sqrt() } else { 1.0 };
                    let wave = |position: usize, frequency: usize| (((2 * position + 1) * frequency) as f64 * PI / 16.0).cos();
                    scale(u) * scale(v) / 4.0 * natural[index] * wave(x, u) * wave(y, v)
                };
                let exact = ((0..64).map(term).sum::<f64>() + half).clamp(0.0, 2.0 * half - 1.0);
                assert!((exact - f64::from(plane[10 * y + x])).abs() < 1.0, "{precision} bits, round {round}, {y} {x}: {exact}");
            }
        }
    }
}
