//! Adds parts of a hook's own to a VM's cloud-init user data.
//!
//! ```
//! use kubevirt_hook::cloud_init::Part;
//!
//! # fn hook(user_data: &str) -> kubevirt_hook::Result<String> {
//! let part = Part::new("example.org-timezone", "#cloud-config\ntimezone: Europe/Lisbon\n")?;
//! let user_data = part.put(user_data)?;
//! # Ok(user_data)
//! # }
//! # assert!(hook("#!/bin/sh\n").unwrap().contains("\ntimezone: Europe/Lisbon\n\n--"));
//! ```
//!
//! The owner's user data stays as it is, as a part beside the new one. `docs/cloud-init.md` says
//! how cloud-init merges them.

use std::collections::HashSet;
use std::error::Error;
use std::fmt::{self, Write};

use crate::Refused;

/// The types of user data. cloud-init derives them from its start, in any case. If two starts begin
/// alike, the longer one comes first.
const TYPES: [(&str, &str); 9] = [
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    ("#cloud-config", "text/cloud-config"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#part-handler", "text/part-handler"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("## template: jinja", "text/jinja2"),
    ("#!", "text/x-shellscript"),
];
macro_rules! starts {
    () => {
        "#cloud-config, #!, #include, #cloud-boothook, #part-handler or ## template: jinja"
    };
}
/// White space that cloud-init skips at the start.
const SPACE: [char; 6] = [' ', '\t', '\n', '\x0b', '\x0c', '\r'];

/// How cloud-init merges a part into what came before.
const ADD: &str = "list(append)+dict(no_replace,recurse_list)";
/// The same, for [`Part::replacing`]. It is cloud-init's default.
const REPLACE: &str = "dict(replace)+list()+str()";
/// The types for which cloud-init looks at that.
const MERGED_TYPES: [&str; 2] = ["text/cloud-config", "text/jinja2"];

// The multi-part that this module writes. The number makes the boundary one that no part contains.
const MARK: &str = "==sidecar-shim-";
const HEAD: &str = "Content-Type: multipart/mixed; boundary=\"==sidecar-shim-";
const HEAD_END: &str = "==\"\nMIME-Version: 1.0\n\n";
/// How the owner's part begins, which comes first if there is one.
const OWNER: &str = "Content-Description: user data of the VM's owner\n";
/// How the parts of hooks begin.
const NAMED: &str = "Content-Disposition: attachment; filename=\"";

/// cloud-init takes user data for MIME if it has this text…
const MIME_SIGN: &[u8] = b"mime-version:";
/// …in that many of its first bytes.
const MIME_SIGN_WITHIN: usize = 4096;
/// The guest may use a part's name as the name of a file.
const MAX_NAME: usize = 64;
/// Octets in a line of 76 characters, as MIME demands.
const BASE64_OCTETS: usize = 57;

/// User data that a hook adds.
#[derive(Debug, Clone)]
pub struct Part {
    name: String,
    content: String,
    kind: &'static str,
    merge: &'static str,
}

impl Part {
    /// Creates a part.
    ///
    /// The name distinguishes it from those of other hooks, and may become the name of a file in
    /// the guest: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or a digit.
    /// cloud-init gives the names `part-001` and so on itself.
    ///
    /// The content starts like any user data: with `#cloud-config`, `#!`, …. A `#cloud-config` only
    /// adds to the owner's: lists are appended, values that the owner has set stay.
    pub fn new(name: impl Into<String>, content: impl Into<String>) -> Result<Self, InvalidPart> {
        let (name, content) = (name.into(), content.into());
        if !is_name(&name) {
            return Err(InvalidPart(
                "the name of a part has 1 to 64 letters, digits, '.', '_' and '-', starts with a \
                 letter or a digit, and is not one of cloud-init's own, such as part-001",
            ));
        }
        let kind = kind(&content)
            .ok_or(InvalidPart(concat!("the content of a part starts with ", starts!())))?;
        Ok(Self { name, content, kind, merge: ADD })
    }

    /// Makes each key at the top level of the part replace the owner's, with all that is below it.
    #[must_use]
    pub fn replacing(mut self) -> Self {
        self.merge = REPLACE;
        self
    }

    /// Returns the user data with this part added, or in place of the part of this name. User data
    /// that cannot have parts is refused.
    pub fn put(&self, user_data: &str) -> Result<String, Refused> {
        let head = format!("{NAMED}{}\"\n", self.name);
        let merge = if MERGED_TYPES.contains(&self.kind) {
            format!("Merge-Type: {}\n", self.merge)
        } else {
            String::new()
        };
        let part = format!("{head}{}", body(self.kind, &self.content, &merge));
        let mut parts = match own_parts(user_data) {
            Some(parts) => parts,
            None => owners_part(user_data)?,
        };
        match parts.iter_mut().find(|other| other.starts_with(&head)) {
            Some(other) => *other = part,
            None => parts.push(part),
        }
        Ok(multi_part(&parts))
    }
}

/// The name or the content of a [`Part`] is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPart(&'static str);

impl fmt::Display for InvalidPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for InvalidPart {}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // In the guest, a script named part-001 would replace the owner's.
    let reserved = name.strip_prefix("part-").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(allowed)
        && name.len() <= MAX_NAME
        && !reserved
}

/// The type of user data, if cloud-init knows one with this start.
fn kind(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches(SPACE);
    let has =
        |start: &str| text.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start));
    TYPES.iter().find(|(start, _)| has(start)).map(|&(_, kind)| kind)
}

/// A part without its first line.
fn body(kind: &str, text: &str, merge: &str) -> String {
    let head = format!("Content-Type: {kind}; charset=\"utf-8\"\n{merge}");
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t')) {
        return format!("{head}\n{text}");
    }
    // Otherwise cloud-init would not get other characters as they are.
    format!("{head}Content-Transfer-Encoding: base64\n\n{}", base64(text.as_bytes()))
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(octets.len() / 3 * 4 + octets.len() / BASE64_OCTETS + 4);
    for (index, line) in octets.chunks(BASE64_OCTETS).enumerate() {
        if index > 0 {
            text.push('\n');
        }
        for group in line.chunks(3) {
            let octet = |index| u32::from(group.get(index).copied().unwrap_or(0));
            let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
            for digit in 0..4 {
                let value = bits >> (18 - 6 * digit) & 63;
                text.push(if digit > group.len() { '=' } else { DIGITS[value as usize].into() });
            }
        }
    }
    text
}

fn owners_part(user_data: &str) -> Result<Vec<String>, Refused> {
    let refused = |why| Err(Refused::new(format!("the VM's cloud-init user data: {why}")));
    // KubeVirt wants user data, so owners who have none write white space.
    if user_data.trim_matches(SPACE).is_empty() {
        return Ok(vec![]);
    }
    if is_mime(user_data) {
        // Its headers become those of the part.
        return Ok(vec![format!("{OWNER}{user_data}")]);
    }
    if user_data.starts_with("\x1f\u{8b}") || user_data.starts_with("\x1f\u{fffd}") {
        return refused(
            "it is compressed, and KubeVirt damages compressed user data when it passes it to a \
             hook; provide it uncompressed",
        );
    }
    if user_data.starts_with('\u{feff}') {
        return refused(
            "it starts with a byte order mark, so cloud-init ignores it; remove the mark",
        );
    }
    match kind(user_data) {
        Some(kind) => Ok(vec![format!("{OWNER}{}", body(kind, user_data, ""))]),
        None => refused(concat!(
            "it is not for cloud-init, so no part can be added; user data for cloud-init is MIME \
             or starts with ",
            starts!()
        )),
    }
}

fn is_mime(user_data: &str) -> bool {
    let first = &user_data.as_bytes()[..user_data.len().min(MIME_SIGN_WITHIN)];
    if !first.windows(MIME_SIGN.len()).any(|it| it.eq_ignore_ascii_case(MIME_SIGN)) {
        return false;
    }
    // Unless the first line is a header, cloud-init takes all of it for the content.
    let line = user_data.split('\n').next().unwrap_or_default();
    let is_field = line
        .split_once(':')
        .is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_graphic()));
    is_field || line.starts_with("From ") || line.starts_with([' ', '\t'])
}

/// The parts of a multi-part that this module wrote, if it is one.
fn own_parts(user_data: &str) -> Option<Vec<String>> {
    let (number, text) = user_data.strip_prefix(HEAD)?.split_once(HEAD_END)?;
    let delimiter = format!("--{MARK}{number}==");
    let text = text.strip_prefix(&format!("{delimiter}\n"))?;
    let text = text.strip_suffix(&format!("\n{delimiter}--\n"))?;
    let parts: Vec<_> = text.split(&format!("\n{delimiter}\n")).map(str::to_owned).collect();
    let mut names = HashSet::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 || !part.starts_with(OWNER) {
            let (line, _) = part.split_once('\n')?;
            let name = line.strip_prefix(NAMED)?.strip_suffix('"')?;
            if !is_name(name) || !names.insert(name) {
                return None;
            }
        }
    }
    (multi_part(&parts) == user_data).then_some(parts)
}

fn multi_part(parts: &[String]) -> String {
    let digits = |text: &'_ str| text.bytes().take_while(u8::is_ascii_digit).count();
    let marks = parts.iter().flat_map(|part| part.split(MARK).skip(1));
    let taken: HashSet<&str> = marks.map(|rest| &rest[..digits(rest)]).collect();
    let mut number = 0_u32;
    while taken.contains(number.to_string().as_str()) {
        number += 1;
    }
    let delimiter = format!("--{MARK}{number}==");
    let mut text = format!("{HEAD}{number}{HEAD_END}");
    for part in parts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{delimiter}\n{part}");
    }
    text + &delimiter + "--\n"
}
