//! The start tag of an element, as text.
//!
//! A tag is kept as it is written, from its `<` up to its `>` or `/>`, which are not part of it,
//! until an attribute is edited. The scanner has checked it, so reading it again cannot fail.

use super::text::is_space;

/// An attribute as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'t> {
    /// From the white space before it to its last quote.
    pub(super) all: &'t str,
    pub(super) name: &'t str,
    /// Without its quotes.
    pub(super) value: &'t str,
}

impl<'t> Attribute<'t> {
    /// Returns the declared prefix if this declares a namespace; that of a default one is empty.
    pub(super) fn declares(&self) -> Option<&'t str> {
        declared(self.name)
    }
}

/// Returns the prefix that an attribute of this name declares.
pub(super) fn declared(name: &str) -> Option<&str> {
    match name.strip_prefix("xmlns") {
        Some("") => Some(""),
        Some(rest) => rest.strip_prefix(':'),
        None => None,
    }
}

/// Splits a name as it is written into prefix and local name.
pub(super) fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once(':') {
        Some((prefix, local)) => (Some(prefix), local),
        None => (None, name),
    }
}

/// Reads all attributes and declarations of a tag, whose name ends at `from`.
pub(super) fn attributes(tag: &str, from: usize) -> impl Iterator<Item = Attribute<'_>> + '_ {
    let bytes = tag.as_bytes();
    let mut start = from;
    std::iter::from_fn(move || {
        let rest = bytes.get(start..)?;
        let name = start + rest.iter().position(|byte| !is_space(*byte))?;
        let length = bytes[name..].iter().position(|byte| *byte == b'=' || is_space(*byte))?;
        let name = name..name + length;
        let behind = &bytes[name.end..];
        let open = name.end + behind.iter().position(|byte| matches!(byte, b'"' | b'\''))?;
        let quote = bytes[open];
        let length = bytes[open + 1..].iter().position(|byte| *byte == quote)?;
        let value = open + 1..open + 1 + length;
        let all = start..value.end + 1;
        start = all.end;
        Some(Attribute { all: &tag[all], name: &tag[name], value: &tag[value] })
    })
}
