//! What can be wrong with a document, a path, a name or a value.

use std::error::Error;
use std::fmt;

use crate::InvalidParams;

/// A document cannot be read. The error has the place and the reason, and does not quote the
/// document.
///
/// A hook that returns it reports invalid params, as with [`InvalidParams`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    line: usize,
    column: usize,
    reason: &'static str,
}

impl ParseError {
    /// The error at a byte of a document.
    pub(super) fn at(source: &str, byte: usize, reason: &'static str) -> Self {
        let before = source.get(..byte).unwrap_or(source);
        let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        Self { line: before.matches('\n').count() + 1, column: line.chars().count() + 1, reason }
    }

    /// Returns the line, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.reason)
    }
}

impl Error for ParseError {}

impl From<ParseError> for InvalidParams {
    fn from(error: ParseError) -> Self {
        Self::new(format!("XML document: {error}"))
    }
}

/// A path or name is none. This is a mistake in the program, not in its documents: what comes from
/// outside belongs into the values of a path, for which `?` stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPath {
    /// What is invalid, for example `path "a["`. A program may have formatted a value from outside
    /// into it.
    subject: String,
    /// A character of it, where it stands, and a space; or empty.
    found: String,
    why: String,
}

impl InvalidPath {
    pub(super) fn new(subject: String, why: String) -> Self {
        Self { subject, found: String::new(), why }
    }

    pub(super) fn at(subject: String, found: &str, why: String) -> Self {
        Self { subject, found: format!("{found} "), why }
    }

    /// Returns the words that quote nothing from outside, for logs.
    pub(crate) fn harmless(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, found, why } = self;
        write!(f, "{subject}: {found}{why}")
    }
}

impl Error for InvalidPath {}

/// An edit is not possible. The document is unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EditError {
    /// The path or name is none.
    Path(InvalidPath),
    /// XML cannot hold the result, for example a control character. The text says why.
    Value(String),
}

impl EditError {
    /// Returns the words that quote nothing from outside, for logs.
    pub(crate) fn harmless(&self) -> &str {
        match self {
            Self::Path(error) => error.harmless(),
            Self::Value(why) => why, // names of attributes at most
        }
    }
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(error) => error.fmt(f),
            Self::Value(why) => f.write_str(why),
        }
    }
}

impl Error for EditError {}

impl From<InvalidPath> for EditError {
    fn from(error: InvalidPath) -> Self {
        Self::Path(error)
    }
}
