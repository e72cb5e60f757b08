//! How a volume is looked at: which of its axes run across and down a plane, in which direction, and what lies under a pixel.
//!
//! Planes are shown the way radiologists look at them: the patient's right on the left side of the picture, the front or the head at
//! the top. Each voxel axis stands for the patient axis that it is closest to; of an oblique grid the plane is the grid's own, and the
//! letters at its edges name two directions where one would not be true.

use crate::imaging::{Geometry, Volume};
use crate::inference::Segmentation;

/// A plane through the volume, along its own axes.
pub(super) struct View {
    pub(super) name: &'static str,
    /// Voxel axis that the plane is perpendicular to.
    pub(super) normal: usize,
    /// Voxel axes that run to the right and down in the picture.
    pub(super) across: Direction,
    pub(super) down: Direction,
}

/// A voxel axis with a direction.
pub(super) struct Direction {
    pub(super) axis: usize,
    /// Whether the picture runs against the axis.
    pub(super) reversed: bool,
    /// What lies at the end and at the beginning, seen in the picture.
    pub(super) towards: String,
    pub(super) from: String,
}

/// The planes that are worth looking at: those with at least two voxels both ways.
pub(super) fn views(geometry: &Geometry) -> Vec<View> {
    let directions = [0, 1, 2].map(|axis| direction(geometry, axis));
    let [left, posterior, superior] = closest(&directions);
    let toward = |axis: usize, patient: usize, wanted: f64| {
        let along = directions.get(axis).copied().unwrap_or_default();
        let reversed = along.get(patient).copied().unwrap_or(0.0) * wanted < 0.0;
        let seen = if reversed { along.map(|part| -part) } else { along };
        Direction { axis, reversed, towards: letters(seen), from: letters(seen.map(|part| -part)) }
    };
    let worthwhile = |view: &View| [view.across.axis, view.down.axis].iter().all(|axis| geometry.dims.get(*axis).is_some_and(|n| *n > 1));
    // In LPS, x grows to the patient's left, y to the back, z to the head.
    [
        View { name: "Axial", normal: superior, across: toward(left, 0, 1.0), down: toward(posterior, 1, 1.0) },
        View { name: "Coronal", normal: posterior, across: toward(left, 0, 1.0), down: toward(superior, 2, -1.0) },
        View { name: "Sagittal", normal: left, across: toward(posterior, 1, 1.0), down: toward(superior, 2, -1.0) },
    ]
    .into_iter()
    .filter(worthwhile)
    .collect()
}

/// Unit vector of a voxel axis in LPS.
fn direction(geometry: &Geometry, axis: usize) -> [f64; 3] {
    let [x, y, z, _] = geometry.affine_lps;
    let vector = [x, y, z].map(|row| row.get(axis).copied().unwrap_or(0.0));
    let length = vector.iter().map(|part| part * part).sum::<f64>().sqrt();
    if length > 0.0 && length.is_finite() { vector.map(|part| part / length) } else { [0.0; 3] }
}

/// Voxel axes that are closest to the patient's x, y and z, each used once.
fn closest(directions: &[[f64; 3]; 3]) -> [usize; 3] {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let fit = |order: &[usize; 3]| -> f64 { order.iter().enumerate().map(|(patient, axis)| directions[*axis][patient].abs()).sum() };
    ORDERS.into_iter().fold(ORDERS[0], |best, order| if fit(&order) > fit(&best) { order } else { best })
}

/// Letters of a direction, the strongest first; a second one from about 20 degrees on.
fn letters(vector: [f64; 3]) -> String {
    let mut parts: Vec<(f64, char)> = vector
        .iter()
        .zip([('L', 'R'), ('P', 'A'), ('S', 'I')])
        .map(|(part, (plus, minus))| (part.abs(), if *part < 0.0 { minus } else { plus }))
        .collect();
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    parts.into_iter().take(2).enumerate().filter(|(rank, (part, _))| *rank == 0 || *part > 0.35).map(|(_, (_, letter))| letter).collect()
}

/// A plane as it is shown.
pub(super) struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Voxel values, row by row.
    pub(super) values: Vec<f32>,
    /// Labels, 0 where there is none.
    pub(super) labels: Vec<u8>,
}

/// Slice with most mask, the middle one of equals; without a mask the middle slice.
pub(super) fn choose_slice(view: &View, geometry: &Geometry, mask: Option<&Segmentation>) -> usize {
    let count = geometry.dims.get(view.normal).copied().unwrap_or(1);
    let middle = count / 2;
    let Some(mask) = mask else { return middle };
    let mut marked = vec![0u64; count];
    let [columns, rows, _] = geometry.dims;
    for (index, _) in mask.labels().iter().enumerate().filter(|(_, label)| **label != 0) {
        let place = [index % columns, index / columns % rows, index / columns / rows];
        if let Some(slot) = place.get(view.normal).and_then(|at| marked.get_mut(*at)) {
            *slot += 1;
        }
    }
    let most = marked.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return middle;
    }
    let best = marked.iter().enumerate().filter(|(_, count)| **count == most).map(|(at, _)| at);
    best.min_by_key(|at| at.abs_diff(middle)).unwrap_or(middle)
}

/// Samples one slice at `scale` pixels for each millimetre.
pub(super) fn sample(view: &View, slice: usize, volume: &Volume, mask: Option<&Segmentation>, scale: f64) -> Picture {
    let geometry = volume.geometry();
    let [columns, rows, _] = geometry.dims;
    let strides = [1, columns, columns * rows];
    let at = |axis: usize| (geometry.dims[axis], strides[axis], geometry.spacing_mm[axis]);
    let ((across, across_stride, across_mm), (down, down_stride, down_mm)) = (at(view.across.axis), at(view.down.axis));
    let start = slice * strides[view.normal];
    let horizontal = Resampling::new(across, across_mm * scale, view.across.reversed);
    let vertical = Resampling::new(down, down_mm * scale, view.down.reversed);
    let (width, height) = (horizontal.len(), vertical.len());
    let mut narrow = vec![0.0f32; width * down];
    for (row, line) in narrow.chunks_exact_mut(width).enumerate() {
        let line_start = start + row * down_stride;
        let voxel = |n: usize| volume.channel(0).get(line_start + n * across_stride).copied().filter(|v| v.is_finite()).unwrap_or(0.0);
        for (pixel, out) in line.iter_mut().enumerate() {
            *out = horizontal.mix(pixel, voxel);
        }
    }
    let mut picture = Picture { width, height, values: vec![0.0; width * height], labels: vec![0; width * height] };
    for (y, line) in picture.values.chunks_exact_mut(width).enumerate() {
        for (x, out) in line.iter_mut().enumerate() {
            *out = vertical.mix(y, |n| narrow.get(n * width + x).copied().unwrap_or(0.0));
        }
    }
    if let Some(mask) = mask {
        let label = |row: usize, n: usize| mask.labels().get(start + row * down_stride + n * across_stride).copied().unwrap_or(0);
        // Every marked voxel marks its pixel, so that a small lesion in a large image does not fall between the pixels; then every
        // pixel takes the label under its centre.
        for row in 0..down {
            for n in (0..across).filter(|n| label(row, *n) != 0) {
                if let Some(pixel) = picture.labels.get_mut(vertical.pixel(row) * width + horizontal.pixel(n)) {
                    *pixel = label(row, n);
                }
            }
        }
        for (y, line) in picture.labels.chunks_exact_mut(width).enumerate() {
            for (x, out) in line.iter_mut().enumerate() {
                let under = label(vertical.nearest(y), horizontal.nearest(x));
                *out = if under != 0 { under } else { *out };
            }
        }
    }
    picture
}

/// One axis: pixels over voxels. Enlarging interpolates linearly; shrinking averages over a triangle as wide as a pixel, so that fine
/// structure fades instead of turning into patterns.
struct Resampling {
    voxels: usize,
    pixels: usize,
    per_pixel: f64,
    reversed: bool,
}

impl Resampling {
    fn new(voxels: usize, pixels_per_voxel: f64, reversed: bool) -> Resampling {
        let pixels = ((voxels as f64 * pixels_per_voxel).round().clamp(1.0, 4096.0)) as usize;
        Resampling { voxels, pixels, per_pixel: voxels as f64 / pixels as f64, reversed }
    }

    fn len(&self) -> usize {
        self.pixels
    }

    /// Where a pixel's centre lies, in voxels; the centre of voxel 0 is at 0.
    fn centre(&self, pixel: usize) -> f64 {
        let pixel = if self.reversed { self.pixels - 1 - pixel } else { pixel };
        (pixel as f64 + 0.5) * self.per_pixel - 0.5
    }

    fn nearest(&self, pixel: usize) -> usize {
        self.clamp(self.centre(pixel).round())
    }

    fn clamp(&self, at: f64) -> usize {
        at.clamp(0.0, (self.voxels - 1) as f64) as usize
    }

    /// The pixel that a voxel's centre lies in.
    fn pixel(&self, voxel: usize) -> usize {
        let pixel = (((voxel as f64 + 0.5) / self.per_pixel) as usize).min(self.pixels - 1);
        if self.reversed { self.pixels - 1 - pixel } else { pixel }
    }

    /// Weighted mean of the voxels under a pixel.
    fn mix(&self, pixel: usize, voxel: impl Fn(usize) -> f32) -> f32 {
        let (centre, reach) = (self.centre(pixel), self.per_pixel.max(1.0));
        let centre = centre.clamp(0.0, (self.voxels - 1) as f64);
        let (first, last) = (self.clamp((centre - reach).ceil()), self.clamp((centre + reach).floor()));
        let (mut sum, mut weights) = (0.0f64, 0.0f64);
        for n in first..=last {
            let weight = (1.0 - (n as f64 - centre).abs() / reach).max(0.0);
            sum += weight * f64::from(voxel(n));
            weights += weight;
        }
        if weights > 0.0 { (sum / weights) as f32 } else { voxel(self.clamp(centre.round())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Verdict;

    fn geometry(columns: [[f64; 3]; 3], dims: [usize; 3]) -> Geometry {
        let mut affine = [[0.0; 4]; 4];
        for (axis, vector) in columns.iter().enumerate() {
            (0..3).for_each(|row| affine[row][axis] = vector[row]);
        }
        affine[3][3] = 1.0;
        Geometry { dims, spacing_mm: [1.0; 3], affine_lps: affine, verdict: Verdict::Uniform }
    }

    fn edges(view: &View) -> String {
        format!("{} {}|{} {}|{}", view.name, view.across.from, view.across.towards, view.down.from, view.down.towards)
    }

    #[test]
    fn planes_are_shown_as_radiologists_look_at_them() {
        let (x, y, z) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]);
        let minus = |v: [f64; 3]| v.map(|part| -part);
        // The patient's right on the left, front or head on top, whichever way the voxels run.
        let expected = ["Axial R|L A|P", "Coronal R|L S|I", "Sagittal A|P S|I"];
        for columns in [[x, y, z], [minus(x), y, minus(z)], [y, minus(z), x], [z, x, minus(y)], [minus(y), z, minus(x)]] {
            let views = views(&geometry(columns, [4, 4, 4]));
            assert_eq!(views.iter().map(edges).collect::<Vec<_>>(), expected, "{columns:?}");
        }
        let views = views(&geometry([y, minus(z), x], [4, 4, 4]));
        // Columns run to the back, rows to the feet, slices to the left: a sagittal acquisition.
        assert_eq!((views[0].normal, views[1].normal, views[2].normal), (1, 0, 2));
        assert!(!views[2].across.reversed && !views[2].down.reversed && !views[0].across.reversed);
    }

    #[test]
    fn an_oblique_plane_names_both_directions() {
        let (sine, cosine) = (30f64.to_radians().sin(), 30f64.to_radians().cos());
        let views = views(&geometry([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]], [4, 4, 4]));
        assert_eq!(edges(&views[0]), "Axial RA|LP AL|PR");
    }

    #[test]
    fn a_single_slice_is_one_picture() {
        let axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let views = views(&geometry(axes, [5, 4, 1]));
        assert_eq!(views.iter().map(|view| view.name).collect::<Vec<_>>(), ["Axial"]);
        assert_eq!(self::views(&geometry(axes, [5, 1, 1])).len(), 0);
    }

    #[test]
    fn sampling_keeps_values_ends_and_means() {
        let ramp = |n: usize| n as f32;
        // One pixel for each voxel: the voxels themselves, in either direction.
        let same = Resampling::new(5, 1.0, false);
        assert_eq!((0..5).map(|pixel| same.mix(pixel, ramp)).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        let back = Resampling::new(5, 1.0, true);
        assert_eq!((0..5).map(|pixel| back.mix(pixel, ramp)).collect::<Vec<_>>(), [4.0, 3.0, 2.0, 1.0, 0.0]);
        // Twice as many: centres at -1/4 (held at the edge), 1/4, 3/4, 5/4 …
        let twice = Resampling::new(3, 2.0, false);
        assert_eq!((0..6).map(|pixel| twice.mix(pixel, ramp)).collect::<Vec<_>>(), [0.0, 0.25, 0.75, 1.25, 1.75, 2.0]);
        // A quarter as many: a checkerboard becomes grey.
        let quarter = Resampling::new(64, 0.25, false);
        assert!((1..15).all(|pixel| (quarter.mix(pixel, |n| (n % 2) as f32) - 0.5).abs() < 1e-6));
        for resampling in [same, back, twice, quarter] {
            for voxel in 0..resampling.voxels {
                let pixel = resampling.pixel(voxel);
                assert!((resampling.centre(pixel) - voxel as f64).abs() <= resampling.per_pixel / 2.0 + 1e-9);
            }
        }
    }
}
