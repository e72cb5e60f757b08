//! Pixels: rectangles, letters, and the way to a PNG.

use std::io::{self, Write};

use super::font;

/// Red, green, blue.
pub(super) type Colour = [u8; 3];

/// An 8-bit RGB picture. What is drawn outside of it is not drawn.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize, background: Colour) -> Canvas {
        Canvas { width, height, pixels: vec![background; width * height] }
    }

    pub(super) fn set(&mut self, x: usize, y: usize, colour: Colour) {
        if x < self.width
            && let Some(pixel) = self.pixels.get_mut(y * self.width + x)
        {
            *pixel = colour;
        }
    }

    pub(super) fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        for row in y..y + height {
            (x..x + width).for_each(|column| self.set(column, row, colour));
        }
    }

    /// A frame of one pixel around a rectangle, outside of it.
    pub(super) fn frame(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        let (left, top) = (x.saturating_sub(1), y.saturating_sub(1));
        self.fill(left, top, width + 2, 1, colour);
        self.fill(left, y + height, width + 2, 1, colour);
        self.fill(left, top, 1, height + 2, colour);
        self.fill(x + width, top, 1, height + 2, colour);
    }

    /// Letters from their upper left corner, each pixel `scale` wide.
    pub(super) fn text(&mut self, x: usize, y: usize, scale: usize, colour: Colour, text: &str) {
        for (place, character) in text.chars().enumerate() {
            let left = x + place * (font::WIDTH + 1) * scale;
            for (row, bits) in font::glyph(character).iter().enumerate() {
                for column in (0..font::WIDTH).filter(|column| bits & (1 << (font::WIDTH - 1 - column)) != 0) {
                    self.fill(left + column * scale, y + row * scale, scale, scale, colour);
                }
            }
        }
    }

    /// Writes the picture.
    pub(super) fn write_png(&self, out: &mut dyn Write) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (width, height) = (u32::try_from(self.width).map_err(too_large)?, u32::try_from(self.height).map_err(too_large)?);
        let mut encoder = png::Encoder::new(out, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(into_io)?;
        writer.write_image_data(self.pixels.as_flattened()).map_err(into_io)?;
        writer.finish().map_err(into_io)
    }
}

/// Width of a text in pixels.
pub(super) fn text_width(text: &str, scale: usize) -> usize {
    (text.chars().count() * (font::WIDTH + 1)).saturating_sub(1) * scale
}

/// Height of a text in pixels.
pub(super) fn text_height(scale: usize) -> usize {
    font::HEIGHT * scale
}

fn into_io(error: png::EncodingError) -> io::Error {
    match error {
        png::EncodingError::IoError(error) => error,
        _ => io::Error::from(io::ErrorKind::InvalidInput),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_covers_its_pixels_and_no_other() {
        let mut canvas = Canvas::new(20, 20, [0; 3]);
        canvas.text(2, 3, 2, [9; 3], "L");
        let lit = |x: usize, y: usize| canvas.pixels[y * 20 + x] == [9; 3];
        // An L is a bar of seven pixels with a foot of five, here twice as large.
        for y in 0..20 {
            for x in 0..20 {
                let expected = ((2..4).contains(&x) && (3..17).contains(&y)) || ((2..12).contains(&x) && (15..17).contains(&y));
                assert_eq!(lit(x, y), expected, "{x} {y}");
            }
        }
        assert_eq!((text_width("", 2), text_width("L", 2), text_width("LL", 2), text_height(2)), (0, 10, 22, 14));
    }

    #[test]
    fn drawing_outside_is_no_drawing() {
        let mut canvas = Canvas::new(4, 4, [0; 3]);
        canvas.fill(3, 3, 50, 50, [1; 3]);
        canvas.text(1000, 1000, 3, [2; 3], "X");
        canvas.frame(0, 0, 9, 9, [0; 3]);
        canvas.set(4, 0, [3; 3]);
        assert_eq!(canvas.pixels.iter().filter(|pixel| **pixel == [1; 3]).count(), 1);
        assert!(!canvas.pixels.contains(&[3; 3]));
    }
}
