//! Paths: `sysinfo[@type='smbios']/baseBoard/entry[@name=?]`.

use super::error::InvalidPath;

/// A path and the values for its `?`: `"os/smbios"`, or `("disk[@name=?]", [name])`.
///
/// Strings, and pairs of a string and an array, a slice or a vector of strings are paths.
pub trait Path {
    /// Returns the path as it is written.
    fn text(&self) -> &str;

    /// Returns the values, in order.
    fn values(&self) -> Vec<&str> {
        Vec::new()
    }
}

impl Path for &str {
    fn text(&self) -> &str {
        self
    }
}

impl Path for &String {
    fn text(&self) -> &str {
        self
    }
}

/// Implements `Path` for a pair of a string and some list of values.
macro_rules! with_values {
    ($list:ty $(, $size:ident)?) => {
        impl<V: AsRef<str> $(, const $size: usize)?> Path for (&str, $list) {
            fn text(&self) -> &str {
                self.0
            }

            fn values(&self) -> Vec<&str> {
                self.1.iter().map(AsRef::as_ref).collect()
            }
        }
    };
}

with_values!([V; N], N);
with_values!(&[V]);
with_values!(Vec<V>);

/// A name as a path has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'p> {
    pub(super) prefix: Option<&'p str>,
    pub(super) local: &'p str,
}

/// One step of a path.
#[derive(Debug)]
pub(super) struct Step<'p> {
    /// `None` for `*`.
    pub(super) name: Option<Name<'p>>,
    /// Names and values of attributes.
    pub(super) predicates: Vec<(Name<'p>, &'p str)>,
}

/// Parses a path.
pub(super) fn parse<'p>(text: &'p str, values: &[&'p str]) -> Result<Vec<Step<'p>>, InvalidPath> {
    let mut parser = Parser::new("path", text, values);
    let mut steps = vec![parser.step()?];
    while parser.take('/') {
        steps.push(parser.step()?);
    }
    parser.finish("\"/\", \"[\" or the end")?;
    Ok(steps)
}

/// Parses a path of one step that can be added: the name of a new element, with its attributes.
pub(super) fn parse_step<'p>(text: &'p str, values: &[&'p str]) -> Result<Step<'p>, InvalidPath> {
    let mut parser = Parser::new("path", text, values);
    let step = parser.step()?;
    parser.finish("\"[\" or the end (a new element is one step)")?;
    Ok(step)
}

/// Parses the name of an attribute.
pub(super) fn parse_attribute(text: &str) -> Result<Name<'_>, InvalidPath> {
    let mut parser = Parser::new("name", text, &[]);
    let name = parser.attribute()?;
    parser.finish("the end")?;
    Ok(name)
}

/// Parses a prefix.
pub(super) fn parse_prefix(text: &str) -> Result<&str, InvalidPath> {
    let mut parser = Parser::new("prefix", text, &[]);
    let prefix = parser.word("a name")?;
    parser.finish("the end")?;
    Ok(prefix)
}

struct Parser<'p, 'v> {
    what: &'static str,
    text: &'p str,
    rest: &'p str,
    values: &'v [&'p str],
    /// The number of `?` so far.
    asked: usize,
}

impl<'p, 'v> Parser<'p, 'v> {
    fn new(what: &'static str, text: &'p str, values: &'v [&'p str]) -> Self {
        Self { what, text, rest: text, values, asked: 0 }
    }

    fn step(&mut self) -> Result<Step<'p>, InvalidPath> {
        let name = if self.take('*') { None } else { Some(self.name("a name or \"*\"")?) };
        let mut predicates = Vec::new();
        while self.take('[') {
            self.expect('@')?;
            let name = self.attribute()?;
            self.expect('=')?;
            predicates.push((name, self.value()?));
            self.expect(']')?;
        }
        Ok(Step { name, predicates })
    }

    fn name(&mut self, wanted: &str) -> Result<Name<'p>, InvalidPath> {
        let first = self.word(wanted)?;
        if !self.take(':') {
            return Ok(Name { prefix: None, local: first });
        }
        let local = self.word("a name")?;
        if first == "xmlns" {
            return Err(self.invalid("xmlns declares namespaces, so it cannot be a prefix"));
        }
        Ok(Name { prefix: Some(first), local })
    }

    fn attribute(&mut self) -> Result<Name<'p>, InvalidPath> {
        let name = self.name("a name")?;
        if name.prefix.is_none() && name.local == "xmlns" {
            return Err(self.invalid("xmlns declares a namespace, so it cannot be an attribute"));
        }
        Ok(name)
    }

    fn word(&mut self, wanted: &str) -> Result<&'p str, InvalidPath> {
        let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !self.rest.starts_with(starts) {
            return Err(self.unexpected(wanted));
        }
        let continues = |c: char| starts(c) || c.is_ascii_digit() || matches!(c, '-' | '.');
        let end = self.rest.find(|c| !continues(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word)
    }

    fn value(&mut self) -> Result<&'p str, InvalidPath> {
        if self.take('?') {
            self.asked += 1;
            // `finish` compares the numbers.
            return Ok(self.values.get(self.asked - 1).copied().unwrap_or_default());
        }
        for quote in ['\'', '"'] {
            let Some(rest) = self.rest.strip_prefix(quote) else { continue };
            let Some((value, rest)) = rest.split_once(quote) else {
                return Err(self.unexpected("a value with a closing quote"));
            };
            self.rest = rest;
            return Ok(value);
        }
        Err(self.unexpected("a value in quotes, or \"?\","))
    }

    fn take(&mut self, character: char) -> bool {
        let rest = self.rest.strip_prefix(character);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, character: char) -> Result<(), InvalidPath> {
        if self.take(character) {
            return Ok(());
        }
        Err(self.unexpected(&format!("\"{character}\"")))
    }

    fn finish(self, wanted: &str) -> Result<(), InvalidPath> {
        if !self.rest.is_empty() {
            return Err(self.unexpected(wanted));
        }
        let given = self.values.len();
        if given != self.asked {
            let why = format!("\"?\" stands in it {} times, and {given} values came", self.asked);
            return Err(self.invalid(&why));
        }
        Ok(())
    }

    fn unexpected(&self, wanted: &str) -> InvalidPath {
        let before = self.text.len() - self.rest.len();
        let position = self.text[..before].chars().count() + 1;
        let found = match self.rest.chars().next() {
            Some(found) => format!("\"{found}\" at"),
            None => "the end, at".to_owned(),
        };
        let why = format!("character {position}: {wanted} expected");
        InvalidPath::at(self.subject(), &found, why)
    }

    fn invalid(&self, why: &str) -> InvalidPath {
        InvalidPath::new(self.subject(), why.to_owned())
    }

    fn subject(&self) -> String {
        format!("{} \"{}\"", self.what, self.text)
    }
}
