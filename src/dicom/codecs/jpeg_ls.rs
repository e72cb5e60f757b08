//! JPEG-LS (ITU-T T.87, ISO/IEC 14495-1), lossless and near-lossless, of one component: transfer syntaxes 1.2.840.10008.1.2.4.80 and .81.
//!
//! It is our own because what the registry has binds a C++ library or trusts the stream. Nothing is allocated before the stream's size is seen to
//! be the image's, every bit is known to be there before it is used, and codes are as long as the standard allows and no longer.

use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Run lengths' exponents (T.87 A.2.1).
const RUN_BITS: [u32; 32] = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// Contexts of the regular mode; two more are for what ends a run (A.3.4, A.7.2).
const CONTEXTS: usize = 365;
/// Bounds of the prediction's correction (A.6.2).
const CORRECTION: std::ops::RangeInclusive<i64> = -128..=127;

/// The samples of one frame.
pub(super) struct Decoded {
    /// Little endian, one byte per sample for up to 8 bits, two beyond.
    pub(super) samples: Plain,
    /// Bits per sample.
    pub(super) precision: u32,
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::PixelsUndecodable, format!("a jpeg-ls frame {what}"))
}

fn unsupported(what: &str) -> Error {
    Error::new(Kind::PixelsUnsupported, format!("a jpeg-ls frame {what}"))
}

/// Decodes a frame whose header must say exactly these columns and rows, and one component.
pub(super) fn decode(frame: &[u8], columns: u32, rows: u32) -> Result<Decoded> {
    let mut reader = Segments { rest: frame.strip_prefix(&[0xFF, 0xD8]).ok_or_else(|| wrong("does not begin as one"))? };
    let (mut precision, mut preset) = (None, Preset::default());
    loop {
        let (marker, segment) = reader.next()?;
        match (marker, segment) {
            // SOF55.
            (0xF7, [bits, y1, y0, x1, x0, components, rest @ ..]) => {
                let size = (u32::from(u16::from_be_bytes([*x1, *x0])), u32::from(u16::from_be_bytes([*y1, *y0])));
                if size != (columns, rows) || *components != 1 || rest.len() != 3 {
                    return Err(wrong("is of another size than the data set says"));
                }
                if !(2..=16).contains(bits) || precision.is_some() {
                    return Err(wrong("has a header that is wrong"));
                }
                precision = Some(u32::from(*bits));
            }
            // LSE: thresholds and such; mapping tables and sizes beyond 65535.
            (0xF8, [1, words @ ..]) => preset = Preset::read(words)?,
            (0xF8, _) => return Err(unsupported("has mapping tables or is oversized")),
            // DRI with an interval.
            (0xDD, interval) if interval.iter().any(|byte| *byte != 0) => return Err(unsupported("has restart intervals")),
            (0xDA, [1, _, table, near, interleave, transform]) => {
                let bits = precision.ok_or_else(|| wrong("has a scan before its header"))?;
                if (*table, *interleave, *transform) != (0, 0, 0) {
                    return Err(unsupported("has a mapping table, a point transform or is interleaved"));
                }
                let coding = Coding::new(bits, i64::from(*near), &preset)?;
                return Scan::new(coding, reader.rest).image(columns as usize, rows as usize, bits);
            }
            (0xDA, _) => return Err(wrong("has a scan of several components")),
            (0xF7, _) => return Err(wrong("has a header that is cut short")),
            _ => {}
        }
    }
}

/// Marker segments up to the scan.
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    /// The next marker's low byte, and its segment without the length.
    fn next(&mut self) -> Result<(u8, &'a [u8])> {
        let cut = || wrong("has a segment that is cut short");
        // Fill bytes may stand before a marker (T.81 B.1.1.2).
        while let [0xFF, 0xFF, ..] = self.rest {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        let [0xFF, marker, high, low, rest @ ..] = self.rest else { return Err(cut()) };
        if matches!(marker, 0x00..=0xBF | 0xD0..=0xD9) {
            return Err(wrong("has no scan"));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low])).checked_sub(2).ok_or_else(cut)?;
        let (segment, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        Ok((*marker, segment))
    }
}

/// What a stream may say about its coding; 0 means the usual (C.2.4.1.1).
#[derive(Default)]
struct Preset {
    most: i64,
    thresholds: [i64; 3],
    reset: i64,
}

impl Preset {
    fn read(words: &[u8]) -> Result<Preset> {
        let (words, rest) = words.as_chunks::<2>();
        let values: Vec<i64> = words.iter().map(|word| i64::from(u16::from_be_bytes(*word))).collect();
        match (values.as_slice(), rest) {
            ([most, a, b, c, reset], []) => Ok(Preset { most: *most, thresholds: [*a, *b, *c], reset: *reset }),
            _ => Err(wrong("has coding parameters of another size")),
        }
    }
}

/// The parameters of a scan.
struct Coding {
    /// MAXVAL.
    most: i64,
    near: i64,
    /// Width of a step of quantized errors.
    step: i64,
    /// RANGE.
    range: i64,
    /// Bits of a quantized error.
    error_bits: u32,
    /// LIMIT.
    limit: u32,
    thresholds: [i64; 3],
    reset: i64,
}

impl Coding {
    fn new(bits: u32, near: i64, preset: &Preset) -> Result<Coding> {
        let or = |value: i64, usual: i64| if value == 0 { usual } else { value };
        let most = or(preset.most, (1 << bits) - 1);
        if !(1..1 << bits).contains(&most) || near > (most / 2).min(255) {
            return Err(wrong("has coding parameters out of range"));
        }
        let clamp = |value: i64, least: i64| if value > most || value < least { least } else { value };
        let [a, b, c] = if most >= 128 {
            let factor = (most.min(4095) + 128) / 256;
            [factor + 2 + 3 * near, factor * 4 + 3 + 5 * near, factor * 17 + 4 + 7 * near]
        } else {
            let factor = 256 / (most + 1);
            [(3 / factor + 3 * near).max(2), (7 / factor + 5 * near).max(3), (21 / factor + 7 * near).max(4)]
        };
        let [first, second, third] = preset.thresholds;
        let first = or(first, clamp(a, near + 1));
        let second = or(second, clamp(b, first));
        let third = or(third, clamp(c, second));
        let reset = or(preset.reset, 64);
        let is_ordered = near < first && first <= second && second <= third && third <= most;
        if !is_ordered || !(3..=most.max(255)).contains(&reset) {
            return Err(wrong("has coding parameters out of range"));
        }
        let step = 2 * near + 1;
        let range = (most + 2 * near) / step + 1;
        let bits_of = |values: i64| i64::BITS - (values - 1).leading_zeros();
        let sample_bits = bits_of(most + 1).max(2);
        let limit = 2 * (sample_bits + sample_bits.max(8));
        Ok(Coding { most, near, step, range, error_bits: bits_of(range), limit, thresholds: [first, second, third], reset })
    }

    /// A.3.3.
    fn quantized(&self, gradient: i64) -> i64 {
        let [first, second, third] = self.thresholds;
        let size = match gradient.abs() {
            size if size <= self.near => 0,
            size if size < first => 1,
            size if size < second => 2,
            size if size < third => 3,
            _ => 4,
        };
        if gradient < 0 { -size } else { size }
    }

    /// A sample from its prediction and quantized error (A.4.4, A.4.5).
    fn sample(&self, predicted: i64, error: i64) -> i64 {
        let mut value = predicted + error * self.step;
        if value < -self.near {
            value += self.range * self.step;
        } else if value > self.most + self.near {
            value -= self.range * self.step;
        }
        value.clamp(0, self.most)
    }
}

/// What was seen in a context (A.6). A bound on each: errors are at most RANGE, and all halve after `reset` samples.
#[derive(Clone, Copy)]
struct Context {
    /// Sum of the errors' sizes.
    sizes: i64,
    /// Sum of the errors, and in a run's context the number of negative ones.
    sum: i64,
    correction: i64,
    count: i64,
}

impl Context {
    /// The Golomb parameter for a sum of sizes (A.5.1). The sum is below 2^33, so the loop ends.
    fn parameter(&self, sizes: i64) -> u32 {
        let mut k = 0;
        while self.count << k < sizes {
            k += 1;
        }
        k
    }

    /// A.6.1 and A.6.2.
    fn learn(&mut self, error: i64, coding: &Coding) {
        self.sum += error * coding.step;
        self.sizes += error.abs();
        if self.count == coding.reset {
            self.sizes >>= 1;
            // Rounds down towards minus infinity, as the standard's code does.
            self.sum >>= 1;
            self.count >>= 1;
        }
        self.count += 1;
        if self.sum <= -self.count {
            self.sum = (self.sum + self.count).max(1 - self.count);
            self.correction = (self.correction - 1).max(*CORRECTION.start());
        } else if self.sum > 0 {
            self.sum = (self.sum - self.count).min(0);
            self.correction = (self.correction + 1).min(*CORRECTION.end());
        }
    }
}

/// A scan while it is decoded.
struct Scan<'a> {
    coding: Coding,
    bits: Bits<'a>,
    contexts: [Context; CONTEXTS + 2],
    run_index: usize,
}

impl<'a> Scan<'a> {
    fn new(coding: Coding, data: &'a [u8]) -> Scan<'a> {
        let sizes = ((coding.range + 32) / 64).max(2);
        let context = Context { sizes, sum: 0, correction: 0, count: 1 };
        Scan { coding, bits: Bits { data, buffer: 0, held: 0, after_ff: false }, contexts: [context; CONTEXTS + 2], run_index: 0 }
    }

    fn image(mut self, columns: usize, rows: usize, precision: u32) -> Result<Decoded> {
        let width = if precision <= 8 { 1 } else { 2 };
        let length = columns.checked_mul(rows).and_then(|pixels| pixels.checked_mul(width));
        let mut samples = Plain::default();
        let reserved = length.and_then(|length| samples.try_reserve_exact(length).ok());
        reserved.ok_or_else(|| Error::new(Kind::OutOfMemory, "a jpeg-ls frame"))?;
        // A sample of border to the left and to the right, so that no line has edges (A.2.1).
        let (mut above, mut line) = (vec![0i64; columns + 2], vec![0i64; columns + 2]);
        for _ in 0..rows {
            above[columns + 1] = above[columns];
            line[0] = above[1];
            self.line(&above, &mut line, columns)?;
            let values = &line[1..=columns];
            match width {
                1 => samples.extend(values.iter().map(|value| value.to_le_bytes()[0])),
                _ => samples.extend(values.iter().flat_map(|value| (*value as u16).to_le_bytes())),
            }
            std::mem::swap(&mut above, &mut line);
        }
        zeroize::Zeroize::zeroize(&mut above);
        zeroize::Zeroize::zeroize(&mut line);
        Ok(Decoded { samples, precision })
    }

    fn line(&mut self, above: &[i64], line: &mut [i64], columns: usize) -> Result<()> {
        let mut at = 1;
        while at <= columns {
            let (a, b, c, d) = (line[at - 1], above[at], above[at - 1], above[at + 1]);
            let coding = &self.coding;
            let context = 81 * coding.quantized(d - b) + 9 * coding.quantized(b - c) + coding.quantized(c - a);
            if context == 0 {
                at = self.run(above, line, at, columns)?;
                continue;
            }
            line[at] = self.regular(context, a, b, c)?;
            at += 1;
        }
        Ok(())
    }

    /// Regular mode (A.4 to A.6).
    fn regular(&mut self, context: i64, a: i64, b: i64, c: i64) -> Result<i64> {
        let sign = context.signum();
        // At most 4 * (81 + 9 + 1) = 364.
        let context = &mut self.contexts[context.unsigned_abs() as usize];
        let edge = match c {
            c if c >= a.max(b) => a.min(b),
            c if c <= a.min(b) => a.max(b),
            c => a + b - c,
        };
        let predicted = (edge + sign * context.correction).clamp(0, self.coding.most);
        let k = context.parameter(context.sizes);
        let mapped = self.bits.golomb(k, self.coding.limit, self.coding.error_bits)?;
        let is_turned = self.coding.near == 0 && k == 0 && 2 * context.sum <= -context.count;
        let half = mapped >> 1;
        let error = match (mapped & 1 == 1, is_turned) {
            (false, false) => half,
            (true, false) => -half - 1,
            (true, true) => half,
            (false, true) => -half - 1,
        };
        if error.abs() > self.coding.range {
            return Err(wrong("holds an error out of range"));
        }
        context.learn(error, &self.coding);
        Ok(self.coding.sample(predicted, sign * error))
    }

    /// Run mode (A.7): equal samples, and the one that ends them. Answers where the line goes on.
    fn run(&mut self, above: &[i64], line: &mut [i64], start: usize, columns: usize) -> Result<usize> {
        let value = line[start - 1];
        let mut at = start;
        while self.bits.read(1)? == 1 {
            let whole = 1usize << RUN_BITS[self.run_index];
            let count = whole.min(columns + 1 - at);
            line[at..at + count].fill(value);
            at += count;
            if count == whole && self.run_index < RUN_BITS.len() - 1 {
                self.run_index += 1;
            }
            if at > columns {
                return Ok(at);
            }
        }
        let count = self.bits.read(RUN_BITS[self.run_index])? as usize;
        // The sample that ends the run lies in the line, too.
        if count > columns - at {
            return Err(wrong("has a run beyond its line"));
        }
        line[at..at + count].fill(value);
        at += count;
        line[at] = self.interruption(value, above[at])?;
        self.run_index = self.run_index.saturating_sub(1);
        Ok(at + 1)
    }

    /// The sample that ends a run (A.7.2).
    fn interruption(&mut self, a: i64, b: i64) -> Result<i64> {
        let is_near = (a - b).abs() <= self.coding.near;
        let kind = i64::from(is_near);
        let (predicted, sign) = if is_near { (a, 1) } else { (b, if a > b { -1 } else { 1 }) };
        let context = &mut self.contexts[CONTEXTS + usize::from(is_near)];
        let k = context.parameter(context.sizes + if is_near { context.count >> 1 } else { 0 });
        let limit = self.coding.limit - RUN_BITS[self.run_index] - 1;
        let mapped = self.bits.golomb(k, limit, self.coding.error_bits)?;
        let doubled = mapped + kind;
        let odd = doubled & 1;
        let size = (doubled + odd) >> 1;
        let is_negative = (k != 0 || 2 * context.sum >= context.count) == (odd == 1);
        let error = if is_negative { -size } else { size };
        if size > self.coding.range {
            return Err(wrong("holds an error out of range"));
        }
        context.sum += i64::from(error < 0);
        context.sizes += (mapped + 1 - kind) >> 1;
        if context.count == self.coding.reset {
            context.sizes >>= 1;
            context.count >>= 1;
            context.sum >>= 1;
        }
        context.count += 1;
        Ok(self.coding.sample(predicted, sign * error))
    }
}

/// The bits of a scan: after a byte of ones the next one has seven (A.1).
struct Bits<'a> {
    data: &'a [u8],
    /// Bits that were read from `data` and not used, from the highest down.
    buffer: u64,
    held: u32,
    after_ff: bool,
}

impl Bits<'_> {
    /// Takes in bytes while there is room. A marker ends the scan.
    fn fill(&mut self) {
        while self.held <= 56 {
            let Some((byte, rest)) = self.data.split_first() else { return };
            let width = if self.after_ff { 7 } else { 8 };
            let is_marker = if self.after_ff { *byte > 0x7F } else { *byte == 0xFF && rest.first().is_none_or(|next| *next > 0x7F) };
            if is_marker {
                self.data = &[];
                return;
            }
            self.buffer |= u64::from(*byte) << (64 - width - self.held);
            self.held += width;
            self.after_ff = *byte == 0xFF;
            self.data = rest;
        }
    }

    fn have(&mut self, count: u32) -> Result<()> {
        if self.held < count {
            self.fill();
        }
        if self.held < count { Err(wrong("ends early")) } else { Ok(()) }
    }

    /// At most 32 bits.
    fn read(&mut self, count: u32) -> Result<u64> {
        if count == 0 {
            return Ok(0);
        }
        self.have(count)?;
        let value = self.buffer >> (64 - count);
        self.buffer <<= count;
        self.held -= count;
        Ok(value)
    }

    /// A Golomb code of limited length (A.5.3).
    fn golomb(&mut self, k: u32, limit: u32, error_bits: u32) -> Result<i64> {
        let most = limit.saturating_sub(error_bits + 1);
        let mut zeros = 0;
        loop {
            self.have(1)?;
            let here = self.buffer.leading_zeros().min(self.held);
            zeros += here;
            if zeros > most {
                return Err(wrong("holds a code without a meaning"));
            }
            self.buffer = self.buffer.checked_shl(here).unwrap_or(0);
            self.held -= here;
            if self.held > 0 {
                break;
            }
        }
        self.read(1)?;
        let value = if zeros < most { u64::from(zeros) << k | self.read(k)? } else { self.read(error_bits)? + 1 };
        Ok(value as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let digits: Vec<u8> = hexadecimal.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
        digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect()
    }

    /// T.87 H.3, the standard's own example.
    const EXAMPLE: &str =
        "FFD8 FFF7000B08000400040101 1100 FFDA000801010000 0000 C000006C80208E01C0000057400000 6EE6000001BC18000005D80000 9160 FFD9";

    #[test]
    fn the_example_of_the_standard_comes_out() {
        let decoded = decode(&bytes(EXAMPLE), 4, 4).unwrap();
        let expected = [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
        assert_eq!((decoded.samples.to_vec(), decoded.precision), (expected.to_vec(), 8));
    }

    /// Frames that CharLS made (by imagecodecs), with the digests of what CharLS makes of them.
    fn vectors() -> Vec<(String, Vec<u8>, u32, u32, String)> {
        let json: serde_json::Value = serde_json::from_str(include_str!("../../../tests/data/jpeg_ls.json")).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let size = |value: &serde_json::Value| value.as_u64().unwrap() as u32;
        let vectors = json.as_array().unwrap().iter();
        vectors.map(|v| (text(&v["name"]), bytes(&text(&v["frame"])), size(&v["columns"]), size(&v["rows"]), text(&v["sha256"]))).collect()
    }

    #[test]
    fn frames_of_charls_decode_to_its_samples() {
        for (name, frame, columns, rows, sha256) in vectors() {
            let decoded = decode(&frame, columns, rows).unwrap_or_else(|error| panic!("{name}: {error}"));
            let digest: String = Sha256::digest(decoded.samples.as_slice()).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, sha256, "{name}");
        }
    }

    #[test]
    fn damage_is_an_answer_and_a_cut_is_an_error() {
        for (name, frame, columns, rows, _) in vectors() {
            // The end marker may be missing; the last byte of the scan holds bits, except where the encoder padded.
            for cut in 0..frame.len() - 4 {
                let outcome = decode(&frame[..cut], columns, rows);
                assert!(outcome.is_err(), "{name} cut at {cut}");
            }
            for at in 0..frame.len() {
                for value in [0, 1, 0x7F, 0x80, 0xFF, frame[at] ^ 0x10] {
                    let mut damaged = frame.clone();
                    damaged[at] = value;
                    let _ = decode(&damaged, columns, rows);
                }
            }
        }
    }

    #[test]
    fn another_size_is_refused_before_anything_is_allocated() {
        for (columns, rows) in [(5, 4), (4, 5), (65_535, 65_535)] {
            assert_eq!(decode(&bytes(EXAMPLE), columns, rows).err().unwrap().kind(), Kind::PixelsUndecodable);
        }
    }
}
