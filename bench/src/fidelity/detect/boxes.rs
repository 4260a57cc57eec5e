//! Boxes, how far two of them cover each other, and of several on one thing the surest.

/// A box, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    /// Left, top, right and bottom edge.
    pub edges: [f32; 4],
}

/// A thing that a detector found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Where.
    pub rect: Rect,
    /// Index of its class.
    pub class: usize,
    /// How sure, 0 to 1.
    pub score: f32,
}

impl Rect {
    fn area(self) -> f32 {
        let [left, top, right, bottom] = self.edges;
        (right - left).max(0.0) * (bottom - top).max(0.0)
    }

    /// Intersection over union of two boxes, 0 to 1.
    pub fn overlap(self, other: Self) -> f32 {
        let (a, b) = (self.edges, other.edges);
        let both = Self {
            edges: [
                a[0].max(b[0]),
                a[1].max(b[1]),
                a[2].min(b[2]),
                a[3].min(b[3]),
            ],
        };
        let shared = both.area();
        let union = self.area() + other.area() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }
}

/// At most `most` of the boxes, the surest first; none covers a surer one of its class by more than `limit`.
pub fn surest(mut found: Vec<Found>, limit: f32, most: usize) -> Vec<Found> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Found> = Vec::new();
    for each in found {
        let hidden = |k: &Found| k.class == each.class && k.rect.overlap(each.rect) > limit;
        if kept.len() < most && !kept.iter().any(hidden) {
            kept.push(each);
        }
    }
    kept
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn found(edges: [f32; 4], class: usize, score: f32) -> Found {
        Found {
            rect: Rect { edges },
            class,
            score,
        }
    }

    #[test]
    fn overlap_is_shared_area_over_all_area() {
        let rect = |edges| Rect { edges };
        let square = rect([0.0, 0.0, 10.0, 10.0]);
        for (other, expected) in [
            ([0.0, 0.0, 10.0, 10.0], 1.0),
            ([5.0, 0.0, 15.0, 10.0], 50.0 / 150.0),
            ([5.0, 5.0, 15.0, 15.0], 25.0 / 175.0),
            ([10.0, 0.0, 20.0, 10.0], 0.0),
            ([2.0, 2.0, 4.0, 4.0], 4.0 / 100.0),
        ] {
            assert!((square.overlap(rect(other)) - expected).abs() < 1e-6);
        }
        let nothing = rect([3.0; 4]);
        assert!(nothing.overlap(nothing).abs() < 1e-6);
    }

    #[test]
    fn only_the_surest_box_of_a_thing_is_kept() {
        let sure = found([0.0, 0.0, 10.0, 10.0], 1, 0.9);
        let same = found([1.0, 0.0, 11.0, 10.0], 1, 0.8);
        let other_class = found([1.0, 0.0, 11.0, 10.0], 2, 0.7);
        let elsewhere = found([50.0, 0.0, 60.0, 10.0], 1, 0.6);
        let all = vec![elsewhere, same, other_class, sure];
        assert_eq!(surest(all.clone(), 0.6, 9), [sure, other_class, elsewhere]);
        assert_eq!(surest(all, 0.6, 2), [sure, other_class]);
    }
}
