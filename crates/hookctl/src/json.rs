//! JSON that is compared and written as it was sent: a number keeps its digits, and an object has
//! all of its keys, also one that is there twice. `serde_json`'s values have neither.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Maximum depth of values in each other, as `serde_json` has for its values.
const MAX_DEPTH: usize = 128;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    /// In the order of the keys; of the values of one key, in the order of the text.
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    /// A number, `true`, `false` or `null` as it was written; a string without needless escapes.
    Scalar(String),
}

impl Json {
    pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        Self::read(serde_json::from_slice(text)?, MAX_DEPTH)
    }

    fn read(raw: &RawValue, depth: usize) -> serde_json::Result<Self> {
        let text = raw.get();
        let below = || {
            let why = format!("it is nested more than {MAX_DEPTH} deep");
            depth.checked_sub(1).ok_or_else(|| serde_json::Error::custom(why))
        };
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let (Pairs(pairs), depth) = (serde_json::from_str(text)?, below()?);
                let read = |(key, value)| Ok((key, Self::read(value, depth)?));
                let mut pairs: Vec<_> =
                    pairs.into_iter().map(read).collect::<serde_json::Result<_>>()?;
                pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
                Self::Object(pairs)
            }
            Some(b'[') => {
                let (values, depth): (Vec<&RawValue>, _) = (serde_json::from_str(text)?, below()?);
                let values = values.into_iter().map(|value| Self::read(value, depth));
                Self::Array(values.collect::<serde_json::Result<_>>()?)
            }
            Some(b'"') => Self::Scalar(quoted(&serde_json::from_str::<String>(text)?)),
            _ => Self::Scalar(text.to_owned()),
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth + 1);
        let end = "  ".repeat(depth);
        match self {
            Self::Scalar(text) => f.write_str(text),
            Self::Object(pairs) if pairs.is_empty() => f.write_str("{}"),
            Self::Array(values) if values.is_empty() => f.write_str("[]"),
            Self::Object(pairs) => {
                f.write_str("{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}\n{indent}{}: ", quoted(key))?;
                    value.write(f, depth + 1)?;
                }
                write!(f, "\n{end}}}")
            }
            Self::Array(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}\n{indent}", if index == 0 { "" } else { "," })?;
                    value.write(f, depth + 1)?;
                }
                write!(f, "\n{end}]")
            }
        }
    }
}

/// Writes it in lines.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The keys of an object with their values.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_in_lines_with_the_digits_and_keys_that_it_has() {
        let text = r#" {"b": [1.50, 1e400, -0, []], "a":"\u0041\n", "b": {}, "n": null} "#;
        let json = Json::parse(text.as_bytes()).unwrap();
        let lines = "{\n  \"a\": \"A\\n\",\n  \"b\": [\n    1.50,\n    1e400,\n    -0,\n    []\n  ],\n  \
                     \"b\": {},\n  \"n\": null\n}";
        assert_eq!(json.to_string(), lines);
        assert_eq!(Json::parse(lines.as_bytes()).unwrap(), json);
    }

    #[test]
    fn what_is_not_json_or_too_deep_is_an_error() {
        for bad in ["", "{", "[1,]", "01", "{\"a\"}", "\"\n\"", "1 2"] {
            assert!(Json::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(nested(100).as_bytes()).is_ok());
        assert!(Json::parse(nested(200).as_bytes()).is_err());
        assert!(Json::parse(nested(1_000_000).as_bytes()).is_err());
    }
}
