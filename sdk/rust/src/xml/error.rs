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
pub struct InvalidPath(String);

impl InvalidPath {
    pub(super) fn new(message: String) -> Self {
        Self(message)
    }
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
