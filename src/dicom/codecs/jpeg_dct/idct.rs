//! The inverse discrete cosine transform: dequantisation, the transform proper, the level shift and the clamping to the range.
//!
//! T.81 A.3.3 defines the transform over the reals and leaves the arithmetic to the decoder. This one gives bit for bit the results
//! of the Independent JPEG Group's accurate integer method, which DICOM toolkits use: the factorisation of Loeffler, Ligtenberg and
//! Moschytz (ICASSP 1989) with constants of 13 fractional bits, columns first, with 2 further fractional bits kept between the
//! passes (1 for 12-bit samples). Nothing is rounded inside a pass, so any arrangement of the sums gives the same integers; here
//! the rotations of the odd part are multiplied out into one matrix, whose entries are sums of the method's constants.

use std::num::Wrapping;

/// Quantisation steps in zigzag order.
pub(super) type Steps = [u16; 64];

/// Sums of the transform. They cannot overflow: an input is below 2^31, and a pass adds at most 17 bits and keeps 2 to 4 of them as
/// fraction. `Wrapping` only spares the release build's overflow checks in the innermost loop.
type Sum = Wrapping<i64>;

/// Fractional bits of the constants.
const FRACTION: usize = 13;

/// Position in the block, line by line, of each coefficient in zigzag order (T.81 figure A.6).
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42, 49, 56,
    57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A constant of the method with 13 fractional bits; the constants are rounded one by one, before any are added.
const fn fixed(value: f64) -> i64 {
    (value * 8192.0 + 0.5) as i64
}

// The twelve factors of the method, for 8 points scaled by the square root of 8.
const F_0_298: i64 = fixed(0.298631336);
const F_0_390: i64 = fixed(0.390180644);
const F_0_541: i64 = fixed(0.541196100);
const F_0_765: i64 = fixed(0.765366865);
const F_0_899: i64 = fixed(0.899976223);
const F_1_175: i64 = fixed(1.175875602);
const F_1_501: i64 = fixed(1.501321110);
const F_1_847: i64 = fixed(1.847759065);
const F_1_961: i64 = fixed(1.961570560);
const F_2_053: i64 = fixed(2.053119869);
const F_2_562: i64 = fixed(2.562915447);
const F_3_072: i64 = fixed(3.072711026);

/// The odd part: output i of the inputs 1, 3, 5 and 7. Its entries approximate sqrt(2) * cos(odd * pi / 16).
const ODD: [[Sum; 4]; 4] = [
    [Wrapping(F_1_501 - F_0_899 - F_0_390 + F_1_175), Wrapping(F_1_175), Wrapping(F_1_175 - F_0_390), Wrapping(F_1_175 - F_0_899)],
    [Wrapping(F_1_175), Wrapping(F_3_072 - F_2_562 - F_1_961 + F_1_175), Wrapping(F_1_175 - F_2_562), Wrapping(F_1_175 - F_1_961)],
    [Wrapping(F_1_175 - F_0_390), Wrapping(F_1_175 - F_2_562), Wrapping(F_2_053 - F_2_562 - F_0_390 + F_1_175), Wrapping(F_1_175)],
    [Wrapping(F_1_175 - F_0_899), Wrapping(F_1_175 - F_1_961), Wrapping(F_1_175), Wrapping(F_0_298 - F_0_899 - F_1_961 + F_1_175)],
];

/// The part of inputs 2 and 6: one rotation.
const EVEN: [[Sum; 2]; 2] = [[Wrapping(F_0_541 + F_0_765), Wrapping(F_0_541)], [Wrapping(F_0_541), Wrapping(F_0_541 - F_1_847)]];

/// What depends on the precision of the samples.
#[derive(Clone, Copy)]
pub(super) struct Range {
    /// Fractional bits kept between the passes.
    between: usize,
    /// The level shift (T.81 A.3.1): half the range.
    centre: i64,
    /// The largest sample.
    largest: i64,
}

impl Range {
    /// For samples of this many bits.
    pub fn new(precision: u32) -> Range {
        Range { between: if precision == 8 { 2 } else { 1 }, centre: 1 << (precision - 1), largest: (1 << precision) - 1 }
    }

    /// The sample that a result of the transform stands for.
    fn sample(self, value: Sum) -> u16 {
        // Within 0 ..= 4095 after the clamp.
        (value.0 + self.centre).clamp(0, self.largest) as u16
    }
}

/// Divides by a power of two and rounds to nearest, halves upwards.
#[inline(always)]
fn descale(value: Sum, bits: usize) -> Sum {
    (value + (Wrapping(1i64) << (bits - 1))) >> bits
}

/// One transform of 8 points. The results carry [`FRACTION`] more fractional bits than the inputs.
#[inline(always)]
fn eight_points(x: [Sum; 8]) -> [Sum; 8] {
    let (sum, difference) = ((x[0] + x[4]) << FRACTION, (x[0] - x[4]) << FRACTION);
    let outer = EVEN[0][0] * x[2] + EVEN[0][1] * x[6];
    let inner = EVEN[1][0] * x[2] + EVEN[1][1] * x[6];
    let even = [sum + outer, difference + inner, difference - inner, sum - outer];
    let odd = ODD.map(|row| row[0] * x[1] + row[1] * x[3] + row[2] * x[5] + row[3] * x[7]);
    [
        even[0] + odd[0],
        even[1] + odd[1],
        even[2] + odd[2],
        even[3] + odd[3],
        even[3] - odd[3],
        even[2] - odd[2],
        even[1] - odd[1],
        even[0] - odd[0],
    ]
}

/// Turns the coefficients of one block, in zigzag order, into 8 lines of 8 samples, `stride` apart in `plane`. Bit k of `mask` is
/// set where coefficient k may differ from zero.
pub(super) fn block(coefficients: &[i16; 64], mask: u64, steps: &Steps, range: Range, plane: &mut [u16], stride: usize) {
    let last = range.between + 3;
    if mask & !1 == 0 {
        // A flat block. The passes would multiply by 2^13 and divide it out again, so this rounds as they do.
        let dc = Wrapping(i64::from(coefficients[0]) * i64::from(steps[0])) << range.between;
        let sample = range.sample(descale(dc, last));
        for line in plane.chunks_mut(stride).take(8) {
            line[..8].fill(sample);
        }
        return;
    }
    let mut work = [[Wrapping(0i64); 8]; 8];
    let mut columns = 0u8; // bit c: column c has more than its first coefficient
    let mut left = mask;
    while left != 0 {
        let k = left.trailing_zeros() as usize;
        left &= left - 1;
        let (row, column) = (usize::from(ZIGZAG[k] >> 3), usize::from(ZIGZAG[k] & 7));
        work[row][column] = Wrapping(i64::from(coefficients[k]) * i64::from(steps[k]));
        if row > 0 {
            columns |= 1 << column;
        }
    }
    for column in 0..8 {
        if columns >> column & 1 == 0 {
            let flat = work[0][column] << range.between;
            work.iter_mut().for_each(|row| row[column] = flat);
        } else {
            let results = eight_points(work.map(|row| row[column]));
            for (row, result) in work.iter_mut().zip(results) {
                row[column] = descale(result, FRACTION - range.between);
            }
        }
    }
    for (row, line) in work.iter().zip(plane.chunks_mut(stride)) {
        if row[1..].iter().all(|value| value.0 == 0) {
            line[..8].fill(range.sample(descale(row[0], last)));
        } else {
            let results = eight_points(*row);
            for (sample, result) in line.iter_mut().zip(results) {
                *sample = range.sample(descale(result, FRACTION + last));
            }
        }
    }
}
