//! The values of a domain: attributes, texts and comments. The domain is well-formed: the shim's
//! check of hooks' replies has passed it, so delimiters alone show where a tag ends.
//!
//! Not quick-xml, whose events split a text at each reference: the pieces of a secret would have to
//! be put together again. And each shim would hold the parser in memory, recording or not.

use std::borrow::Cow;

use memchr::memmem;

use super::Place;
use super::looks::{is_secret_name, is_secret_option, plain};
use crate::hook::resolved;

/// Attributes that are secret by their name in addition to those of JSON's: the query of a URL, in
/// which servers take tokens.
const SECRET_ATTRIBUTES: [&str; 1] = ["query"];

/// Attributes of `<secret>` that name one of libvirt's secrets.
const OF_SECRET: [&str; 2] = ["uuid", "usage"];

/// Elements whose text is secret in addition: arguments and environment of a container.
const SECRET_TEXTS: [&str; 2] = ["initarg", "initenv"];

/// Parts of QEMU's arguments that carry a value for the guest.
const ARGUMENTS: [&str; 4] = ["secret", "passw", "string=", "type=11,"];

/// The option of QEMU before the command line of a kernel.
const APPEND: [&str; 2] = ["-append", "--append"];

/// Attributes that give a name to the value beside them.
const NAMES: [&str; 3] = ["name", "key", "id"];

/// The element in which others than libvirt keep what they want.
const METADATA: &str = "metadata";

/// An element that is open.
struct Element {
    name: String,
    /// Whether its text is secret.
    is_secret: bool,
    /// Whether a piece of its text was replaced.
    has_text: bool,
    /// The last argument in it is an option whose value is secret.
    is_behind_option: bool,
}

type Visit<'a> = &'a mut dyn FnMut(&Place<'_>, &str) -> Option<String>;

/// Visits each value. Returns the document with what `visit` returns in their place.
pub(super) fn walk(xml: &str, visit: Visit<'_>) -> String {
    let mut out = String::with_capacity(xml.len());
    let mut open: Vec<Element> = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        text(&rest[..at], &mut open, visit, &mut out);
        rest = &rest[at..];
        rest = if let Some(inside) = rest.strip_prefix("<!--") {
            let (comment, after) = split(inside, "-->");
            out.extend(["<!--", &other(comment, visit), "-->"]);
            after
        } else if let Some(inside) = rest.strip_prefix("<![CDATA[") {
            let (section, after) = split(inside, "]]>");
            match replaced(section, &mut open, visit) {
                Some(text) => out.push_str(&escape(&text)),
                None => out.extend(["<![CDATA[", section, "]]>"]),
            }
            after
        } else if let Some(inside) = rest.strip_prefix("<?") {
            let (instruction, after) = split(inside, "?>");
            // Its name with the space behind it, and what it says.
            let (_, says) = instruction.split_once(char::is_whitespace).unwrap_or_default();
            let name = &instruction[..instruction.len() - says.len()];
            out.extend(["<?", name, &other(says, visit), "?>"]);
            after
        } else if rest.starts_with("</") {
            let (tag, after) = split(rest, ">");
            open.pop();
            out.push_str(tag);
            out.push('>');
            after
        } else {
            start_tag(rest, &mut open, visit, &mut out)
        };
    }
    out.push_str(rest);
    out
}

/// An attribute.
struct Attribute<'a> {
    /// All before its value, white space included.
    before: &'a str,
    /// Its plain name without its prefix. `None` for the declaration of a namespace, whose value
    /// hooks do not read.
    key: Option<String>,
    /// Whether its name is that of a secret.
    is_secret: bool,
    quote: char,
    raw: &'a str,
    value: Cow<'a, str>,
}

/// Copies a start tag, and returns what is behind it.
fn start_tag<'a>(
    tag: &'a str,
    open: &mut Vec<Element>,
    visit: Visit<'_>,
    out: &mut String,
) -> &'a str {
    let end = tag.find(|c: char| c.is_ascii_whitespace() || c == '>' || c == '/');
    let (start, mut rest) = tag.split_at(end.unwrap_or(tag.len()));
    let start_name = start.trim_start_matches('<');
    let name = plain(local(start_name));
    let mut attributes = Vec::new();
    while let Some((attribute, after)) = attribute(rest) {
        attributes.push(attribute);
        rest = after;
    }
    out.push_str(start);
    let is_secret = has_secret_text(&name, local(start_name), &attributes, open);
    for attribute in &attributes {
        let Attribute { before, key, quote, raw, value, .. } = attribute;
        out.push_str(before);
        out.push(*quote);
        let replaced = key.as_ref().and_then(|key| {
            let is_below = is_secret && open.iter().any(|it| it.name == METADATA);
            let is_secret = (is_below && !NAMES.contains(&&**key))
                || is_secret_attribute(&name, attribute, &attributes)
                || (name == "arg" && open.last().is_some_and(|it| it.is_behind_option));
            visit(&Place { name: key, is_key: false, is_secret }, value)
        });
        match replaced {
            Some(text) => out.push_str(&escape(&text)),
            None => out.push_str(raw),
        }
        out.push(*quote);
    }
    let (end, after) = rest.split_at(rest.find('>').map_or(rest.len(), |at| at + 1));
    out.push_str(end);
    if let Some(argument) = value_of(&attributes, "value").filter(|_| name == "arg")
        && let Some(around) = open.last_mut()
    {
        around.is_behind_option = APPEND.contains(&argument) || is_secret_option(argument);
    }
    if !end.ends_with("/>") {
        let is_firmware = name == "sysinfo" && value_of(&attributes, "type") == Some("fwcfg");
        let name = if is_firmware { "fwcfg".to_owned() } else { name };
        open.push(Element { name, is_secret, has_text: false, is_behind_option: false });
    }
    after
}

/// Splits the first attribute of a tag from the rest. `None` at the tag's end.
fn attribute(tag: &str) -> Option<(Attribute<'_>, &str)> {
    if tag.trim_start().starts_with(['/', '>']) {
        return None;
    }
    let at = tag.find(['"', '\''])?;
    let quote = char::from(tag.as_bytes()[at]);
    let (before, inside) = (&tag[..at], &tag[at + 1..]);
    let (raw, after) = inside.split_once(quote)?;
    let name = before.split('=').next().unwrap_or_default().trim();
    let is_namespace = name == "xmlns" || name.starts_with("xmlns:");
    let key = (!is_namespace).then(|| plain(local(name)));
    let is_secret = is_secret_name(local(name));
    Some((Attribute { before, key, is_secret, quote, raw, value: resolved(raw) }, after))
}

/// Returns the value of an attribute.
fn value_of<'a>(attributes: &'a [Attribute<'_>], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|it| it.key.as_deref() == Some(name));
    found.map(|it| &*it.value)
}

/// Whether an element has the name of a secret in an attribute: a variable of the environment.
fn is_named(all: &[Attribute<'_>]) -> bool {
    NAMES.iter().any(|name| value_of(all, name).is_some_and(is_secret_name))
}

fn is_secret_attribute(element: &str, it: &Attribute<'_>, all: &[Attribute<'_>]) -> bool {
    let key = it.key.as_deref().unwrap_or_default();
    let is_argument = || {
        let value = it.value.to_lowercase();
        ARGUMENTS.iter().any(|part| value.contains(part))
    };
    it.is_secret
        || SECRET_ATTRIBUTES.contains(&key)
        || (element == "secret" && OF_SECRET.contains(&key))
        || (element == "arg" && is_argument())
        || (key == "value" && is_named(all))
}

/// Whether an element's text is secret: all below a secret name is.
fn has_secret_text(
    element: &str,
    name: &str,
    attributes: &[Attribute<'_>],
    around: &[Element],
) -> bool {
    let is_below = |name: &str| around.iter().any(|it| it.name == name);
    around.last().is_some_and(|it| it.is_secret)
        || is_secret_name(name)
        || is_named(attributes)
        || SECRET_TEXTS.contains(&element)
        || (element == "entry" && (is_below("oemstrings") || is_below("fwcfg")))
}

/// Copies text outside CDATA sections.
fn text(raw: &str, open: &mut [Element], visit: Visit<'_>, out: &mut String) {
    if raw.trim().is_empty() {
        out.push_str(raw);
        return;
    }
    match replaced(&resolved(raw), open, visit) {
        Some(text) => out.push_str(&escape(&text)),
        None => out.push_str(raw),
    }
}

/// Returns what takes the place of a piece of an element's text.
fn replaced(piece: &str, open: &mut [Element], visit: Visit<'_>) -> Option<String> {
    let element = open.last_mut()?;
    let text =
        visit(&Place { name: &element.name, is_key: false, is_secret: element.is_secret }, piece)?;
    // A secret that a comment or a CDATA section splits has one placeholder.
    let is_rest = element.is_secret && element.has_text;
    element.has_text = true;
    Some(if is_rest { String::new() } else { text })
}

/// Returns what is in a comment or a processing instruction.
fn other<'a>(inside: &'a str, visit: Visit<'_>) -> Cow<'a, str> {
    match visit(&Place { name: "", is_key: false, is_secret: false }, inside) {
        None => Cow::Borrowed(inside),
        // Neither may contain its end, nor a comment two hyphens.
        Some(mut text) => {
            text = text.replace("--", "- -").replace("?>", "? >");
            let hyphen = if text.ends_with('-') { " " } else { "" };
            Cow::Owned(text + hyphen)
        }
    }
}

/// Splits a text at the first `end`, which is in neither part.
fn split<'a>(text: &'a str, end: &str) -> (&'a str, &'a str) {
    match memmem::find(text.as_bytes(), end.as_bytes()) {
        Some(at) => (&text[..at], &text[at + end.len()..]),
        None => (text, ""),
    }
}

/// Returns a name without its prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or_default()
}

/// Escapes a text for an attribute or an element.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            _ => out.push(c),
        }
    }
    out
}
