//! The picture of a study: what was segmented, at a glance, for people.
//!
//! Up to three planes at one scale with a bar to measure by, through the slices with most mask, the mask outlined by a line of one
//! pixel in each label's colour. Grey runs from the 1st to the 99th percentile of the volume. It says on itself that it is for research.

use std::path::Path;

use super::canvas::{Canvas, Colour, text_height, text_width};
use super::view::{self, Picture, View};
use super::write_atomically;
use crate::error::Result;
use crate::imaging::{Geometry, Volume};
use crate::inference::{Label, Segmentation};

/// Longest side of a plane, in pixels: of one among several, and of a single one.
const SIDE: f64 = 400.0;
const SINGLE_SIDE: f64 = 720.0;

/// Size of letters, and the space around things.
const SCALE: usize = 2;
const MARGIN: usize = 28;
const GUTTER: usize = 34;
const LINE: usize = 30;

/// Smallest width, so that the lines of text have room.
const LEAST_WIDTH: usize = 800;

const BACKGROUND: Colour = [16, 19, 24];
const FRAME: Colour = [44, 52, 64];
const BRIGHT: Colour = [232, 236, 241];
const QUIET: Colour = [139, 150, 165];
const DIRECTION: Colour = [110, 190, 255];
const WARNING: Colour = [240, 180, 80];

/// Colours of labels, in their order in the table; more labels begin again.
const LABELS: [Colour; 6] = [[255, 176, 0], [0, 212, 255], [255, 92, 168], [110, 231, 120], [178, 140, 255], [255, 112, 72]];

/// What the picture says of itself.
const NOTICE: &str = "Research use only - not for diagnosis";

/// One plane, ready to be drawn.
struct Panel {
    view: View,
    title: String,
    picture: Picture,
}

/// As [`super::write_preview_png`].
pub(super) fn write(path: &Path, volume: &Volume, mask: Option<&Segmentation>, caption: &str) -> Result<()> {
    let canvas = draw(volume, mask, caption);
    write_atomically(path, &mut |out| canvas.write_png(out))
}

fn draw(volume: &Volume, mask: Option<&Segmentation>, caption: &str) -> Canvas {
    let geometry = volume.geometry();
    let (scale, panels) = panels(volume, mask);
    let window = window(volume.channel(0));
    let cell = |panel: &Panel| panel.picture.width.max(text_width(&panel.title, SCALE)) + 2 * GUTTER;
    let planes: usize = panels.iter().map(cell).sum();
    let tallest = panels.iter().map(|panel| panel.picture.height).max().unwrap_or(0);
    let labels: &[Label] = mask.map_or(&[], Segmentation::table);
    let width = planes.max(LEAST_WIDTH) + 2 * MARGIN;
    let top = MARGIN + 2 * LINE + GUTTER;
    let below = top + tallest + GUTTER;
    let legend = below + LINE + 6;
    let footer = if labels.is_empty() { legend } else { legend + LINE };
    let mut canvas = Canvas::new(width, footer + text_height(SCALE) + MARGIN, BACKGROUND);

    canvas.text(MARGIN, MARGIN, SCALE, BRIGHT, &fitted(caption, width - 2 * MARGIN));
    canvas.text(MARGIN, MARGIN + LINE, SCALE, QUIET, &fitted(&facts(geometry, volume, window), width - 2 * MARGIN));
    let mut left = MARGIN + (width - 2 * MARGIN - planes) / 2;
    for panel in &panels {
        let wide = cell(panel);
        let x = left + (wide - panel.picture.width) / 2;
        let y = top + (tallest - panel.picture.height) / 2;
        draw_panel(&mut canvas, panel, x, y, window, labels);
        let title = text_width(&panel.title, SCALE);
        canvas.text(left + (wide - title) / 2, below + 4, SCALE, QUIET, &panel.title);
        left += wide;
    }
    draw_legend(&mut canvas, labels, legend, width - MARGIN);
    canvas.text(MARGIN, footer, SCALE, WARNING, NOTICE);
    if !panels.is_empty() {
        draw_bar(&mut canvas, scale, width - MARGIN, footer);
    }
    canvas
}

/// Pixels per millimetre, the same for all planes, and the planes.
fn panels(volume: &Volume, mask: Option<&Segmentation>) -> (f64, Vec<Panel>) {
    let geometry = volume.geometry();
    let views = view::views(geometry);
    let extent = |axis: usize| geometry.dims[axis] as f64 * geometry.spacing_mm[axis];
    let longest = views.iter().flat_map(|view| [extent(view.across.axis), extent(view.down.axis)]).fold(0.0, f64::max);
    let side = if views.len() == 1 { SINGLE_SIDE } else { SIDE };
    let scale = if longest > 0.0 { side / longest } else { 1.0 };
    let panels = views.into_iter().map(|view| {
        let slice = view::choose_slice(&view, geometry, mask);
        let title = format!("{} {}/{}", view.name, slice + 1, geometry.dims[view.normal]);
        let picture = view::sample(&view, slice, volume, mask, scale);
        Panel { view, title, picture }
    });
    (scale, panels.collect())
}

/// 1st and 99th percentile of at most about a million voxels, taken at equal steps.
fn window(voxels: &[f32]) -> (f32, f32) {
    let step = voxels.len().div_ceil(1 << 20).max(1);
    let mut sample: Vec<f32> = voxels.iter().copied().step_by(step).filter(|voxel| voxel.is_finite()).collect();
    if sample.is_empty() {
        return (0.0, 1.0);
    }
    let mut percentile = |hundredths: usize| {
        let at = (sample.len() - 1) * hundredths / 100;
        *sample.select_nth_unstable_by(at, f32::total_cmp).1
    };
    (percentile(1), percentile(99))
}

/// Grey of a value.
fn grey(value: f32, (low, high): (f32, f32)) -> u8 {
    // In f64: the span of two large float32 may exceed float32.
    let span = f64::from(high) - f64::from(low);
    // A constant volume is black below its value and white above; at it, the middle.
    let share = if span > 0.0 { (f64::from(value) - f64::from(low)) / span } else { 0.5 + f64::from(value) - f64::from(low) };
    (share.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// What the volume is: modality, voxels, spacing, window.
fn facts(geometry: &Geometry, volume: &Volume, (low, high): (f32, f32)) -> String {
    let [columns, rows, slices] = geometry.dims;
    let [x, y, z] = geometry.spacing_mm;
    let modality = if volume.modality().is_empty() { String::new() } else { format!("{}   ", volume.modality()) };
    let channels = if volume.channels().len() == 1 { String::new() } else { format!("channel 1 of {}   ", volume.channels().len()) };
    format!("{modality}{channels}{columns} x {rows} x {slices}   {x:.2} x {y:.2} x {z:.2} mm   window {} to {}", short(low), short(high))
}

/// A number in few characters.
fn short(value: f32) -> String {
    if value.abs() >= 100_000.0 {
        format!("{value:.1e}")
    } else if value.abs() >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// A text that fits into a width.
fn fitted(text: &str, width: usize) -> String {
    if text_width(text, SCALE) <= width {
        return text.to_owned();
    }
    let mut kept: String = text.to_owned();
    while !kept.is_empty() && text_width(&kept, SCALE) + text_width("....", SCALE) > width {
        kept.pop();
    }
    kept + "..."
}

fn colour(labels: &[Label], value: u8) -> Colour {
    let place = labels.iter().position(|label| label.value == value).unwrap_or(usize::from(value.saturating_sub(1)));
    LABELS[place % LABELS.len()]
}

fn draw_panel(canvas: &mut Canvas, panel: &Panel, x: usize, y: usize, window: (f32, f32), labels: &[Label]) {
    let Picture { width, height, values, labels: marks } = &panel.picture;
    let mark = |x: usize, y: usize| marks.get(y * width + x).copied().unwrap_or(0);
    for (index, value) in values.iter().enumerate() {
        let (column, row) = (index % width, index / width);
        let here = mark(column, row);
        // The edge of the picture ends a mask as well.
        let is_edge = here != 0
            && (column == 0
                || row == 0
                || column + 1 == *width
                || row + 1 == *height
                || mark(column - 1, row) != here
                || mark(column + 1, row) != here
                || mark(column, row - 1) != here
                || mark(column, row + 1) != here);
        canvas.set(x + column, y + row, if is_edge { colour(labels, here) } else { [grey(*value, window); 3] });
    }
    canvas.frame(x, y, *width, *height, FRAME);
    let (tall, gap) = (text_height(SCALE), 8);
    let View { across, down, .. } = &panel.view;
    let middle = |text: &str| x + (width / 2).saturating_sub(text_width(text, SCALE) / 2);
    let level = y + (height / 2).saturating_sub(tall / 2);
    canvas.text(x.saturating_sub(gap + text_width(&across.from, SCALE)), level, SCALE, DIRECTION, &across.from);
    canvas.text(x + width + gap, level, SCALE, DIRECTION, &across.towards);
    canvas.text(middle(&down.from), y.saturating_sub(gap + tall), SCALE, DIRECTION, &down.from);
    canvas.text(middle(&down.towards), y + height + gap, SCALE, DIRECTION, &down.towards);
}

/// Colours with the labels' names and volumes, as many as fit.
fn draw_legend(canvas: &mut Canvas, labels: &[Label], y: usize, right: usize) {
    let mut x = MARGIN;
    for label in labels {
        let text = format!("{} {:.1} ml", label.name, label.volume_ml);
        let tall = text_height(SCALE);
        let end = x + tall + 8 + text_width(&text, SCALE);
        if end > right {
            canvas.text(x, y, SCALE, QUIET, "...");
            return;
        }
        canvas.fill(x, y, tall, tall, colour(labels, label.value));
        canvas.text(x + tall + 8, y, SCALE, BRIGHT, &text);
        x = end + GUTTER;
    }
}

/// A bar of a round length, with the length beside it.
fn draw_bar(canvas: &mut Canvas, scale: f64, right: usize, y: usize) {
    let length = [100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.1].into_iter().find(|mm| mm * scale <= 160.0).unwrap_or(0.01);
    let pixels = (length * scale).round().clamp(1.0, 160.0) as usize;
    let text = format!("{length} mm");
    let left = right - pixels;
    let level = y + text_height(SCALE) / 2;
    canvas.fill(left, level, pixels, 2, QUIET);
    canvas.fill(left, level - 5, 2, 12, QUIET);
    canvas.fill(right - 2, level - 5, 2, 12, QUIET);
    canvas.text(left - 12 - text_width(&text, SCALE), y, SCALE, QUIET, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_runs_from_the_1st_to_the_99th_percentile() {
        let voxels: Vec<f32> = (0..=1000).map(|n| ((n * 8) % 1001) as f32).collect();
        assert_eq!(window(&voxels), (10.0, 990.0));
        assert_eq!(window(&[f32::NAN, 3.0, f32::INFINITY]), (3.0, 3.0));
        assert_eq!(window(&[f32::NAN]), (0.0, 1.0));
    }

    #[test]
    fn grey_is_linear_in_the_window_and_defined_everywhere() {
        let window = (10.0, 20.0);
        assert_eq!([0.0, 10.0, 12.0, 20.0, 99.0].map(|value| grey(value, window)), [0, 0, 51, 255, 255]);
        assert_eq!([4.0, 5.0, 6.0].map(|value| grey(value, (5.0, 5.0))), [0, 128, 255]);
        assert_eq!([f32::MIN, 0.0, f32::MAX].map(|value| grey(value, (f32::MIN, f32::MAX))), [0, 128, 255]);
    }

    #[test]
    fn texts_fit_and_numbers_are_short() {
        assert_eq!(fitted("short", 1000), "short");
        let cut = fitted(&"x".repeat(500), 300);
        assert!(cut.ends_with("x...") && text_width(&cut, SCALE) <= 300);
        assert_eq!([0.0, -1.5, 99.99, 1024.4, 3.2e9].map(short), ["0", "-1.50", "99.99", "1024", "3.2e9"]);
    }
}
