//! Windows along one axis of a picture that is too large for one forward.
//!
//! A decoder sees nothing beyond its window, so that it is least sure at the window's border. The
//! windows overlap, and in an overlap the share of each falls linearly towards its own border; the
//! shares of one pixel add up to 1, so that a flat area stays flat.

/// The windows of one axis.
#[derive(Debug, PartialEq)]
pub(super) struct Axis {
    /// Latent places that a window covers.
    pub window: usize,
    /// First latent place of each window, ascending.
    pub starts: Vec<usize>,
    /// Share of each window in each of its pixels.
    pub shares: Vec<Vec<f32>>,
}

impl Axis {
    /// Lays the fewest windows of at most `tile` places over `length` places, as small as they can
    /// be, each inside the axis, evenly spread, neighbours overlapping by `overlap` places or more.
    /// `length`, `tile` and `stride` are at least 1, `overlap` is less than `tile`.
    pub fn new(length: usize, tile: usize, overlap: usize, stride: usize) -> Self {
        let gaps = length.saturating_sub(tile).div_ceil(tile - overlap);
        let window = (length + gaps * overlap).div_ceil(gaps + 1);
        let starts: Vec<usize> = (0..=gaps)
            .map(|index| (index * (length - window)).checked_div(gaps).unwrap_or(0))
            .collect();
        let mut shares: Vec<Vec<f32>> = (0..starts.len())
            .map(|index| {
                let shared = |neighbour: Option<usize>| {
                    neighbour
                        .and_then(|at| starts.get(at))
                        .map(|start| window.saturating_sub(start.abs_diff(starts[index])) * stride)
                };
                let before = shared(index.checked_sub(1));
                let after = shared(Some(index + 1));
                let pixels = window * stride;
                (0..pixels)
                    .map(|at| ramp(at, before).min(ramp(pixels - 1 - at, after)))
                    .collect()
            })
            .collect();
        let mut sums = vec![0.0_f32; length * stride];
        for (start, shares) in starts.iter().zip(&shares) {
            for (sum, share) in sums[start * stride..].iter_mut().zip(shares) {
                *sum += share;
            }
        }
        for (start, shares) in starts.iter().zip(&mut shares) {
            for (share, sum) in shares.iter_mut().zip(&sums[start * stride..]) {
                *share /= sum;
            }
        }
        Self {
            window,
            starts,
            shares,
        }
    }
}

/// Share at distance `at` from a border behind which a neighbour covers `shared` pixels as well.
fn ramp(at: usize, shared: Option<usize>) -> f32 {
    match shared {
        Some(shared) if at < shared => (at as f32 + 0.5) / shared as f32,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_one_window() {
        for length in 1..=64 {
            let axis = Axis::new(length, 64, 8, 4);
            assert_eq!((axis.window, axis.starts), (length, vec![0]));
            assert_eq!(axis.shares, [vec![1.0; length * 4]]);
        }
    }

    #[test]
    fn windows_cover_the_axis_overlap_enough_and_stay_inside() {
        for (tile, overlap) in [(64, 8), (64, 0), (7, 3), (1, 0)] {
            for length in tile + 1..tile * 5 {
                let axis = Axis::new(length, tile, overlap, 2);
                let (window, count) = (axis.window, axis.starts.len());
                assert!(window <= tile);
                assert!(count * window < length + (count - 1) * overlap + count);
                assert_eq!(axis.starts[0], 0);
                assert_eq!(axis.starts.last(), Some(&(length - window)));
                for pair in axis.starts.windows(2) {
                    assert!(pair[0] < pair[1], "{length}: {:?}", axis.starts);
                    assert!(
                        pair[0] + window >= pair[1] + overlap,
                        "{length}: {:?}",
                        axis.starts
                    );
                }
            }
        }
    }

    #[test]
    fn shares_add_up_to_one() {
        for length in [65, 66, 100, 120, 121, 500, 1000] {
            let axis = Axis::new(length, 64, 8, 4);
            let mut sums = vec![0.0; length * 4];
            for (start, shares) in axis.starts.iter().zip(&axis.shares) {
                for (at, share) in shares.iter().enumerate() {
                    assert!(*share > 0.0);
                    sums[start * 4 + at] += share;
                }
            }
            assert!(sums.iter().all(|sum| (sum - 1.0_f32).abs() < 1e-5));
        }
    }

    #[test]
    fn shares_change_gradually() {
        let axis = Axis::new(120, 64, 8, 4);
        assert_eq!(axis.starts, [0, 56]);
        for shares in &axis.shares {
            for pair in shares.windows(2) {
                assert!((pair[0] - pair[1]).abs() < 1.01 / 32.0);
            }
        }
    }
}
