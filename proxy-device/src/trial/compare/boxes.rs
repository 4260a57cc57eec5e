//! The boxes of a detector's answer, in the shapes that model servers use.

use serde_json::{Map, Value};

use super::top;

/// A box with at least this score has to be found in the other answer, where it may have any score:
/// one that lies at the detector's own threshold comes and goes with nothing.
const CONFIDENT: f64 = 0.5;
/// Least intersection over union of boxes that are the same.
const SAME: f64 = 0.5;
/// Boxes of an answer; with more of them nothing is compared.
const MOST: usize = 1000;

const ONE: [&str; 6] = [
    "box",
    "bbox",
    "bounding_box",
    "boundingBox",
    "xyxy",
    "bounds",
];
const LISTS: [&str; 5] = [
    "boxes",
    "bboxes",
    "detection_boxes",
    "pred_boxes",
    "dt_boxes",
];
const LIST_LABELS: [&str; 4] = ["labels", "classes", "detection_classes", "class_ids"];
const LIST_SCORES: [&str; 4] = ["scores", "detection_scores", "confidences", "confidence"];
const CORNERS: [[&str; 4]; 4] = [
    ["xmin", "ymin", "xmax", "ymax"],
    ["x_min", "y_min", "x_max", "y_max"],
    ["x1", "y1", "x2", "y2"],
    ["left", "top", "right", "bottom"],
];

#[derive(Debug, Clone, PartialEq)]
struct Found {
    label: Option<String>,
    /// None where the detector tells none.
    score: Option<f64>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// Two corners.
    Corners([f64; 4]),
    /// Two corners, or one and the size: the answer does not say.
    Four([f64; 4]),
}

/// Whether each confident box of one answer has a box in the other, of the same class and at the same
/// place; none if there is no box in either.
pub(super) fn agree(a: &Value, b: &Value) -> Option<bool> {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    find(a, &mut one);
    find(b, &mut other);
    if one.is_empty() && other.is_empty() || one.len().max(other.len()) > MOST {
        return None;
    }
    let corners = one.iter().chain(&other).all(|found| match found.place {
        Place::Corners(_) => true,
        Place::Four([x, y, right, bottom]) => right > x && bottom > y,
    });
    Some(covers(&one, &other, corners) && covers(&other, &one, corners))
}

/// Whether each confident one of them is among the others.
fn covers(all: &[Found], others: &[Found], corners: bool) -> bool {
    let mut free: Vec<&Found> = others.iter().collect();
    let confident = all
        .iter()
        .filter(|found| found.score.is_none_or(|score| score >= CONFIDENT));
    for found in confident {
        let place = found.place.corners(corners);
        let best = free
            .iter()
            .enumerate()
            .filter(|(_, other)| other.label == found.label)
            .map(|(index, other)| (index, overlap(place, other.place.corners(corners))))
            .filter(|(_, overlap)| *overlap >= SAME)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((index, _)) = best else {
            return false;
        };
        free.swap_remove(index);
    }
    true
}

impl Place {
    fn corners(self, four_are_corners: bool) -> [f64; 4] {
        match self {
            Self::Four([x, y, width, height]) if !four_are_corners => [x, y, x + width, y + height],
            Self::Four(corners) | Self::Corners(corners) => corners,
        }
    }
}

/// Intersection over union.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |r: [f64; 4]| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let common = area([
        a[0].max(b[0]),
        a[1].max(b[1]),
        a[2].min(b[2]),
        a[3].min(b[3]),
    ]);
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

fn find(value: &Value, boxes: &mut Vec<Found>) {
    match value {
        Value::Array(list) => list.iter().for_each(|entry| find(entry, boxes)),
        Value::Object(map) => {
            if let Some(found) = one(map) {
                boxes.push(found);
            } else if let Some(found) = several(map) {
                boxes.extend(found);
            } else {
                map.values().for_each(|entry| find(entry, boxes));
            }
        }
        _ => {}
    }
}

/// An object that is a box, or has one.
fn one(map: &Map<String, Value>) -> Option<Found> {
    let (label, score) = (top::label(map), top::score(map));
    let named = ONE.iter().find_map(|name| place(map.get(*name)?));
    if let Some(place) = named.or_else(|| of_fields(map)) {
        return Some(Found {
            label,
            score,
            place,
        });
    }
    // TorchServe: {"person": [x1, y1, x2, y2], "score": 0.9}
    let mut others = map.iter().filter(|(name, _)| *name != "score");
    let (name, value) = others.next()?;
    if score.is_none() || others.next().is_some() {
        return None;
    }
    let place = place(value)?;
    let label = Some(name.clone());
    Some(Found {
        label,
        score,
        place,
    })
}

/// Boxes, labels and scores in lists beside each other.
fn several(map: &Map<String, Value>) -> Option<Vec<Found>> {
    let list = |names: &[&str]| names.iter().find_map(|name| map.get(*name)?.as_array());
    let (labels, scores) = (list(&LIST_LABELS), list(&LIST_SCORES));
    let boxes = list(&LISTS)?;
    // One box of four points.
    if let Some(place) = quad(boxes) {
        let (label, score) = (top::label(map), top::score(map));
        return Some(vec![Found {
            label,
            score,
            place,
        }]);
    }
    let found = boxes.iter().enumerate().map(|(index, entry)| {
        Some(Found {
            label: labels.and_then(|labels| Some(labels.get(index)?.to_string())),
            score: scores.and_then(|scores| top::number(scores.get(index)?)),
            place: place(entry)?,
        })
    });
    found.collect()
}

fn place(value: &Value) -> Option<Place> {
    match value {
        Value::Array(list) => quad(list).or_else(|| {
            let four: Option<Vec<f64>> = list.iter().map(top::number).collect();
            four?.try_into().ok().map(Place::Four)
        }),
        Value::Object(map) => of_fields(map),
        _ => None,
    }
}

/// Four points: what they enclose.
fn quad(list: &[Value]) -> Option<Place> {
    let points = list.iter().map(|point| match &point.as_array()?[..] {
        [x, y] => Some((x.as_f64()?, y.as_f64()?)),
        _ => None,
    });
    let points: Vec<_> = points.collect::<Option<_>>()?;
    let [first, ..] = points[..] else {
        return None;
    };
    let around = points
        .iter()
        .fold([first.0, first.1, first.0, first.1], |r, p| {
            [r[0].min(p.0), r[1].min(p.1), r[2].max(p.0), r[3].max(p.1)]
        });
    Some(Place::Corners(around))
}

fn of_fields(map: &Map<String, Value>) -> Option<Place> {
    let get = |name: &str| map.get(name).and_then(top::number);
    let corners = CORNERS.iter().find_map(|names| {
        let [a, b, c, d] = names.map(get);
        Some([a?, b?, c?, d?])
    });
    if let Some(corners) = corners {
        return Some(Place::Corners(corners));
    }
    let (width, height) = (get("width")?, get("height")?);
    if let (Some(left), Some(top)) = (get("left"), get("top")) {
        return Some(Place::Corners([left, top, left + width, top + height]));
    }
    // Roboflow: the middle and the size.
    let (x, y) = (get("x")?, get("y")?);
    let (right, bottom) = (x + width / 2.0, y + height / 2.0);
    Some(Place::Corners([
        right - width,
        bottom - height,
        right,
        bottom,
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes_of_model_servers() {
        for answer in [
            // Hugging Face
            json!([{"label": "cat", "score": 0.9, "box": {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 50}}]),
            // TorchServe
            json!([{"cat": [10, 20, 30, 50], "score": 0.9}]),
            // torchvision, TensorFlow
            json!({"boxes": [[10, 20, 30, 50]], "labels": ["cat"], "scores": [0.9]}),
            // Roboflow
            json!({"image": {"width": 640, "height": 480}, "predictions": [
                {"x": 20, "y": 35, "width": 20, "height": 30, "class": "cat", "confidence": 0.9}]}),
            // COCO
            json!([{"category_id": 1, "category": "cat", "bbox": [10, 20, 20, 30], "score": 0.9}]),
            // Four points
            json!([{"label": "cat", "score": 0.9, "box": [[10, 20], [30, 20], [30, 50], [10, 50]]}]),
        ] {
            let mut found = Vec::new();
            find(&answer, &mut found);
            assert_eq!(found.len(), 1, "{answer}");
            assert_eq!(found[0].score, Some(0.9), "{answer}");
            assert!(
                found[0].label.as_ref().is_some_and(|l| l.contains("cat")),
                "{answer}"
            );
            let corners = !answer.to_string().contains("category");
            let place = found[0].place.corners(corners);
            assert_eq!(format!("{place:?}"), "[10.0, 20.0, 30.0, 50.0]", "{answer}");
        }
    }

    fn answer(boxes: &[(&str, f64, [i32; 4])]) -> Value {
        boxes
            .iter()
            .map(|(label, score, place)| json!({"label": label, "score": score, "bbox": place}))
            .collect()
    }

    #[test]
    fn confident_boxes_have_to_be_found() {
        let cat = ("cat", 0.9, [10, 20, 30, 50]);
        let one = answer(&[cat]);
        for (other, expected) in [
            (answer(&[("cat", 0.6, [11, 21, 31, 51])]), true),
            // Another class, another place, none.
            (answer(&[("dog", 0.9, [10, 20, 30, 50])]), false),
            (answer(&[("cat", 0.9, [28, 20, 48, 50])]), false),
            (json!([]), false),
            // One more that nobody is sure of, and one that somebody is.
            (answer(&[cat, ("dog", 0.3, [0, 0, 5, 5])]), true),
            (answer(&[cat, ("dog", 0.7, [0, 0, 5, 5])]), false),
            // At the threshold.
            (answer(&[("cat", 0.49, [10, 20, 30, 50])]), true),
            // Twice the same is not once.
            (answer(&[cat, cat]), false),
        ] {
            assert_eq!(agree(&one, &other), Some(expected), "{other}");
            assert_eq!(agree(&other, &one), Some(expected), "{other}");
        }
        assert_eq!(agree(&json!({}), &json!([])), None);
    }

    #[test]
    fn a_corner_and_a_size_are_told_from_two_corners() {
        // The second has less width than x: no corner.
        let wide = answer(&[
            ("a", 0.9, [100, 100, 300, 300]),
            ("b", 0.9, [500, 500, 50, 50]),
        ]);
        let moved = answer(&[
            ("a", 0.9, [110, 110, 300, 300]),
            ("b", 0.9, [505, 505, 50, 50]),
        ]);
        assert_eq!(agree(&wide, &moved), Some(true));
    }
}
