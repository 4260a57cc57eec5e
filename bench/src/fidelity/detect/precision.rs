//! Mean average precision as COCO counts it: at ten thresholds of overlap, 101 points of recall.

use std::collections::{BTreeMap, BTreeSet};

use super::boxes::Found;

/// Overlaps from which on a box is the wanted one: 0.5, 0.55, ... 0.95.
const THRESHOLDS: usize = 10;
/// Points of recall at which precision is read.
const POINTS: usize = 101;

/// A found box: in which photo, how sure, and at which thresholds it is a wanted one.
struct Hit {
    photo: usize,
    score: f32,
    right: [bool; THRESHOLDS],
}

#[derive(Default)]
struct Class {
    /// Wanted boxes of each photo.
    wanted: BTreeMap<usize, usize>,
    /// The surest first.
    hits: Vec<Hit>,
}

/// What was found of what was wanted in some photos.
pub struct Table(Vec<Class>);

/// The classes of some boxes.
pub fn classes(photos: &[Vec<Found>]) -> BTreeSet<usize> {
    photos.iter().flatten().map(|each| each.class).collect()
}

impl Table {
    /// Compares, photo by photo. A found box takes the wanted one of its class that it covers most
    /// and that no surer one has taken.
    pub fn new(wanted: &[Vec<Found>], found: &[Vec<Found>]) -> Self {
        let mut all: BTreeMap<usize, Class> = BTreeMap::new();
        for class in classes(wanted) {
            let table = all.entry(class).or_default();
            for (photo, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                let of_class = |boxes: &[Found]| -> Vec<Found> {
                    boxes.iter().copied().filter(|b| b.class == class).collect()
                };
                let (wanted, mut found) = (of_class(wanted), of_class(found));
                if !wanted.is_empty() {
                    table.wanted.insert(photo, wanted.len());
                }
                found.sort_by(|a, b| b.score.total_cmp(&a.score));
                table.hits.extend(hits(photo, &wanted, &found));
            }
            table.hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        Self(all.into_values().collect())
    }

    /// Mean average precision at 0.5, and the mean of that at all thresholds, over a draw of photos,
    /// in which one may stand several times; none if the draw has no wanted box.
    pub fn precision(&self, draw: &[usize]) -> Option<[f64; 2]> {
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        for photo in draw {
            *times.entry(*photo).or_default() += 1;
        }
        let times = |photo: usize| times.get(&photo).copied().unwrap_or(0);
        let (mut first, mut all, mut classes) = (0.0, 0.0, 0);
        for class in &self.0 {
            let wanted: usize = class.wanted.iter().map(|(p, n)| n * times(*p)).sum();
            if wanted == 0 {
                continue;
            }
            classes += 1;
            for threshold in 0..THRESHOLDS {
                let drawn = class
                    .hits
                    .iter()
                    .map(|h| (times(h.photo), h.right[threshold]));
                let average = average_precision(drawn, wanted);
                all += average / THRESHOLDS as f64;
                if threshold == 0 {
                    first += average;
                }
            }
        }
        (classes > 0).then(|| [first / f64::from(classes), all / f64::from(classes)])
    }
}

fn hits(photo: usize, wanted: &[Found], found: &[Found]) -> Vec<Hit> {
    let mut taken = vec![[false; THRESHOLDS]; wanted.len()];
    let mut all = Vec::with_capacity(found.len());
    for each in found {
        let mut right = [false; THRESHOLDS];
        for (threshold, right) in right.iter_mut().enumerate() {
            let least = 0.5 + 0.05 * threshold as f32;
            let free = wanted.iter().enumerate().filter_map(|(at, want)| {
                let overlap = want.rect.overlap(each.rect);
                // The threshold itself counts, whatever rounding does to it.
                (!taken[at][threshold] && overlap >= least - 1e-6).then_some((overlap, at))
            });
            if let Some((_, at)) = free.max_by(|a, b| a.0.total_cmp(&b.0)) {
                taken[at][threshold] = true;
                *right = true;
            }
        }
        all.push(Hit {
            photo,
            score: each.score,
            right,
        });
    }
    all
}

/// Average precision of hits, the surest first, each so many times, right or wrong.
fn average_precision(hits: impl Iterator<Item = (usize, bool)>, wanted: usize) -> f64 {
    let (mut right, mut all) = (0, 0);
    // (recall, precision)
    let mut curve: Vec<(f64, f64)> = Vec::new();
    for (times, is_right) in hits {
        all += times;
        right += if is_right { times } else { 0 };
        if all > 0 {
            curve.push((right as f64 / wanted as f64, right as f64 / all as f64));
        }
    }
    // Precision at a recall is the best at that recall or beyond.
    for at in (1..curve.len()).rev() {
        curve[at - 1].1 = curve[at - 1].1.max(curve[at].1);
    }
    let at_recall = |point: usize| {
        let recall = point as f64 / (POINTS - 1) as f64;
        let at = curve.partition_point(|(reached, _)| *reached < recall - 1e-9);
        curve.get(at).map_or(0.0, |(_, precision)| *precision)
    };
    (0..POINTS).map(at_recall).sum::<f64>() / POINTS as f64
}

#[cfg(test)]
mod tests {
    use super::super::boxes::tests::found;
    use super::*;

    const A: [f32; 4] = [0.0, 0.0, 10.0, 10.0];
    const B: [f32; 4] = [20.0, 20.0, 40.0, 40.0];

    fn precision(wanted: &[Vec<Found>], got: &[Vec<Found>]) -> [f64; 2] {
        let every: Vec<usize> = (0..wanted.len()).collect();
        Table::new(wanted, got).precision(&every).unwrap()
    }

    fn close(got: [f64; 2], expected: [f64; 2]) {
        let near = |i: usize| (got[i] - expected[i]).abs() < 1e-6;
        assert!(near(0) && near(1), "{got:?}, expected {expected:?}");
    }

    #[test]
    fn the_same_boxes_are_perfect_and_no_boxes_are_nothing() {
        let wanted = vec![vec![found(A, 0, 0.9), found(B, 3, 0.5)], vec![]];
        close(precision(&wanted, &wanted), [1.0, 1.0]);
        close(precision(&wanted, &[vec![], vec![]]), [0.0, 0.0]);
        // Boxes that are less sure than all wanted ones cost nothing.
        let mut more = wanted.clone();
        more[1].push(found(A, 0, 0.1));
        close(precision(&wanted, &more), [1.0, 1.0]);
    }

    #[test]
    fn the_other_class_or_photo_is_wrong() {
        let wanted = vec![vec![found(A, 0, 0.9)], vec![]];
        close(
            precision(&wanted, &[vec![found(A, 1, 0.9)], vec![]]),
            [0.0; 2],
        );
        close(
            precision(&wanted, &[vec![], vec![found(A, 0, 0.9)]]),
            [0.0; 2],
        );
    }

    #[test]
    fn a_box_counts_at_the_thresholds_that_it_reaches() {
        // Covers 8 of 10 columns: overlap 0.8, right at 0.5 to 0.8, that is at 7 of 10 thresholds.
        let wanted = vec![vec![found(A, 0, 0.9)]];
        let narrow = vec![vec![found([0.0, 0.0, 8.0, 10.0], 0, 0.9)]];
        close(precision(&wanted, &narrow), [1.0, 0.7]);
    }

    #[test]
    fn known_average_precision() {
        // Two wanted; right, wrong, right: precision 1 up to recall 0.5, then 2/3.
        let wanted = vec![vec![found(A, 0, 0.9), found(B, 0, 0.9)]];
        let far = [90.0, 90.0, 99.0, 99.0];
        let got = vec![vec![found(A, 0, 0.9), found(far, 0, 0.8), found(B, 0, 0.7)]];
        let expected = (51.0 + 50.0 * 2.0 / 3.0) / 101.0;
        close(precision(&wanted, &got), [expected, expected]);
        // The same box twice: the second is wrong, and one is missing.
        let twice = vec![vec![found(A, 0, 0.9), found(A, 0, 0.8)]];
        close(precision(&wanted, &twice), [51.0 / 101.0; 2]);
    }

    #[test]
    fn classes_weigh_alike_and_a_draw_weighs_photos() {
        let wanted = vec![
            vec![found(A, 0, 0.9)],
            vec![found(A, 0, 0.9), found(B, 7, 0.9)],
        ];
        let got = vec![vec![found(A, 0, 0.9)], vec![found(B, 7, 0.9)]];
        let table = Table::new(&wanted, &got);
        close(
            table.precision(&[0, 1]).unwrap(),
            [f64::midpoint(51.0 / 101.0, 1.0); 2],
        );
        close(table.precision(&[0, 0]).unwrap(), [1.0; 2]);
        // Of class 0 three are wanted and two found.
        close(
            table.precision(&[0, 0, 1]).unwrap(),
            [f64::midpoint(67.0 / 101.0, 1.0); 2],
        );
        assert_eq!(table.precision(&[]), None);
    }
}
