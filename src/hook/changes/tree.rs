//! A domain as a tree, for comparisons. It accepts what is well-formed, and need not notice what is
//! not.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use memchr::{memchr, memmem};

/// Maximum number of elements in each other; libvirt accepts no more.
const MAX_DEPTH: usize = 256;

/// An element.
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    /// Names as they are written, and values, without declarations of namespaces.
    pub(super) attributes: Vec<(&'a str, Cow<'a, str>)>,
    /// Its own text, without what is in its children. White space alone counts as none.
    pub(super) text: String,
    pub(super) children: Vec<Self>,
    /// Of all of the above.
    pub(super) hash: u64,
}

impl<'a> Node<'a> {
    /// Reads the root of a document. `None` if it is not well-formed.
    pub(super) fn parse(document: &'a str) -> Option<Self> {
        let mut rest = document;
        let mut open: Vec<Self> = Vec::new();
        loop {
            let at = memchr(b'<', rest.as_bytes())?;
            if let Some(node) = open.last_mut() {
                node.text += &resolved(&rest[..at]);
            }
            rest = &rest[at..];
            if let Some(comment) = rest.strip_prefix("<!--") {
                rest = behind(comment, "-->")?.1;
            } else if let Some(section) = rest.strip_prefix("<![CDATA[") {
                let (text, after) = behind(section, "]]>")?;
                open.last_mut()?.text += text;
                rest = after;
            } else if let Some(instruction) = rest.strip_prefix("<?") {
                rest = behind(instruction, "?>")?.1;
            } else if rest.starts_with("</") {
                rest = behind(rest, ">")?.1;
                let node = open.pop()?.closed();
                match open.last_mut() {
                    Some(parent) => parent.children.push(node),
                    None => return Some(node),
                }
            } else {
                let (node, is_empty, after) = Self::start(rest)?;
                rest = after;
                match open.last_mut() {
                    _ if !is_empty => open.push(node),
                    Some(parent) => parent.children.push(node.closed()),
                    None => return Some(node.closed()),
                }
                if open.len() > MAX_DEPTH {
                    return None;
                }
            }
        }
    }

    /// Reads a start tag. Returns whether it is the whole element, and what follows it.
    fn start(tag: &'a str) -> Option<(Self, bool, &'a str)> {
        let is_space = |c: char| c.is_ascii_whitespace();
        let inside = tag.strip_prefix('<')?;
        let end = inside.find(|c| is_space(c) || c == '>' || c == '/')?;
        let (name, mut rest) = inside.split_at(end);
        let mut attributes = Vec::new();
        let is_empty = loop {
            rest = rest.trim_start_matches(is_space);
            if let Some(after) = rest.strip_prefix("/>") {
                rest = after;
                break true;
            }
            if let Some(after) = rest.strip_prefix('>') {
                rest = after;
                break false;
            }
            let (attribute, value) = rest.split_once('=')?;
            let value = value.trim_start_matches(is_space);
            let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
            let (value, after) = value[1..].split_once(quote)?;
            rest = after;
            let attribute = attribute.trim_end_matches(is_space);
            if attribute != "xmlns" && !attribute.starts_with("xmlns:") {
                attributes.push((attribute, resolved(value)));
            }
        };
        let (text, children) = (String::new(), Vec::new());
        Some((Self { name, attributes, text, children, hash: 0 }, is_empty, rest))
    }

    fn closed(mut self) -> Self {
        if self.text.trim().is_empty() {
            self.text.clear();
        }
        let mut attributes: Vec<_> = self.attributes.iter().collect();
        attributes.sort();
        let mut hasher = DefaultHasher::new();
        (self.name, attributes, &self.text).hash(&mut hasher);
        self.children.iter().for_each(|child| child.hash.hash(&mut hasher));
        self.hash = hasher.finish();
        self
    }

    /// Returns the value of an attribute.
    pub(super) fn get(&self, attribute: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(name, _)| *name == attribute);
        found.map(|(_, value)| &**value)
    }
}

/// Splits a text at the first `end`.
fn behind<'a>(text: &'a str, end: &str) -> Option<(&'a str, &'a str)> {
    let at = memmem::find(text.as_bytes(), end.as_bytes())?;
    Some((&text[..at], &text[at + end.len()..]))
}

/// Returns a text with its references resolved. One that is unknown stays.
pub(crate) fn resolved(text: &str) -> Cow<'_, str> {
    if memchr(b'&', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (reference, after) = rest.split_once(';').unwrap_or((rest, ""));
        if let Some(c) = character(reference) {
            out.push(c);
            rest = after;
        } else {
            out.push('&');
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn character(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = reference.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}
