//! Lines of samples: prediction from the neighbours (T.81 H.1.2.1) and the differences added to it.

/// Turns a line of differences into samples. `start` has the predictions of the first sample of each component, `above` is the line above;
/// the components are interleaved.
pub(super) type Line = fn(start: &[u16; 4], above: &[u16], differences: &[u8], line: &mut [u16]);

/// The function for lines of so many components and a predictor of table H.1, if there is one.
pub(super) fn line(components: usize, predictor: usize) -> Option<Line> {
    match components {
        1 => predicted::<1>(predictor),
        2 => predicted::<2>(predictor),
        3 => predicted::<3>(predictor),
        4 => predicted::<4>(predictor),
        _ => None,
    }
}

fn predicted<const COMPONENTS: usize>(predictor: usize) -> Option<Line> {
    Some(match predictor {
        1 => decode::<1, COMPONENTS>,
        2 => decode::<2, COMPONENTS>,
        3 => decode::<3, COMPONENTS>,
        4 => decode::<4, COMPONENTS>,
        5 => decode::<5, COMPONENTS>,
        6 => decode::<6, COMPONENTS>,
        7 => decode::<7, COMPONENTS>,
        _ => return None,
    })
}

/// The prediction from the neighbours to the left, above, and above to the left (table H.1). Samples are numbers of 16 bits without
/// sign, halves are rounded down, and the result is taken modulo 2^16.
#[inline(always)]
fn predict<const PREDICTOR: u8>(left: u16, above: u16, corner: u16) -> u16 {
    let (a, b, c) = (i32::from(left), i32::from(above), i32::from(corner));
    // No sum of three such numbers overflows.
    let prediction = match PREDICTOR {
        1 => a,
        2 => b,
        3 => c,
        4 => a.wrapping_add(b).wrapping_sub(c),
        5 => a.wrapping_add(b.wrapping_sub(c) >> 1),
        6 => b.wrapping_add(a.wrapping_sub(c) >> 1),
        _ => a.wrapping_add(b) >> 1,
    };
    prediction as u16
}

/// A [`Line`] for one predictor.
fn decode<const PREDICTOR: u8, const COMPONENTS: usize>(start: &[u16; 4], above: &[u16], differences: &[u8], line: &mut [u16]) {
    let differences = differences.as_chunks::<2>().0.as_chunks::<COMPONENTS>().0;
    let (Some((first_differences, differences)), Some((first, line)), Some((first_above, above))) =
        (differences.split_first(), line.split_first_chunk_mut::<COMPONENTS>(), above.split_first_chunk::<COMPONENTS>())
    else {
        return;
    };
    for c in 0..COMPONENTS {
        first[c] = start[c].wrapping_add(u16::from_le_bytes(first_differences[c]));
    }
    let (mut left, mut corner) = (*first, *first_above);
    let (pixels, pixels_above) = (line.as_chunks_mut::<COMPONENTS>().0, above.as_chunks::<COMPONENTS>().0);
    for ((pixel, above), difference) in pixels.iter_mut().zip(pixels_above).zip(differences) {
        for c in 0..COMPONENTS {
            left[c] = predict::<PREDICTOR>(left[c], above[c], corner[c]).wrapping_add(u16::from_le_bytes(difference[c]));
        }
        *pixel = left;
        corner = *above;
    }
}

/// A [`Line`] for differences that were added up as they were read.
pub(super) fn summed(_: &[u16; 4], _: &[u16], sums: &[u8], line: &mut [u16]) {
    for (sample, sum) in line.iter_mut().zip(sums.as_chunks::<2>().0) {
        *sample = u16::from_le_bytes(*sum);
    }
}
