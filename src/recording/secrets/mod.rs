//! Replaces what may be secret in the documents of a case.
//!
//! # Theory of operation
//! A value is secret for one of three reasons: its place (`userData`, `passwd`, an annotation with
//! `token` in its name), what it looks like (a private key, user data, `password=…`), or because it
//! contains a value that is secret elsewhere in the case. So a secret that a hook copies into a
//! domain, or quotes in a message, is replaced there as well (`traces`). That takes two passes: one
//! over all documents that collects the secrets, and one that replaces them.
//!
//! Everything else stays as it was, byte for byte. Each value has one placeholder wherever it
//! appears, so a hook that copies a value makes the same document of the placeholder. A hook that
//! makes a secret itself does not: [`Secrets::hook_made_one`].
//!
//! `docs/cases.md` lists what is replaced, for people who decide whether they may record.

mod json;
mod looks;
mod message;
#[cfg(test)]
mod tests;
mod traces;
mod xml;

use self::looks::looks_secret;
use self::traces::Traces;

/// Maximum number of different secrets in a case. KubeVirt's largest VMs have a dozen; each is
/// searched for in every value.
const MAX_SECRETS: usize = 256;

/// Stands for a value without a form that hooks rely on.
const PLACEHOLDER: &str = "REPLACED";

/// The same in base64, with what the others say.
const PLACEHOLDER_BASE64: &str = "IyByZXBsYWNlZCBieSBzaWRlY2FyLXNoaW0gLS1yZWNvcmQK";

/// Where a value stands.
pub(super) struct Place<'a> {
    /// Its own name, or that of the array that it is in, without case and punctuation.
    name: &'a str,
    /// Whether it is a key of an object.
    is_key: bool,
    /// Whether its place alone makes it secret.
    is_secret: bool,
}

/// Why a case cannot be recorded without its secrets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// The secrets of one case.
#[derive(Default)]
pub(super) struct Secrets {
    /// Values and their placeholders.
    known: Vec<(String, String)>,
    /// Their copies.
    traces: Traces,
    /// How often the domain that the hook was called with has a line of a secret.
    lines_sent: usize,
    of_hook: bool,
    too_many: bool,
}

/// The format of a document.
#[derive(Clone, Copy)]
pub(super) enum Format {
    Json,
    /// A domain that is well-formed.
    Xml,
}

impl Secrets {
    /// Collects what is secret in a document that the hook was called with.
    pub(super) fn collect(&mut self, format: Format, document: &str) -> Result<(), TooMany> {
        walk(format, document, &mut |place, value| {
            if is_secret(place, value) {
                self.add(place, value);
            }
            None
        });
        self.traces.sort();
        if matches!(format, Format::Xml) {
            self.lines_sent = self.lines_in(document);
        }
        if self.too_many || self.traces.are_too_many() { Err(TooMany) } else { Ok(()) }
    }

    /// Collects what is secret in a document that the hook returned.
    pub(super) fn collect_of_hook(
        &mut self,
        format: Format,
        document: &str,
    ) -> Result<(), TooMany> {
        let (known, lines_sent) = (self.known.len(), self.lines_sent);
        self.collect(format, document)?;
        // A placeholder does not have the lines of its secret.
        self.of_hook = self.known.len() > known || self.lines_sent > lines_sent;
        Ok(())
    }

    /// Counts the copies of lines of secrets in a domain.
    fn lines_in(&self, document: &str) -> usize {
        let mut lines = 0;
        walk(Format::Xml, document, &mut |place, value| {
            if !(is_secret(place, value) && self.known.iter().any(|(known, _)| known == value)) {
                self.traces.replace(value, &mut lines);
            }
            None
        });
        lines
    }

    /// Whether the hook has returned a secret that it was not called with. It would make another
    /// one of the placeholders.
    pub(super) fn hook_made_one(&self) -> bool {
        self.of_hook
    }

    /// Returns a document without secrets.
    pub(super) fn replace(&self, format: Format, document: &str) -> String {
        walk(format, document, &mut |place, value| {
            let is_known = |known: &&(String, String)| known.0 == value;
            match self.known.iter().find(is_known) {
                Some((_, placeholder)) if is_secret(place, value) => Some(placeholder.clone()),
                _ => self.without(value),
            }
        })
    }

    /// Returns a text without the secrets that it contains. `None` if there are none.
    fn without(&self, text: &str) -> Option<String> {
        self.traces.replace(text, &mut 0)
    }

    /// Returns the lines of a hook's message that are not secret.
    pub(super) fn message(&self, message: &str) -> Vec<String> {
        let replaced = self.without(message);
        let message = replaced.as_deref().unwrap_or(message);
        message::lines(&self.traces.without_beginning_at_end(message))
    }

    fn add(&mut self, place: &Place<'_>, value: &str) {
        if self.known.iter().any(|(known, _)| known == value) {
            return;
        }
        if self.known.len() == MAX_SECRETS {
            self.too_many = true;
            return;
        }
        let placeholder = placeholder(place, value);
        self.traces.add(value, &placeholder);
        self.known.push((value.to_owned(), placeholder));
    }
}

/// Visits each value of a document, and each key of a JSON object. Returns the document with what
/// `visit` returns in their place.
fn walk(
    format: Format,
    document: &str,
    visit: &mut dyn FnMut(&Place<'_>, &str) -> Option<String>,
) -> String {
    match format {
        Format::Json => json::walk(document, visit),
        Format::Xml => xml::walk(document, visit),
    }
}

fn is_secret(place: &Place<'_>, value: &str) -> bool {
    // A value that only says whether there is something, and what a placeholder has become.
    let says_nothing = matches!(value.trim(), "" | "true" | "false" | "yes" | "no" | PLACEHOLDER);
    // A key may contain a secret from elsewhere, but its own text is a name.
    !place.is_key && !says_nothing && (place.is_secret || looks_secret(value))
}

/// Returns what stands for a value: of the same form, so that hooks can still read it.
fn placeholder(place: &Place<'_>, value: &str) -> String {
    const NOTE: &str = "replaced by sidecar-shim --record";
    let name = place.name;
    let is_uuid = value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if name.contains("base64") {
        PLACEHOLDER_BASE64.to_owned()
    } else if value.starts_with("#cloud-config") {
        format!("#cloud-config\n{{}} # {NOTE}\n")
    } else if value.starts_with("#!") {
        format!("#!/bin/sh\n# {NOTE}\n")
    } else if value.trim_start().starts_with('{') {
        format!("{{\"{NOTE}\": true}}")
    } else if name.contains("networkdata") {
        // YAML, of which it is an object.
        format!("{{}} # {NOTE}\n")
    } else if is_uuid {
        "00000000-0000-0000-0000-000000000000".to_owned()
    } else {
        PLACEHOLDER.to_owned()
    }
}
