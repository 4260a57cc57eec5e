//! A picture that is put together from windows.

use super::window::Axis;

/// The windows of a picture and the pixels that they have given so far.
///
/// Samples are held as floats only for the one row of windows that is being added; rows of pixels
/// that no later window touches are rounded at once. Memory: 3 bytes a pixel, and 12 bytes a pixel
/// of a row of windows.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    stride: usize,
    columns: Axis,
    rows: Axis,
    /// Windows that have been added.
    added: usize,
    /// Three planes of a row of windows.
    band: Vec<f32>,
    rgb: Vec<u8>,
}

impl Canvas {
    /// A picture of `width * height` pixels whose latent has `latent` rows and columns. It takes no
    /// memory for pixels before its first window.
    pub fn new(
        (width, height): (u32, u32),
        latent: (usize, usize),
        tile: usize,
        overlap: usize,
        stride: usize,
    ) -> Self {
        Self {
            width: width as usize,
            height: height as usize,
            stride,
            columns: Axis::new(latent.1, tile, overlap, stride),
            rows: Axis::new(latent.0, tile, overlap, stride),
            added: 0,
            band: Vec::new(),
            rgb: Vec::new(),
        }
    }

    /// Rows and columns of each window, in latent places.
    pub fn window(&self) -> (usize, usize) {
        (self.rows.window, self.columns.window)
    }

    /// Windows that are still to be added.
    pub fn left(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len() - self.added
    }

    /// First row and column of the window that is added after `ahead` others.
    pub fn corner(&self, ahead: usize) -> (usize, usize) {
        let (row, column) = self.place(self.added + ahead);
        (self.rows.starts[row], self.columns.starts[column])
    }

    /// Adds the next window: three planes of samples, 0 to 1.
    ///
    /// # Panics
    /// If no window is left or `pixels` has another size.
    pub fn add(&mut self, pixels: &[f32]) {
        let (row, column) = self.place(self.added);
        let (high, wide) = (
            self.rows.window * self.stride,
            self.columns.window * self.stride,
        );
        assert_eq!(pixels.len(), 3 * high * wide, "a window of another size");
        let across = self.across();
        if self.added == 0 {
            self.band = vec![0.0; 3 * high * across];
            self.rgb.reserve_exact(self.width * self.height * 3);
        }
        let left = self.columns.starts[column] * self.stride;
        for (index, line) in pixels.chunks_exact(wide).enumerate() {
            let share = self.rows.shares[row][index % high];
            let target = &mut self.band[index * across + left..][..wide];
            for ((target, sample), column) in target
                .iter_mut()
                .zip(line)
                .zip(&self.columns.shares[column])
            {
                *target += sample * share * column;
            }
        }
        self.added += 1;
        if column + 1 == self.columns.starts.len() {
            self.finish_row(row);
        }
    }

    /// The pixels, row by row, red first.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// Pixels from one row of the band to the next.
    fn across(&self) -> usize {
        (self.columns.starts.last().unwrap_or(&0) + self.columns.window) * self.stride
    }

    /// Row and column, in windows, of a window.
    fn place(&self, index: usize) -> (usize, usize) {
        let columns = self.columns.starts.len();
        (index / columns, index % columns)
    }

    /// Rounds the rows of pixels that are complete, and moves the others up.
    fn finish_row(&mut self, row: usize) {
        let (high, across) = (self.rows.window * self.stride, self.across());
        let top = self.rows.starts[row] * self.stride;
        let next = self.rows.starts.get(row + 1);
        let complete = next.map_or(high, |next| next * self.stride - top);
        let plane = high * across;
        for y in 0..complete.min(self.height - top) {
            let line = |channel| &self.band[channel * plane + y * across..][..self.width];
            for ((red, green), blue) in line(0).iter().zip(line(1)).zip(line(2)) {
                self.rgb.extend([octet(*red), octet(*green), octet(*blue)]);
            }
        }
        if next.is_none() {
            self.band = Vec::new();
            return;
        }
        for plane in self.band.chunks_exact_mut(plane) {
            plane.copy_within(complete * across.., 0);
            plane[(high - complete) * across..].fill(0.0);
        }
    }
}

/// The nearest of 256 values; a cast saturates, and gives 0 for what is no number.
fn octet(sample: f32) -> u8 {
    (sample * 255.0 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds every window of a picture whose samples are `sample(channel, y, x)`.
    fn filled(
        size: (u32, u32),
        tile: usize,
        overlap: usize,
        stride: usize,
        sample: impl Fn(usize, usize, usize) -> f32,
    ) -> Vec<u8> {
        let latent = (
            (size.1 as usize).div_ceil(stride),
            (size.0 as usize).div_ceil(stride),
        );
        let mut canvas = Canvas::new(size, latent, tile, overlap, stride);
        let (high, wide) = canvas.window();
        while canvas.left() > 0 {
            let (top, left) = canvas.corner(0);
            assert!(top + high <= latent.0 && left + wide <= latent.1);
            let mut pixels = Vec::new();
            for channel in 0..3 {
                for y in 0..high * stride {
                    for x in 0..wide * stride {
                        pixels.push(sample(channel, top * stride + y, left * stride + x));
                    }
                }
            }
            canvas.add(&pixels);
        }
        canvas.into_rgb()
    }

    #[test]
    fn windows_give_the_picture_back_without_a_seam() {
        let smooth = |channel: usize, y: usize, x: usize| {
            (y as f32 * 0.7 + x as f32 * 0.4 + channel as f32 * 20.0) / 1024.0
        };
        for size in [(1, 1), (5, 3), (63, 64), (65, 1), (200, 131), (517, 301)] {
            for (tile, overlap, stride) in [(16, 4, 4), (16, 0, 4), (5, 2, 8), (300, 8, 2)] {
                let rgb = filled(size, tile, overlap, stride, smooth);
                assert_eq!(rgb.len(), (size.0 * size.1 * 3) as usize);
                for (index, octet) in rgb.iter().enumerate() {
                    let (place, width) = (index / 3, size.0 as usize);
                    let expected = smooth(index % 3, place / width, place % width) * 255.0;
                    assert!(
                        (f32::from(*octet) - expected).abs() <= 0.51,
                        "{size:?} {tile} {index}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_constant_stays_constant() {
        for level in [0_u8, 1, 77, 128, 254, 255] {
            let rgb = filled((333, 222), 16, 4, 4, |_, _, _| f32::from(level) / 255.0);
            assert!(rgb.iter().all(|octet| *octet == level), "{level}");
        }
    }

    #[test]
    fn windows_that_disagree_are_faded_into_one_another() {
        // Each window is a flat colour of its own: the steps between pixels must be small.
        let mut canvas = Canvas::new((480, 64), (16, 120), 64, 8, 4);
        canvas.add(&vec![0.0; 3 * 64 * 256]);
        canvas.add(&vec![1.0; 3 * 64 * 256]);
        let rgb = canvas.into_rgb();
        for pair in rgb[..480 * 3]
            .chunks_exact(3)
            .collect::<Vec<_>>()
            .windows(2)
        {
            assert!(pair[0][0].abs_diff(pair[1][0]) <= 8);
        }
        assert_eq!((rgb[0], rgb[480 * 3 - 1]), (0, 255));
    }

    #[test]
    fn samples_out_of_range_saturate() {
        let levels = [-1.0, f32::NAN, 2.0];
        let rgb = filled((2, 2), 4, 0, 2, |channel, _, _| levels[channel]);
        assert_eq!(rgb, [0, 0, 255].repeat(4));
    }
}
