//! Cases: a call of a hook, and what is expected of it, as a directory of files. `docs/cases.md`
//! defines the format.
//!
//! Cases come from strangers. So a file has a maximum length, is a regular file within the
//! directory that the user named, and has a name that is known; and everything that is wrong with
//! a case is found before its hook runs.

mod arguments;
mod expected;
mod files;
mod find;
mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use sidecar_shim::hook::HookName;

pub(crate) use self::expected::{ERROR, Expected, FILES};
pub(crate) use self::find::{check_report, find};

/// A call, and what is expected of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Its directory, as the user would write it.
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) hook: HookName,
    /// The VMI as JSON.
    pub(crate) vmi: Bytes,
    /// The document that the hook may change. For a node hook it is empty.
    pub(crate) subject: Bytes,
    /// Why KubeVirt calls.
    pub(crate) context: Option<String>,
    /// The node's name, for node hooks.
    pub(crate) node: String,
    pub(crate) deadline: Duration,
    /// Variables for the hook's environment.
    pub(crate) variables: BTreeMap<String, String>,
    /// `None` if nothing is expected yet.
    pub(crate) expected: Option<Expected>,
}

impl Case {
    /// Returns the length of its documents.
    fn bytes(&self) -> usize {
        let expected = match &self.expected {
            Some(Expected::Document(document)) => document.len(),
            _ => 0,
        };
        self.vmi.len() + self.subject.len() + expected
    }
}

/// A directory that cannot be read as a case.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) name: String,
    /// What is wrong, and what to do.
    pub(crate) why: String,
}
