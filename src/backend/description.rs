//! What a backend runs, for the log and for people.

use std::collections::BTreeSet;

use serde::Serialize;

use super::process::{CommandLine, Script};
use crate::rpc::Declared;

/// A command that runs hooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Described {
    pub command: String,
    /// What a worker says it is, with its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The SDK that a worker says it uses, with its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
    /// The scripts that it runs, as they were when the shim started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<Script>,
}

impl Described {
    pub(super) fn new(command: &CommandLine, declared: Option<&Declared>) -> Self {
        let said = |what: Option<&crate::rpc::NameAndVersion>| what.map(ToString::to_string);
        Self {
            command: command.to_string(),
            program: declared.and_then(|declared| said(declared.program.as_ref())),
            sdk: declared.and_then(|declared| said(declared.sdk.as_ref())),
            scripts: command.scripts(),
        }
    }

    /// Describes programs, each once.
    pub(super) fn programs<'a>(commands: impl Iterator<Item = &'a CommandLine>) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let described = commands.filter(|command| seen.insert(command.to_string()));
        described.map(|command| Self::new(command, None)).collect()
    }
}
