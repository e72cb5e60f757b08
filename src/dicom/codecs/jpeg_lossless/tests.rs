//! Tests: frames that other programs encoded and decoded, frames of an encoder after the letter of the standard, and damaged or hostile
//! streams.

use sha2::{Digest, Sha256};

use super::decode;
use super::vectors::{VECTORS, Vector};
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
    let size = vector.columns * vector.rows * vector.components * if decoded.precision <= 8 { 1 } else { 2 };
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

/// The frame with these bytes at this place behind the marker with this code.
fn patched(frame: &[u8], code: u8, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let at = find(frame, code)[0] + offset;
    [&frame[..at], bytes, &frame[at + bytes.len()..]].concat()
}

/// Numbers without a pattern.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
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
        // The same where an end follows, as programs that repair streams write it. In front of the end there may be bytes without samples.
        let end = frame[..frame.len() - 2].iter().rposition(|byte| !matches!(byte, 0 | 0xFF)).unwrap();
        for length in 2..=end {
            let error = result(vector, &[&frame[..length], &[0xFF, 0xD9]].concat()).unwrap_err();
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
        let header = find(&frame, 0xC3)[0];
        for at in (0..frame.len()).filter(|at| *at < 400 || at % 61 == 0) {
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
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for vector in VECTORS {
        let mut frame = bytes(vector.frame);
        let data = find(&frame, 0xDA)[0] + 10;
        for _ in 0..100 {
            frame.iter_mut().skip(data).for_each(|byte| *byte = random.next() as u8);
            let _ = decode(&frame, vector.columns, vector.rows, vector.components);
        }
    }
}

#[test]
fn the_size_must_be_that_of_the_data_set() {
    let (vector, frame) = vector("first_order_12");
    let (columns, rows, components) = (vector.columns, vector.rows, vector.components);
    for (columns, rows, components) in [(columns + 1, rows, components), (columns, rows - 1, components), (columns, rows, 3), (0, 0, 0)] {
        assert_eq!(decode(&frame, columns, rows, components).unwrap_err().kind(), Kind::PixelsUndecodable);
    }
    // A header that claims far more samples than the stream can hold, even where the data set agrees.
    let error = decode(&patched(&frame, 0xC3, 5, &[0xFF; 4]), 65535, 65535, 1).unwrap_err();
    assert!(format!("{error:?}").contains("too short for its size"), "{error:?}");
}

#[test]
fn what_the_process_does_not_have_is_refused() {
    let (vector, frame) = vector("colour_8");
    for (code, detail) in [
        (0xC0, "with loss"),
        (0xC2, "with loss"),
        (0xC7, "hierarchical"),
        (0xC5, "hierarchical"),
        (0xCB, "arithmetically"),
        (0xCF, "hierarchical"),
        (0xF7, "jpeg-ls"),
    ] {
        refused(vector, &patched(&frame, 0xC3, 1, &[code]), Kind::PixelsUnsupported, detail);
    }
    refused(vector, &patched(&frame, 0xC3, 5, &[0, 0]), Kind::PixelsUnsupported, "number of lines");
    refused(vector, &patched(&frame, 0xC3, 11, &[0x21]), Kind::PixelsUnsupported, "differ in size");
    for precision in [0, 1, 17, 255] {
        refused(vector, &patched(&frame, 0xC3, 4, &[precision]), Kind::PixelsUndecodable, "bits per sample");
    }
    // Predictors, what must be zero, and a point transform that leaves nothing.
    for parameters in [[0, 0, 0], [8, 0, 0], [1, 63, 0], [1, 0, 0x10], [1, 0, 8]] {
        refused(vector, &patched(&frame, 0xDA, 11, &parameters), Kind::PixelsUndecodable, "outside the standard");
    }
    let interval = [&frame[..2], &[0xFF, 0xDD, 0, 4, 0, 5], &frame[2..]].concat();
    refused(vector, &interval, Kind::PixelsUndecodable, "within a line");
    // Fields that mean nothing in lossless frames are not read.
    assert_eq!(result(vector, &patched(&frame, 0xC3, 12, &[9])).unwrap().0, vector.samples);
    // No table, no header, no scan; a component twice.
    refused(vector, &patched(&frame, 0xC4, 1, &[0xE0]), Kind::PixelsUndecodable, "lacks a huffman table");
    refused(vector, &patched(&frame, 0xC3, 1, &[0xE0]), Kind::PixelsUndecodable, "before the frame's header");
    refused(vector, &patched(&frame, 0xDA, 1, &[0xD9]), Kind::PixelsUndecodable, "lacks some of its scans");
    let scan = find(&frame, 0xDA)[0];
    refused(vector, &[&frame[..frame.len() - 2], &frame[scan..]].concat(), Kind::PixelsUndecodable, "twice");
}

/// The code of a category: as many ones as the category and a zero up to 13; four codes of 16 bits behind them.
fn code(category: u32) -> (u32, u32) {
    if category < 13 { ((1 << (category + 1)) - 2, category + 1) } else { (0xFFF8 + category - 13, 16) }
}

/// An image and how to code it.
struct Image {
    columns: usize,
    rows: usize,
    components: usize,
    precision: u32,
    predictor: u8,
    transform: u8,
    /// Lines between restart markers.
    lines: usize,
    /// One scan for each component.
    is_planar: bool,
    samples: Vec<u16>,
}

impl Image {
    fn sample(&self, row: usize, column: usize, component: usize) -> i32 {
        i32::from(self.samples[(row * self.columns + column) * self.components + component]) >> self.transform
    }

    /// H.1.2: the difference from the prediction, 32768 or -32767 to 32767.
    fn difference(&self, row: usize, column: usize, component: usize) -> i32 {
        let at = |up: usize, left: usize| self.sample(row - up, column - left, component);
        let is_first = row.is_multiple_of(self.lines);
        let prediction = match (is_first, column, self.predictor) {
            (true, 0, _) => 1 << (self.precision - u32::from(self.transform) - 1),
            (true, ..) | (_, 1.., 1) => at(0, 1),
            (_, 0, _) | (_, _, 2) => at(1, 0),
            (_, _, 3) => at(1, 1),
            (_, _, 4) => at(0, 1) + at(1, 0) - at(1, 1),
            (_, _, 5) => at(0, 1) + (at(1, 0) - at(1, 1)).div_euclid(2),
            (_, _, 6) => at(1, 0) + (at(0, 1) - at(1, 1)).div_euclid(2),
            _ => (at(0, 1) + at(1, 0)).div_euclid(2),
        };
        32768 - (32768 - (self.sample(row, column, component) - prediction)).rem_euclid(65536)
    }

    fn encode(&self) -> Vec<u8> {
        let mut stream = vec![0xFF, 0xD8, 0xFF, 0xC4, 0, 36, 0];
        stream.extend([1; 13].iter().chain(&[0, 0, 4]).copied().chain(0..=16));
        stream.extend([0xFF, 0xDD, 0, 4]);
        stream.extend(((self.lines % self.rows * self.columns) as u16).to_be_bytes());
        stream.extend([0xFF, 0xC3, 0, 8 + 3 * self.components as u8, self.precision as u8]);
        stream.extend((self.rows as u16).to_be_bytes());
        stream.extend((self.columns as u16).to_be_bytes());
        stream.push(self.components as u8);
        (0..self.components as u8).for_each(|name| stream.extend([name, 0x11, 0]));
        let all: Vec<usize> = (0..self.components).collect();
        for part in all.chunks(if self.is_planar { 1 } else { self.components }) {
            stream.extend([0xFF, 0xDA, 0, 6 + 2 * part.len() as u8, part.len() as u8]);
            part.iter().for_each(|name| stream.extend([*name as u8, 0]));
            stream.extend([self.predictor, 0, self.transform]);
            let (mut bits, mut count) = (0u64, 0u32);
            for row in 0..self.rows {
                for (column, component) in (0..self.columns).flat_map(|column| part.iter().map(move |part| (column, *part))) {
                    let difference = self.difference(row, column, component);
                    let category = 32 - difference.unsigned_abs().leading_zeros();
                    let (code, length) = code(category);
                    (bits, count) = (bits << length | u64::from(code), count + length);
                    if category < 16 {
                        let low = if difference < 0 { difference + (1 << category) - 1 } else { difference };
                        (bits, count) = (bits << category | low as u64, count + category);
                    }
                    while count >= 8 {
                        count -= 8;
                        let byte = (bits >> count) as u8;
                        stream.push(byte);
                        stream.extend((byte == 0xFF).then_some(0));
                    }
                }
                if (row + 1).is_multiple_of(self.lines) || row + 1 == self.rows {
                    // The last byte is filled with ones.
                    let byte = (bits << (8 - count) | 0xFF >> count) as u8;
                    if count > 0 {
                        stream.push(byte);
                        stream.extend((byte == 0xFF).then_some(0));
                    }
                    count = 0;
                    if row + 1 < self.rows {
                        stream.extend([0xFF, 0xD0 + (((row + 1) / self.lines - 1) % 8) as u8]);
                    }
                }
            }
        }
        stream.extend([0xFF, 0xD9]);
        stream
    }

    fn bytes(&self) -> Vec<u8> {
        let kept = |sample: &u16| (sample >> self.transform << self.transform).to_le_bytes();
        let width = if self.precision <= 8 { 1 } else { 2 };
        self.samples.iter().flat_map(|sample| kept(sample).into_iter().take(width)).collect()
    }
}

#[test]
fn images_of_every_form_come_back() {
    let mut random = Random(1);
    for round in 0..1500 {
        let precision = 2 + random.below(15) as u32;
        let components = 1 + random.below(4) as usize;
        // Wide enough at times for tables of pairs, and for more data than are unstuffed at once.
        let (columns, rows) = match round % 50 {
            0 => (1 + random.below(3000) as usize, 1 + random.below(12) as usize),
            1 => (1 + random.below(200) as usize, 1 + random.below(200) as usize),
            _ => (1 + random.below(20) as usize, 1 + random.below(20) as usize),
        };
        let lines = if random.below(2) == 0 { 1 + random.below(rows as u64) as usize } else { rows };
        let lines = if lines * columns > 65535 { rows } else { lines };
        let mut image = Image {
            columns,
            rows,
            components,
            precision,
            predictor: 1 + random.below(7) as u8,
            transform: if random.below(3) == 0 { random.below(u64::from(precision)) as u8 } else { 0 },
            lines,
            is_planar: random.below(2) == 0,
            samples: Vec::new(),
        };
        // From flat to noise; at times beyond the precision, modulo 2^16 as everything else.
        let spread = 1 + random.below(precision.into()) as u32;
        let mask = if random.below(4) == 0 { u16::MAX } else { u16::MAX >> (16 - precision) };
        let mut sample = 1u16 << (precision - 1);
        for _ in 0..columns * rows * components {
            let step = random.below(1 << spread) as u16;
            sample = match random.below(40) {
                0 => random.next() as u16,
                1 => sample ^ 0x8000,
                _ => sample.wrapping_add(step).wrapping_sub(1 << (spread - 1)),
            };
            image.samples.push(sample & mask);
        }
        let decoded = decode(&image.encode(), columns as u32, rows as u32, components as u32);
        let decoded = decoded.unwrap_or_else(|error| panic!("{round}: {error:?}"));
        assert!(decoded.samples[..] == image.bytes()[..], "{round}: {columns} x {rows} x {components}, predictor {}", image.predictor);
        assert_eq!(decoded.precision, precision);
    }
}

/// A ramp, whose data are the same three bits over and over.
fn ramp(columns: usize, rows: usize, lines: usize) -> Image {
    let samples = (0..rows).flat_map(|row| (0..columns).map(move |column| (32768 + row + column) as u16)).collect();
    Image { columns, rows, components: 1, precision: 16, predictor: 1, transform: 0, lines, is_planar: false, samples }
}

#[test]
fn data_that_no_sample_uses_are_errors_and_padding_is_not() {
    let (vector, frame) = vector("restarts_12");
    let end = frame.len() - 2;
    let restart = find(&frame, 0xD0)[0];
    for at in [restart, end] {
        let with = |bytes: &[u8]| [&frame[..at], bytes, &frame[at..]].concat();
        for padding in [&[0u8][..], &[0, 0], &[0xFF, 0], &[0xFF, 0, 0xFF, 0], &[0xFF], &[0xFF; 40], &[0; 40000]] {
            assert_eq!(result(vector, &with(padding)).unwrap().0, vector.samples);
        }
        for surplus in [&[1u8][..], &[0, 0x80], &[0xFF, 0, 0x7F], &[[0; 40000].as_slice(), &[3]].concat()] {
            refused(vector, &with(surplus), Kind::PixelsUndecodable, "no sample uses");
        }
    }
    refused(vector, &patched(&frame, 0xD1, 1, &[0xD2]), Kind::PixelsUndecodable, "restart marker");
    refused(vector, &patched(&frame, 0xD1, 1, &[0xD9]), Kind::PixelsUndecodable, "restart marker");
    refused(vector, &[&frame[..restart], &frame[restart + 2..]].concat(), Kind::PixelsUndecodable, "");
}

#[test]
fn data_end_where_the_samples_end() {
    // Lengths on both sides of what is unstuffed and read at once.
    for columns in [1, 7, 8, 9, 63, 64, 65, 4095, 4096, 4097, 5461, 5462] {
        let image = ramp(columns, 9, 4);
        let frame = image.encode();
        let decoded = decode(&frame, columns as u32, 9, 1).unwrap();
        assert!(decoded.samples[..] == image.bytes()[..]);
        // One line more or less than the data hold.
        for rows in [8u8, 10] {
            let error = decode(&patched(&frame, 0xC3, 5, &[0, rows]), columns as u32, rows.into(), 1).unwrap_err();
            assert_eq!(error.kind(), Kind::PixelsUndecodable);
        }
    }
}

#[test]
fn codes_without_a_meaning_are_errors() {
    let frame = ramp(40, 3, 3).encode();
    let table = find(&frame, 0xC4)[0] + 5 + 16;
    // Categories above 16, and bits that begin no code.
    for symbol in [17, 255] {
        let mut frame = frame.clone();
        frame[table + 1] = symbol;
        let error = decode(&frame, 40, 3, 1).unwrap_err();
        assert!(format!("{error:?}").contains("without a meaning"), "{error:?}");
    }
    let error = decode(&patched(&frame, 0xDA, 10, &[0xFF, 0, 0xFF, 0, 0xFF, 0]), 40, 3, 1).unwrap_err();
    assert!(format!("{error:?}").contains("without a meaning"), "{error:?}");
    // More codes of two bits than there are.
    let error = decode(&patched(&frame, 0xC4, 5, &[0, 5, 0, 0, 0]), 40, 3, 1).unwrap_err();
    assert!(format!("{error:?}").contains("more codes than their length allows"), "{error:?}");
}
