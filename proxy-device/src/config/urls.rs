//! One base URL, or several.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor, value};
use sidecod_sidecar::upstream::BaseUrl;

/// At least one base URL, http or https: a string or a list of them.
#[derive(Debug, Clone)]
pub struct Urls {
    first: BaseUrl,
    more: Vec<BaseUrl>,
}

impl Urls {
    /// The first.
    #[must_use]
    pub fn first(&self) -> &BaseUrl {
        &self.first
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &BaseUrl> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

impl JsonSchema for Urls {
    fn schema_name() -> Cow<'static, str> {
        "Urls".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore)
    }
}

/// One of a list.
#[derive(Deserialize)]
struct Url(#[serde(deserialize_with = "BaseUrl::http_or_https")] BaseUrl);

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Urls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a base URL, https://host:port, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Urls, E> {
        let first = BaseUrl::http_or_https(value::StrDeserializer::new(text))?;
        Ok(Urls {
            first,
            more: Vec::new(),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Urls, A::Error> {
        let first = list.next_element::<Url>()?;
        let none = || A::Error::custom("no base URL, want http:// or https://host:port");
        let Url(first) = first.ok_or_else(none)?;
        let mut more = Vec::new();
        while let Some(Url(url)) = list.next_element()? {
            more.push(url);
        }
        Ok(Urls { first, more })
    }
}
