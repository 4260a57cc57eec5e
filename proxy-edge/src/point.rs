//! Answers to inputs of which the device has run the model's head: the tail's outputs in the text that
//! the app expects, or a request with the feature for another path of the model server, whose answer
//! is brought into that text.

use std::collections::HashMap;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sidecod_wire::bundle::Point;
use sidecod_wire::header;
use sidecod_wire::interface::Labels;

use crate::fail::Fail;

/// Where a feature goes that this sidecar has no tail for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Name of the bundle, as its manifest says it.
    #[schemars(example = &"block10")]
    pub bundle: String,
    /// Path of the model server, of the Open Inference Protocol, version 2.
    #[serde(deserialize_with = "path")]
    #[schemars(with = "String", example = "/v2/models/tail/infer")]
    pub path: Uri,
    /// Name of the tensor there.
    #[schemars(example = &"feature")]
    pub input: String,
}

fn path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.starts_with('/') {
        return Err(serde::de::Error::custom("must begin with /"));
    }
    text.parse().map_err(serde::de::Error::custom)
}

/// What is done with a bundle's features.
pub struct Place {
    point: Point,
    labels: Labels,
    forward: Option<Forward>,
}

/// An answer of this sidecar's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: String,
}

#[derive(Serialize)]
struct InferRequest<'a> {
    inputs: [InferInput<'a>; 1],
}

#[derive(Serialize)]
struct InferInput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: [usize; 4],
    data: &'a [f32],
}

#[derive(Deserialize)]
struct InferAnswer<'a> {
    #[serde(borrow)]
    outputs: Vec<InferOutput<'a>>,
}

#[derive(Deserialize)]
struct InferOutput<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Place {
    /// A place whose outputs have these labels. With `forward`, the model server has the tail.
    #[must_use]
    pub fn new(point: Point, labels: Labels, forward: Option<Forward>) -> Self {
        Self {
            point,
            labels,
            forward,
        }
    }

    /// Whether the model server has the tail.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        self.forward.is_some()
    }

    /// The answer for the tail's outputs.
    #[must_use]
    pub fn answer(&self, outputs: &[f32]) -> Answered {
        Answered {
            content_type: self.point.answer.content_type.clone(),
            body: self.point.answer.text(outputs, &self.labels),
        }
    }

    /// Makes the head of a device's request that of one for the model server's tail, and gives its
    /// body; none where the tail is here.
    #[must_use]
    pub fn request(&self, parts: &mut Parts, feature: &[f32]) -> Option<Vec<u8>> {
        let Forward { path, input, .. } = self.forward.as_ref()?;
        let [channels, height, width] = self.point.feature;
        let request = InferRequest {
            inputs: [InferInput {
                name: input,
                datatype: "FP32",
                shape: [1, channels, height, width],
                data: feature,
            }],
        };
        let body = serde_json::to_vec(&request).ok()?;
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.path_and_query = path.path_and_query().cloned();
        parts.uri = Uri::from_parts(uri).unwrap_or_else(|_| path.clone());
        parts.method = Method::POST;
        let json = HeaderValue::from_static("application/json");
        parts.headers.insert(CONTENT_TYPE, json.clone());
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
        // They told of the app's body.
        parts.headers.remove(CONTENT_ENCODING);
        parts.headers.remove(header::JSON_LENGTH);
        // The answer is read here, whatever the app would take.
        parts.headers.insert(ACCEPT, json);
        parts.headers.remove(ACCEPT_ENCODING);
        Some(body)
    }

    /// The answer for what the model server says of a feature.
    ///
    /// # Errors
    /// [`Fail::BadAnswer`] if that is not one tensor with as many numbers as the model has outputs.
    pub fn answered(&self, body: &Bytes) -> Result<Answered, Fail> {
        let bad = |what: String| {
            Fail::BadAnswer(format!("the model server's answer to a feature: {what}"))
        };
        let answer: InferAnswer =
            serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
        let output = answer.outputs.first();
        let data = output
            .ok_or_else(|| bad("it has no outputs".to_owned()))?
            .data;
        let outputs = numbers(data).map_err(|error| bad(format!("outputs[0].data: {error}")))?;
        if outputs.len() != self.point.outputs {
            let (found, expected) = (outputs.len(), self.point.outputs);
            return Err(bad(format!("{found} numbers, expected {expected}")));
        }
        Ok(self.answer(&outputs))
    }
}

/// The numbers of a tensor, flat or in one list for each input.
fn numbers(data: &RawValue) -> serde_json::Result<Vec<f32>> {
    let flat = serde_json::from_str(data.get());
    flat.or_else(|_| Ok(serde_json::from_str::<Vec<Vec<f32>>>(data.get())?.concat()))
}

/// Pairs bundles with where their features go.
///
/// # Errors
/// The name of a bundle that is not there, or has no point.
pub fn forwards<'b>(
    list: &[Forward],
    points: impl Iterator<Item = &'b str>,
) -> Result<HashMap<String, Forward>, String> {
    let points: Vec<&str> = points.collect();
    let mut map = HashMap::new();
    for forward in list {
        if !points.contains(&&forward.bundle[..]) {
            return Err(format!(
                "tail: no bundle of the domain feature is named {}, but: {}",
                forward.bundle,
                points.join(", ")
            ));
        }
        map.insert(forward.bundle.clone(), forward.clone());
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidecod_wire::interface::{Answer, Input, Scale};

    fn place(forward: bool) -> Place {
        let point = Point {
            feature: [2, 1, 3],
            outputs: 2,
            input: Input {
                side: 2,
                short_side: 2,
                mean: [0.0; 3],
                std: [1.0; 3],
            },
            answer: Answer {
                content_type: "text/plain".into(),
                values: Scale::None,
                top: 1,
                body: "best $top".into(),
                item: "$label=$value".into(),
            },
        };
        let forward = forward.then(|| Forward {
            bundle: "b".into(),
            path: "/v2/models/tail/infer".parse().unwrap(),
            input: "feature".into(),
        });
        Place::new(point, Labels::parse(b"a\nb", 2).unwrap(), forward)
    }

    #[test]
    fn outputs_become_the_apps_text() {
        let answered = place(false).answer(&[0.5, 2.0]);
        assert_eq!(answered.body, "best \"b\"=2.0");
        assert_eq!(answered.content_type, "text/plain");
    }

    #[test]
    fn a_feature_becomes_an_inference_request() {
        let (mut parts, ()) = http::Request::put("http://edge/predictions/x?y")
            .header("accept-encoding", "gzip")
            .header("inference-header-content-length", "5")
            .header("content-encoding", "gzip")
            .header("x-own", "kept")
            .body(())
            .unwrap()
            .into_parts();
        let body = place(true)
            .request(&mut parts, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.5])
            .unwrap();
        assert_eq!(
            String::from_utf8(body.clone()).unwrap(),
            r#"{"inputs":[{"name":"feature","datatype":"FP32","shape":[1,2,1,3],"data":[1.0,2.0,3.0,4.0,5.0,6.5]}]}"#
        );
        assert_eq!(parts.uri, "http://edge/v2/models/tail/infer");
        assert_eq!(parts.method, Method::POST);
        assert_eq!(parts.headers["x-own"], "kept");
        for of_the_app in [
            "accept-encoding",
            "inference-header-content-length",
            "content-encoding",
        ] {
            assert!(!parts.headers.contains_key(of_the_app), "{of_the_app}");
        }
        assert_eq!(parts.headers["content-length"], body.len().to_string());
        assert!(place(false).request(&mut parts, &[]).is_none());
    }

    #[test]
    fn its_answer_is_read_flat_or_nested_and_checked() {
        let place = place(true);
        for data in ["[0.25, 7]", "[[0.25, 7]]"] {
            let body = format!(r#"{{"id":"x","outputs":[{{"name":"y","data":{data}}}]}}"#);
            assert_eq!(place.answered(&body.into()).unwrap().body, "best \"b\"=7.0");
        }
        for (body, says) in [
            ("nonsense", "expected ident"),
            (r#"{"outputs":[]}"#, "it has no outputs"),
            (r#"{"outputs":[{"data":[1]}]}"#, "1 numbers, expected 2"),
            (r#"{"outputs":[{"data":"x"}]}"#, "outputs[0].data: "),
        ] {
            let error = place.answered(&body.into()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_tail_needs_its_bundle() {
        let list = [place(true).forward.unwrap()];
        assert!(
            forwards(&list, ["b", "c"].into_iter())
                .unwrap()
                .contains_key("b")
        );
        let error = forwards(&list, ["c"].into_iter()).unwrap_err();
        assert!(error.contains("named b, but: c"), "{error}");
    }
}
