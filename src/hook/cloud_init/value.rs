//! Values of the kinds of KubeVirt's types, read with the rules of Go's decoder.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The kind of JSON value that KubeVirt's type has for a field.
pub(super) enum Kind {
    Text,
    /// `map[string]string`.
    Texts,
    /// `uint32`.
    Unsigned,
    List(&'static Kind),
    Object(&'static [Field]),
}

pub(super) type Field = (&'static str, Kind);

/// Whether Go's decoder takes a key for a field. It ignores case by Unicode's simple folding, where
/// two letters outside ASCII are equal to some within.
fn is_key_of(key: &str, field: &str) -> bool {
    let folded = key.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    });
    folded.eq(field.chars().map(|c| c.to_ascii_lowercase()))
}

pub(super) fn field_of(key: &str, fields: &'static [Field]) -> Option<&'static Field> {
    let exact = fields.iter().find(|(name, _)| *name == key);
    exact.or_else(|| fields.iter().find(|(name, _)| is_key_of(key, name)))
}

/// Where a value stands.
pub(super) struct Path<'a> {
    pub(super) parent: Option<&'a Path<'a>>,
    pub(super) step: Step,
}

pub(super) enum Step {
    Field(&'static str),
    Element(usize),
    /// A value of a map, whose keys are not shown.
    Value,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Element(index) => write!(f, "[{index}]"),
            Step::Value => f.write_str("[…]"),
        }
    }
}

/// Reads one value, which must be of its kind.
pub(super) struct Value<'a> {
    pub(super) kind: &'static Kind,
    pub(super) path: &'a Path<'a>,
}

/// A value of the right kind.
pub(super) enum Seen<'de> {
    Null,
    Text(Cow<'de, str>),
    Other,
}

impl<'a> Value<'a> {
    fn below<'b>(&'b self, step: Step) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self.path), step }
    }

    /// Returns the error for a value of another kind. The parser adds the position.
    fn wrong<E: Error>(&self, found: &str) -> E {
        let path = self.path;
        E::custom(format_args!("has {found} in {path}, where KubeVirt reads {self},"))
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Text => f.write_str("a string"),
            Kind::Texts => f.write_str("an object of strings or null"),
            Kind::Unsigned => write!(f, "a whole number from 0 to {}", u32::MAX),
            Kind::List(_) => f.write_str("an array or null"),
            Kind::Object(_) => f.write_str("an object or null"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Seen<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Every kind has its method, because the default ones quote the value.
impl<'de> Visitor<'de> for Value<'_> {
    type Value = Seen<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }

    fn visit_unit<E: Error>(self) -> Result<Seen<'de>, E> {
        Ok(Seen::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Seen<'de>, E> {
        Err(self.wrong("a boolean"))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Seen<'de>, E> {
        match self.kind {
            Kind::Unsigned if u32::try_from(number).is_ok() => Ok(Seen::Other),
            Kind::Unsigned => Err(self.wrong("a larger number")),
            _ => Err(self.wrong("a number")),
        }
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Seen<'de>, E> {
        Err(self.wrong("a negative number"))
    }

    /// Go's decoder takes neither a fraction nor an exponent for a whole number: `1.0`, `1e2`.
    fn visit_f64<E: Error>(self, _: f64) -> Result<Seen<'de>, E> {
        Err(self.wrong("a floating-point number"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Seen<'de>, E> {
        match self.kind {
            Kind::Text => Ok(Seen::Text(Cow::Owned(text.to_owned()))),
            _ => Err(self.wrong("a string")),
        }
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Seen<'de>, E> {
        match self.kind {
            Kind::Text => Ok(Seen::Text(Cow::Borrowed(text))),
            _ => Err(self.wrong("a string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Seen<'de>, A::Error> {
        let Kind::List(kind) = self.kind else { return Err(self.wrong("an array")) };
        let mut index = 0;
        loop {
            let path = self.below(Step::Element(index));
            if list.next_element_seed(Value { kind, path: &path })?.is_none() {
                return Ok(Seen::Other);
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen<'de>, A::Error> {
        match self.kind {
            Kind::Object(fields) => {
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let Some((name, kind)) = field_of(&key, fields) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let path = self.below(Step::Field(name));
                    map.next_value_seed(Value { kind, path: &path })?;
                }
            }
            Kind::Texts => {
                while map.next_key::<IgnoredAny>()?.is_some() {
                    let path = self.below(Step::Value);
                    map.next_value_seed(Value { kind: &Kind::Text, path: &path })?;
                }
            }
            _ => return Err(self.wrong("an object")),
        }
        Ok(Seen::Other)
    }
}
