//! A configuration with every key in it, made of the types that it is read into.

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value};

/// Columns of a comment.
const WIDTH: usize = 98;

/// Every key with what it means, its type and its default, as TOML in which every line is a comment.
/// What has no default, and need not be there, has no value either.
#[must_use]
pub fn reference<T: JsonSchema>() -> String {
    let schema = schema_for!(T);
    let root = schema.as_value();
    let mut text = String::new();
    Schema { root, at: root }.table("", &mut text);
    text
}

/// A [`reference`] with all that has a value set to it.
#[must_use]
pub fn uncommented(reference: &str) -> String {
    let line = |line: &str| {
        let line = line.strip_prefix('#')?;
        let is_set = !line.starts_with(' ') && !line.ends_with('=');
        is_set.then(|| format!("{line}\n"))
    };
    reference.lines().filter_map(line).collect()
}

/// A type in the schema of a whole configuration.
#[derive(Clone, Copy)]
struct Schema<'a> {
    root: &'a Value,
    at: &'a Value,
}

impl<'a> Schema<'a> {
    /// Writes the keys of a table, then the tables in it.
    fn table(self, path: &str, text: &mut String) {
        let required = self.at["required"].as_array();
        let mut tables = Vec::new();
        for (key, at) in self.properties().into_iter().flatten() {
            let property = Self { at, ..self };
            if let Some((kind, is_list)) = property.as_table() {
                tables.push((key, property, kind, is_list));
                continue;
            }
            let is_required = required.is_some_and(|list| list.iter().any(|name| name == key));
            text.push('\n');
            comment(property.description(), text);
            let default = toml(&at["default"]);
            let example = toml(&at["examples"][0]);
            let state = match (&default, is_required) {
                (Some(_), _) => "",
                (None, true) => ", required",
                (None, false) => ", none by default",
            };
            comment(&format!("({}{state})", property.kind()), text);
            let value = default.or(example);
            let value = value.map_or(String::new(), |value| format!(" {value}"));
            text.extend(["#", key, " =", &value, "\n"]);
        }
        for (key, property, kind, is_list) in tables {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            text.push_str("\n\n");
            let own = property.description();
            comment(
                if own.is_empty() {
                    kind.description()
                } else {
                    own
                },
                text,
            );
            let (open, close) = if is_list {
                ("#[[", "]]\n")
            } else {
                ("#[", "]\n")
            };
            text.extend([open, &path, close]);
            kind.table(&path, text);
        }
    }

    fn properties(self) -> Option<&'a Map<String, Value>> {
        self.at["properties"].as_object()
    }

    /// What its documentation says, or that of its type.
    fn description(self) -> &'a str {
        let of = |schema: Self| schema.at["description"].as_str();
        of(self).or(of(self.resolved())).unwrap_or_default()
    }

    /// What is behind a reference, or an `Option`.
    fn resolved(self) -> Self {
        if let Some(name) = self.at["$ref"].as_str() {
            let at = self.root.pointer(name.trim_start_matches('#'));
            return Self {
                at: at.unwrap_or(&Value::Null),
                ..self
            };
        }
        let mut kinds = self.alternatives().into_iter();
        match (kinds.next(), kinds.next()) {
            (Some(only), None) => only.resolved(),
            _ => self,
        }
    }

    fn alternatives(self) -> Vec<Self> {
        let of = |key: &str| self.at[key].as_array();
        let list = of("anyOf").or(of("oneOf")).into_iter().flatten();
        list.filter(|at| at["type"] != "null")
            .map(|at| Self { at, ..self })
            .collect()
    }

    /// The table that it is, or that it lists, and which of the two.
    fn as_table(self) -> Option<(Self, bool)> {
        let resolved = self.resolved();
        if resolved.properties().is_some() {
            return Some((resolved, false));
        }
        let item = Self {
            at: &resolved.at["items"],
            ..self
        };
        let item = item.resolved();
        item.properties().is_some().then_some((item, true))
    }

    /// Its type in words.
    fn kind(self) -> String {
        let schema = self.resolved();
        if let Some(properties) = schema.properties() {
            let keys: Vec<_> = properties.keys().map(String::as_str).collect();
            return format!("table of {}", keys.join(", "));
        }
        let mut words: Vec<String> = schema
            .alternatives()
            .into_iter()
            .map(Self::kind)
            .chain(schema.at["const"].as_str().map(|word| format!("{word:?}")))
            .collect();
        let names = schema.at["enum"].as_array().into_iter().flatten();
        words.extend(
            names
                .filter_map(Value::as_str)
                .map(|word| format!("{word:?}")),
        );
        if words.is_empty() {
            let types = match &schema.at["type"] {
                Value::Array(types) => types.iter().collect(),
                one => vec![one],
            };
            for name in types.into_iter().filter_map(Value::as_str) {
                match name {
                    "null" => {}
                    "array" => {
                        let item = Self {
                            at: &schema.at["items"],
                            ..self
                        };
                        words.push(format!("list, each {}", item.kind()));
                    }
                    name => words.push(name.to_owned()),
                }
            }
        }
        words.join(" or ")
    }
}

/// A value as it stands behind a key; none for null.
fn toml(value: &Value) -> Option<String> {
    let value = toml::Value::try_from(value).ok()?;
    Some(value.to_string())
}

fn comment(words: &str, text: &mut String) {
    let mut column = WIDTH;
    let mut begun = false;
    for word in words.split_whitespace() {
        if column + 1 + word.len() > WIDTH {
            text.push_str(if begun { "\n# " } else { "# " });
            (column, begun) = (2, true);
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    if begun {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything.
    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Whole {
        /// Where it listens.
        #[schemars(example = "127.0.0.1:1")]
        listen: std::net::SocketAddr,
        #[serde(default)]
        parts: Vec<Part>,
        /// Some bound.
        #[serde(default = "seven")]
        bound: u64,
        /// Which.
        which: Option<Which>,
    }

    /// A part.
    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Part {
        /// Its name.
        #[serde(default)]
        name: String,
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code)]
    enum Which {
        One,
        Other,
    }

    fn seven() -> u64 {
        7
    }

    #[test]
    fn every_key_has_its_meaning_its_type_and_its_default() {
        let want = "\n# Some bound.\n# (integer)\n#bound = 7\n\
            \n# Where it listens.\n# (string, required)\n#listen = \"127.0.0.1:1\"\n\
            \n# Which.\n# (\"one\" or \"other\", none by default)\n#which =\n\
            \n\n# A part.\n#[[parts]]\n\
            \n# Its name.\n# (string)\n#name = \"\"\n";
        assert_eq!(reference::<Whole>(), want);
    }
}
