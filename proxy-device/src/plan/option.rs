//! The options of a route: the ways in which its inputs may cross.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sidecod_wire::bundle::Manifest;

use crate::config::{Named, Route};
use crate::encode::classical::Classical;
use crate::encode::{Codec, Coding};

/// Name of the option to send the body as it is.
pub const PASSTHROUGH: &str = "passthrough";
/// Name of the option to answer here.
pub const LOCAL: &str = "local";

/// How a request's inputs cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Coded with the bundle.
    Input {
        /// Index of the quality.
        quality: usize,
    },
    /// The model's head runs here, and its feature is coded.
    Head {
        /// Index of the head.
        head: usize,
        /// Index of its bundle's quality.
        quality: usize,
    },
    /// The whole model runs here.
    Local,
    /// Written anew by a classical codec.
    Classical(Classical),
    /// As they are.
    Passthrough,
}

/// How much of the model's answers an option keeps, or has to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fidelity {
    /// Share of inputs with the same first class as without Sidecod, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Mean divergence (Kullback-Leibler) of the answers from those without Sidecod, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
}

impl Fidelity {
    /// That of an input which crosses as it is.
    pub const WHOLE: Self = Self {
        agreement: Some(1.0),
        kl: Some(0.0),
    };

    /// Whether it is as good as `floor` asks; what is not known is not.
    #[must_use]
    pub fn keeps(&self, floor: &Self) -> bool {
        let agreement = floor
            .agreement
            .is_none_or(|least| self.agreement.is_some_and(|agreement| agreement >= least));
        let kl = floor
            .kl
            .is_none_or(|most| self.kl.is_some_and(|kl| kl <= most));
        agreement && kl
    }
}

/// An option of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Its name: `photo:q3`, `webp:80`, `passthrough`.
    pub name: String,
    /// What is done.
    pub kind: Kind,
    /// What it is known to keep.
    pub fidelity: Fidelity,
}

/// What a route offers, and how its inputs are found and coded.
#[derive(Debug)]
pub struct Offer {
    /// Where inputs stand and how they are coded.
    pub coding: Coding,
    /// The options, at least one.
    pub choices: Vec<Choice>,
    /// What an option has to keep.
    pub floor: Fidelity,
    /// Most milliseconds that the device may take.
    pub max_device_ms: Option<f64>,
}

/// The key that is wrong, and why.
type Fault = (&'static str, String);

impl Offer {
    /// What a route offers with a bundle, and with what runs here of the model.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn new(route: &Route, codec: &Codec) -> Result<Self, Fault> {
        let manifest = &codec.bundle().manifest;
        let coding = route.coding()?;
        let mut choices = Vec::new();
        for named in &route.options {
            let choice = choice(named, codec).map_err(|fault| ("options", fault))?;
            if choices
                .iter()
                .any(|other: &Choice| other.name == choice.name)
            {
                return Err(("options", format!("{} is named twice", choice.name)));
            }
            choices.push(choice);
        }
        if choices.is_empty() {
            let first = &manifest.qualities[0].name;
            let name = route.quality.as_ref().unwrap_or(first);
            let quality = quality(manifest, name).map_err(|fault| ("quality", fault))?;
            choices.push(input(manifest, quality));
        } else if route.quality.is_some() {
            return Err(("quality", "name it in options, or leave options out".into()));
        }
        if !choices
            .iter()
            .any(|choice| choice.fidelity.keeps(&route.floor))
        {
            let fault =
                "no option is known to keep it; give options their measured agreement or kl";
            return Err(("floor", fault.into()));
        }
        Ok(Self {
            coding,
            choices,
            floor: route.floor,
            max_device_ms: route.max_device_ms,
        })
    }

    /// Whether requests may be answered here.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.choices.iter().any(|choice| choice.kind == Kind::Local)
    }

    /// The options' names, and which of them keep less than the floor.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let choices = self.choices.iter();
        let name = |choice: &Choice| {
            let below = if choice.fidelity.keeps(&self.floor) {
                ""
            } else {
                " (below the floor)"
            };
            format!("{}{below}", choice.name)
        };
        choices.map(name).collect()
    }

    /// The index of the option of this name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.choices.iter().position(|choice| choice.name == name)
    }
}

fn choice(named: &Named, codec: &Codec) -> Result<Choice, String> {
    let (name, manifest, parts) = (named.name(), &codec.bundle().manifest, codec.parts());
    let heads = || parts.heads().iter().map(|head| &head.bundle().manifest);
    let (first, quality_name) = name.split_once(':').unwrap_or((name, ""));
    let mut choice = match first {
        PASSTHROUGH if name == PASSTHROUGH => Choice {
            name: name.to_owned(),
            kind: Kind::Passthrough,
            fidelity: Fidelity::WHOLE,
        },
        LOCAL if name == LOCAL && parts.local().is_some() => Choice {
            name: name.to_owned(),
            kind: Kind::Local,
            fidelity: Fidelity::WHOLE,
        },
        _ if Classical::is_meant(name) => {
            let codec: Classical = name.parse()?;
            Choice {
                name: codec.to_string(),
                kind: Kind::Classical(codec),
                fidelity: Fidelity::default(),
            }
        }
        first if first == manifest.name => input(manifest, quality(manifest, quality_name)?),
        first => {
            let Some(head) = heads().position(|manifest| manifest.name == first) else {
                let bundles = std::iter::once(manifest).chain(heads());
                let bundles: Vec<_> = bundles.map(|m| format!("{}:QUALITY", m.name)).collect();
                let local = parts.local().map_or("", |_| "local, ");
                return Err(format!(
                    "{name} is none of {}, jpeg:1 to jpeg:100, webp:1 to webp:100, avif:1 to avif:100, {local}{PASSTHROUGH}",
                    bundles.join(", ")
                ));
            };
            let manifest = &parts.heads()[head].bundle().manifest;
            let quality = quality(manifest, quality_name)?;
            Choice {
                kind: Kind::Head { head, quality },
                ..input(manifest, quality)
            }
        }
    };
    let given = named.fidelity();
    choice.fidelity.agreement = given.agreement.or(choice.fidelity.agreement);
    choice.fidelity.kl = given.kl.or(choice.fidelity.kl);
    Ok(choice)
}

/// The option to code with the bundle, with what its manifest reports.
fn input(manifest: &Manifest, quality: usize) -> Choice {
    let of = &manifest.qualities[quality];
    let number = |key: &str| of.report.get(key).and_then(serde_json::Value::as_f64);
    Choice {
        name: format!("{}:{}", manifest.name, of.name),
        kind: Kind::Input { quality },
        fidelity: Fidelity {
            agreement: number("top1_agreement"),
            kl: number("kl_nats"),
        },
    }
}

fn quality(manifest: &Manifest, name: &str) -> Result<usize, String> {
    manifest.quality(name).ok_or_else(|| {
        let known = manifest.qualities.iter().map(|quality| &quality.name[..]);
        let known: Vec<_> = known.collect();
        format!("{} has no {name}, but {}", manifest.name, known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidecod_wire::limits::Limits;

    fn offer(lines: &str) -> Result<Offer, Fault> {
        let route: Route =
            toml::from_str(&format!("name = \"r\"\npath = \"/x\"\n{lines}")).unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../onnx/codecs/photo");
        let codec = Codec::open(folder.as_ref(), Limits::default()).unwrap();
        Offer::new(&route, &codec)
    }

    #[test]
    fn without_options_the_quality_is_the_only_one() {
        let offer = offer("quality = \"q2\"").unwrap();
        assert_eq!(offer.choices.len(), 1);
        assert_eq!(offer.choices[0].name, "photo:q2");
        assert_eq!(offer.choices[0].kind, Kind::Input { quality: 1 });
        assert_eq!(self::offer("").unwrap().choices[0].name, "photo:q1");
    }

    #[test]
    fn options_carry_what_is_reported_or_given() {
        let offer = offer(
            "options = [\"photo:q3\", { name = \"webp:80\", agreement = 0.9 }, \"jpeg:75\", \"passthrough\"]",
        )
        .unwrap();
        let kinds: Vec<_> = offer.choices.iter().map(|choice| choice.kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::Input { quality: 2 },
                Kind::Classical(Classical::WebP(80)),
                Kind::Classical(Classical::Jpeg(75)),
                Kind::Passthrough
            ]
        );
        let [photo, webp, jpeg, whole] = [0, 1, 2, 3].map(|at| offer.choices[at].fidelity);
        assert!(photo.agreement.is_some() && photo.kl.is_some());
        assert_eq!(webp.agreement, Some(0.9));
        let floor = Fidelity {
            agreement: Some(0.85),
            kl: None,
        };
        assert!(webp.keeps(&floor) && whole.keeps(&floor));
        assert!(!jpeg.keeps(&floor), "nothing is known of it");
    }

    #[test]
    fn faults_are_named() {
        for (lines, key, says) in [
            (
                "options = [\"photo:q9\"]",
                "options",
                "photo has no q9, but q1, ",
            ),
            (
                "options = [\"heic:60\"]",
                "options",
                "heic:60 is none of photo:QUALITY, ",
            ),
            (
                "options = [\"jpeg:0\"]",
                "options",
                "jpeg has qualities from 1 to 100",
            ),
            (
                "options = [\"passthrough\", \"passthrough\"]",
                "options",
                "passthrough is named twice",
            ),
            ("quality = \"q7\"", "quality", "photo has no q7"),
            (
                "quality = \"q1\"\noptions = [\"passthrough\"]",
                "quality",
                "name it in options",
            ),
            (
                "options = [\"jpeg:75\"]\nfloor = { agreement = 0.8 }",
                "floor",
                "no option is known to keep it",
            ),
        ] {
            let (found, fault) = offer(lines).unwrap_err();
            assert_eq!(found, key, "{fault}");
            assert!(fault.contains(says), "{fault:?} should say {says:?}");
        }
    }
}
