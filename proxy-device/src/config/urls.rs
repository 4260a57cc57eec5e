//! One base URL, or several.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor, value};
use sidecod_sidecar::upstream::BaseUrl;

/// At least one base URL: a string or a list of them.
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

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Urls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a base URL, http://host:port, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Urls, E> {
        let first = BaseUrl::deserialize(value::StrDeserializer::new(text))?;
        Ok(Urls {
            first,
            more: Vec::new(),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Urls, A::Error> {
        let first = list.next_element()?;
        let first = first.ok_or_else(|| A::Error::custom("no base URL, want http://host:port"))?;
        let mut more = Vec::new();
        while let Some(url) = list.next_element()? {
            more.push(url);
        }
        Ok(Urls { first, more })
    }
}
