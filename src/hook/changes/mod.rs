//! Lists what a hook changed by path: for a log line by positions alone, for the author of a hook
//! with names and values.
//!
//! # Theory of operation
//! Both documents are read into trees ([`tree`]), and each node gets a hash of all that it
//! contains. Two nodes with the same name are compared attribute by attribute. Of their children,
//! those are paired first that are the same at the beginning and at the end, then the others that
//! are the same, then those with the same name, in their order. What is left was added or removed.
//! So it takes linear time, and moves are not seen.
//!
//! A log line has names of elements, attributes and fields, and positions, never a value.

mod json;
#[cfg(test)]
mod tests;
mod tree;
mod xml;

use std::fmt;

pub(crate) use tree::resolved;

use super::HookKind;
use crate::text::{clip, escape_line};

/// Maximum length of a document whose changes are listed: the tree takes about ten times as much
/// memory. KubeVirt's domains have up to 128 kB.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// Maximum number of changes that are listed; the others are counted.
pub const MAX_CHANGES: usize = 20;

/// Maximum length of a path or a value; a longer one is cut.
const MAX_SHOWN_BYTES: usize = 200;

/// What a list of changes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Names and positions: nothing that a VM's owner wrote.
    Positions,
    /// Names in predicates, and values.
    Values,
}

/// The changes that a hook made.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The first ones, in the order of the new document.
    pub listed: Vec<Change>,
    pub added: usize,
    pub removed: usize,
    pub altered: usize,
}

/// A change: `added /domain/sysinfo/baseBoard/entry[2]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    /// Path of an element or a field; an attribute's ends in `/@name`.
    pub path: String,
    /// The values, with [`Detail::Values`].
    pub values: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Removed,
    Altered,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Altered => "altered",
        };
        write!(f, "{kind} {}", self.path)?;
        self.values.iter().try_for_each(|values| write!(f, ": {values}"))
    }
}

impl Changes {
    /// Returns their number.
    #[must_use]
    pub fn count(&self) -> usize {
        self.added + self.removed + self.altered
    }

    /// Counts a change, and lists it if there is space. `values` are the old and the new one.
    fn push(&mut self, kind: ChangeKind, path: &str, values: Option<[Option<&str>; 2]>) {
        match kind {
            ChangeKind::Added => self.added += 1,
            ChangeKind::Removed => self.removed += 1,
            ChangeKind::Altered => self.altered += 1,
        }
        if self.listed.len() < MAX_CHANGES {
            // Debug output escapes all that escape_line does.
            let quoted = |value| format!("{:?}", clip(value, MAX_SHOWN_BYTES));
            let values = values.and_then(|[old, new]| match (old.map(quoted), new.map(quoted)) {
                (Some(old), Some(new)) => Some(format!("{old} → {new}")),
                (None, value) | (value, None) => value,
            });
            self.listed.push(Change { kind, path: shown(path), values });
        }
    }
}

/// Lists what a hook made of a document. `None` for a node hook, which has none, and for documents
/// that are too long or cannot be read.
#[must_use]
pub fn changes(kind: HookKind, old: &[u8], new: &[u8], detail: Detail) -> Option<Changes> {
    if old.len().max(new.len()) > MAX_DOCUMENT_BYTES {
        return None;
    }
    match kind {
        HookKind::Domain => {
            xml::changes(str::from_utf8(old).ok()?, str::from_utf8(new).ok()?, detail)
        }
        HookKind::CloudInit => json::changes(old, new, detail),
        HookKind::Node => None,
    }
}

fn shown(text: &str) -> String {
    clip(&escape_line(text), MAX_SHOWN_BYTES).to_owned()
}
