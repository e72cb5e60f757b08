//! Siemens mosaics: all slices of a volume as tiles of one image.
//!
//! The tiles form a square as small as the number of slices allows, filled row by row; what is left over is blank. Nothing in the
//! standard describes it: Image Type says MOSAIC, the number of slices is in the CSA header (NumberOfImagesInMosaic, see [`super::csa`])
//! and in (0019,xx0A) of the block `SIEMENS MR HEADER`, and the rest is what SPM (`spm_dicom_convert`), nibabel (`MosaicWrapper`, its page
//! "Siemens mosaic format") and dcm2niix (`set_nii_header_x`, `nii_demosaic`) agree on:
//!
//! * Image Position (Patient) belongs to no pixel of the first slice. Siemens puts a slice as large as the whole mosaic, with the pixels
//!   of the real one, around the centre of the first slice, and gives the position of its first pixel.
//! * The slices follow one another along the CSA header's SliceNormalVector, which may point against row x column: sagittal mosaics
//!   run from right to left by default, and image numbering may be reversed on the console.
//!
//! Positions are given per tile, so that a caller who sorts slices along row x column puts either order right.

use crate::error::{Error, Kind, Result};

/// Least cosine between the slice normal and row x column. Both are written with 5 to 8 decimals; only the sign is used, and 2.5
/// degrees are beyond rounding.
const LEAST_COSINE: f64 = 0.999;
/// How far the length of row x column may be from 1; who judges the stack is stricter.
const LENGTH_TOLERANCE: f64 = 0.01;

/// How an image is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dicom) struct Mosaic {
    count: usize,
    per_side: usize,
    columns: usize,
    rows: usize,
}

/// What the header says about the place of a mosaic.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::dicom) struct Place {
    /// Image Position (Patient).
    pub(in crate::dicom) position: Option<[f64; 3]>,
    /// Image Orientation (Patient): row cosines, column cosines.
    pub(in crate::dicom) orientation: Option<[f64; 6]>,
    /// Pixel Spacing: between rows, between columns.
    pub(in crate::dicom) spacing: Option<[f64; 2]>,
    /// Spacing Between Slices, else Slice Thickness.
    pub(in crate::dicom) thickness: Option<f64>,
    /// SliceNormalVector of the CSA header.
    pub(in crate::dicom) normal: Option<[f64; 3]>,
}

/// Where the tiles' first pixels lie, mm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::dicom) struct Line {
    /// First pixel of the first tile.
    pub(in crate::dicom) origin: [f64; 3],
    /// From each tile to the next.
    pub(in crate::dicom) step: [f64; 3],
}

impl Line {
    /// Position of a tile.
    pub(in crate::dicom) fn at(&self, tile: usize) -> [f64; 3] {
        plus(self.origin, scaled(self.step, tile as f64))
    }
}

/// The number of slices: what the CSA header says (NumberOfImagesInMosaic), what (0019,xx0A) says, or what both say.
pub(super) fn count(csa: Option<&[String]>, private: Option<f64>) -> Result<usize> {
    let whole = |number: f64| {
        let is_count = number.fract() == 0.0 && (1.0..=f64::from(u16::MAX)).contains(&number);
        is_count.then_some(number as usize).ok_or_else(|| Error::new(Kind::DicomMalformed, "the number of images in the mosaic is none"))
    };
    let csa = numbers(csa.unwrap_or_default())?.first().copied().map(whole).transpose()?;
    match (csa, private.map(whole).transpose()?) {
        (Some(csa), Some(private)) if csa != private => {
            Err(Error::new(Kind::DicomMalformed, format!("{csa} or {private} images in the mosaic")))
        }
        (Some(count), _) | (None, Some(count)) => Ok(count),
        // Mosaics of XA systems, and de-identified ones. Guesses from the acquisition's matrix fail where an image was interpolated.
        (None, None) => Err(Error::new(Kind::GeometryMissing, "number of images in the mosaic")),
    }
}

/// The slice normal of the CSA header: three numbers or none.
pub(super) fn normal(csa: Option<&[String]>) -> Result<Option<[f64; 3]>> {
    let numbers = numbers(csa.unwrap_or_default())?;
    if numbers.is_empty() {
        return Ok(None);
    }
    let wrong = |_| Error::new(Kind::DicomMalformed, format!("the slice normal has {} values instead of 3", numbers.len()));
    <[f64; 3]>::try_from(numbers.as_slice()).map(Some).map_err(wrong)
}

impl Mosaic {
    /// A mosaic of a matrix and a number of slices.
    pub(in crate::dicom) fn new(columns: usize, rows: usize, count: usize) -> Result<Mosaic> {
        let root = count.isqrt();
        let per_side = if root.checked_mul(root) == Some(count) { root } else { root + 1 };
        // Zero columns are a multiple of everything.
        let divides = |size: usize| count > 0 && size > 0 && size.is_multiple_of(per_side);
        if !divides(columns) || !divides(rows) {
            return Err(Error::new(Kind::DicomMalformed, format!("{count} images do not tile {columns} columns and {rows} rows")));
        }
        Ok(Mosaic { count, per_side, columns: columns / per_side, rows: rows / per_side })
    }

    /// Number of slices.
    pub(in crate::dicom) fn count(&self) -> usize {
        self.count
    }

    /// Columns and rows of a slice.
    pub(in crate::dicom) fn tile(&self) -> [usize; 2] {
        [self.columns, self.rows]
    }

    /// Where the slices lie.
    pub(in crate::dicom) fn line(&self, place: &Place) -> Result<Line> {
        let missing = |what: &'static str| Error::new(Kind::GeometryMissing, what);
        let position = place.position.ok_or_else(|| missing("position of the mosaic"))?;
        let [a, b, c, d, e, f] = place.orientation.ok_or_else(|| missing("orientation of the mosaic"))?;
        let [between_rows, between_columns] = place.spacing.ok_or_else(|| missing("pixel spacing of the mosaic"))?;
        let (row, column) = ([a, b, c], [d, e, f]);
        // Half of what the mosaic is larger than a slice: from the middle of the one to the middle of the other.
        let excess = |size: usize| (self.per_side - 1) as f64 * size as f64 / 2.0;
        let along_row = scaled(row, excess(self.columns) * between_columns);
        let along_column = scaled(column, excess(self.rows) * between_rows);
        let origin = plus(position, plus(along_row, along_column));
        if self.count == 1 {
            return Ok(Line { origin, step: [0.0; 3] });
        }
        let thickness = place.thickness.map(f64::abs).filter(|thickness| *thickness > 0.0);
        let thickness = thickness.ok_or_else(|| missing("spacing between the slices of the mosaic"))?;
        let step = scaled(direction(cross(row, column), place.normal)?, thickness);
        Ok(Line { origin, step })
    }

    /// Copies a tile out of the samples of the whole image, row by row.
    pub(in crate::dicom) fn cut<T: Copy>(&self, frame: &[T], tile: usize, out: &mut [T]) -> Result<()> {
        let width = self.columns * self.per_side;
        let samples = width.checked_mul(self.rows * self.per_side);
        if samples != Some(frame.len()) || self.columns.checked_mul(self.rows) != Some(out.len()) {
            return Err(Error::new(Kind::PixelsUndecodable, format!("{} samples for {} of a tile", frame.len(), out.len())));
        }
        if tile >= self.count {
            return Err(Error::new(Kind::OutOfRange, format!("tile {tile} of {}", self.count)));
        }
        let (top, left) = (tile / self.per_side * self.rows, tile % self.per_side * self.columns);
        let lines = frame.chunks_exact(width).skip(top);
        for (line, out) in lines.zip(out.chunks_exact_mut(self.columns)) {
            out.iter_mut().zip(line.iter().skip(left)).for_each(|(out, sample)| *out = *sample);
        }
        Ok(())
    }
}

/// The unit vector from slice to slice: row x column, with the sign of the slice normal.
fn direction(across: [f64; 3], normal: Option<[f64; 3]>) -> Result<[f64; 3]> {
    let length = dot(across, across).sqrt();
    if length.is_nan() || (length - 1.0).abs() > LENGTH_TOLERANCE {
        return Err(Error::new(Kind::GeometryInconsistent, "the direction cosines are not two perpendicular directions"));
    }
    let across = scaled(across, 1.0 / length);
    let Some(normal) = normal else {
        // Readers differ here: nibabel takes column x row, dcm2niix lets slices go up, and Siemens numbers sagittal ones against
        // row x column. Only of slices that are mainly transverse, seen from below, do dcm2niix and Siemens' default say the same.
        let [x, y, z] = across;
        return match z > x.abs() && z > y.abs() {
            true => Ok(across),
            false => Err(Error::new(Kind::GeometryMissing, "slice normal of the mosaic, so the order of its slices")),
        };
    };
    let cosine = dot(across, normal) / dot(normal, normal).sqrt();
    if cosine.is_nan() || cosine.abs() < LEAST_COSINE {
        return Err(Error::new(Kind::DicomMalformed, "the slice normal of the mosaic is not perpendicular to its rows and columns"));
    }
    Ok(scaled(across, cosine.signum()))
}

/// Texts as finite numbers.
fn numbers(texts: &[String]) -> Result<Vec<f64>> {
    let number = |text: &String| text.parse().ok().filter(|number: &f64| number.is_finite());
    let numbers: Option<Vec<f64>> = texts.iter().map(number).collect();
    numbers.ok_or_else(|| Error::new(Kind::DicomMalformed, "the CSA header does not hold numbers"))
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cross([a, b, c]: [f64; 3], [d, e, f]: [f64; 3]) -> [f64; 3] {
    [b * f - c * e, c * d - a * f, a * e - b * d]
}

fn scaled(vector: [f64; 3], factor: f64) -> [f64; 3] {
    vector.map(|value| value * factor)
}

fn plus([a, b, c]: [f64; 3], [d, e, f]: [f64; 3]) -> [f64; 3] {
    [a + d, b + e, c + f]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn the_number_of_slices_is_one_that_nothing_contradicts() {
        let of = |csa: Option<&[&str]>, private| count(csa.map(texts).as_deref(), private).map_err(|error| error.kind());
        assert_eq!(of(Some(&["13"]), None), Ok(13));
        assert_eq!(of(None, Some(13.0)), Ok(13));
        assert_eq!(of(Some(&[]), Some(13.0)), Ok(13));
        assert_eq!(of(Some(&["13.0"]), Some(13.0)), Ok(13));
        assert_eq!(of(None, None), Err(Kind::GeometryMissing));
        assert_eq!(of(Some(&[]), None), Err(Kind::GeometryMissing));
        for (csa, private) in [("13", 14.0), ("0", 13.0), ("13", 0.0), ("-4", 4.0), ("4.5", 4.0), ("x", 4.0), ("inf", 4.0), ("1e9", 4.0)] {
            assert_eq!(of(Some(&[csa]), Some(private)), Err(Kind::DicomMalformed), "{csa} {private}");
        }
        assert_eq!(of(None, Some(f64::NAN)), Err(Kind::DicomMalformed));
    }

    #[test]
    fn the_slice_normal_is_three_numbers() {
        let of = |csa: Option<&[&str]>| normal(csa.map(texts).as_deref()).map_err(|error| error.kind());
        assert_eq!(of(None), Ok(None));
        assert_eq!(of(Some(&[])), Ok(None));
        assert_eq!(of(Some(&["0.0", "-0.6", "0.8"])), Ok(Some([0.0, -0.6, 0.8])));
        for wrong in [&["0", "1"] as &[&str], &["0", "0", "1", "0"], &["0", "0", "nan"], &["0", "0", "up"]] {
            assert_eq!(of(Some(wrong)), Err(Kind::DicomMalformed));
        }
    }

    #[test]
    fn the_tiles_fill_the_smallest_square() {
        for (count, per_side) in [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (48, 7), (49, 7), (50, 8), (65535, 256)] {
            let mosaic = Mosaic::new(per_side * 3, per_side * 2, count).unwrap();
            assert_eq!((mosaic.per_side, mosaic.tile(), mosaic.count()), (per_side, [3, 2], count));
        }
        for (columns, rows, count) in [(12, 12, 0), (0, 12, 4), (12, 0, 4), (13, 12, 4), (12, 13, 4), (2, 2, 5), (12, 12, usize::MAX)] {
            let error = Mosaic::new(columns, rows, count).unwrap_err();
            assert_eq!(error.kind(), Kind::DicomMalformed, "{columns} {rows} {count}");
        }
    }

    #[test]
    fn a_tile_is_cut_from_its_place() {
        let mosaic = Mosaic::new(6, 4, 3).unwrap();
        let frame: Vec<u16> = (0..24).collect();
        let mut out = [0; 6];
        for (tile, expected) in [(0, [0, 1, 2, 6, 7, 8]), (1, [3, 4, 5, 9, 10, 11]), (2, [12, 13, 14, 18, 19, 20])] {
            mosaic.cut(&frame, tile, &mut out).unwrap();
            assert_eq!(out, expected);
        }
        assert_eq!(mosaic.cut(&frame, 3, &mut out).unwrap_err().kind(), Kind::OutOfRange);
        assert_eq!(mosaic.cut(&frame[1..], 0, &mut out).unwrap_err().kind(), Kind::PixelsUndecodable);
        assert_eq!(mosaic.cut(&frame, 0, &mut out[1..]).unwrap_err().kind(), Kind::PixelsUndecodable);
    }

    /// 2 x 2 tiles of 3 x 2 pixels, transverse.
    fn place() -> Place {
        Place {
            position: Some([10.0, 20.0, 30.0]),
            orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            spacing: Some([0.5, 2.0]),
            thickness: Some(-4.0),
            normal: Some([0.0, 0.0, 1.0]),
        }
    }

    #[test]
    fn the_first_tile_lies_where_its_centre_was() {
        let mosaic = Mosaic::new(6, 4, 3).unwrap();
        let line = mosaic.line(&place()).unwrap();
        assert_eq!(line, Line { origin: [10.0 + 1.5 * 2.0, 20.0 + 1.0 * 0.5, 30.0], step: [0.0, 0.0, 4.0] });
        assert_eq!(line.at(2), [13.0, 20.5, 38.0]);
        let against = mosaic.line(&Place { normal: Some([0.0, 1e-4, -0.999]), ..place() }).unwrap();
        assert_eq!((against.origin, against.step), (line.origin, [0.0, 0.0, -4.0]));
        // One slice is its own mosaic, and has no next.
        let alone = Mosaic::new(6, 4, 1).unwrap().line(&Place { normal: None, thickness: None, ..place() }).unwrap();
        assert_eq!(alone, Line { origin: [10.0, 20.0, 30.0], step: [0.0; 3] });
    }

    #[test]
    fn what_is_missing_or_contradictory_is_said() {
        let mosaic = Mosaic::new(6, 4, 3).unwrap();
        let kind = |place: Place| mosaic.line(&place).unwrap_err().kind();
        assert_eq!(kind(Place { position: None, ..place() }), Kind::GeometryMissing);
        assert_eq!(kind(Place { orientation: None, ..place() }), Kind::GeometryMissing);
        assert_eq!(kind(Place { spacing: None, ..place() }), Kind::GeometryMissing);
        assert_eq!(kind(Place { thickness: None, ..place() }), Kind::GeometryMissing);
        assert_eq!(kind(Place { thickness: Some(0.0), ..place() }), Kind::GeometryMissing);
        for normal in [[0.0; 3], [0.0, 1.0, 0.0], [0.0, 0.1, 1.0], [f64::MAX; 3]] {
            assert_eq!(kind(Place { normal: Some(normal), ..place() }), Kind::DicomMalformed, "{normal:?}");
        }
        for orientation in [[0.0; 6], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 1.0, 0.0], [f64::MAX; 6]] {
            assert_eq!(kind(Place { orientation: Some(orientation), ..place() }), Kind::GeometryInconsistent);
        }
    }

    #[test]
    fn without_a_slice_normal_only_transverse_slices_have_an_order() {
        let mosaic = Mosaic::new(6, 4, 3).unwrap();
        let line = |orientation| mosaic.line(&Place { orientation: Some(orientation), normal: None, ..place() });
        assert_eq!(line([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).unwrap().step, [0.0, 0.0, 4.0]);
        // Seen from above, coronal, sagittal.
        for orientation in [[1.0, 0.0, 0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]] {
            assert_eq!(line(orientation).unwrap_err().kind(), Kind::GeometryMissing);
        }
    }
}
