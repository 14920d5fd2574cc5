//! Namespaces: which prefix is declared where, and what a declaration may say.
//!
//! libvirt finds `qemu:commandline` by its namespace. Without a declaration it reads past the
//! element without a word, and the hook's work is lost.

use std::borrow::Cow;

use memchr::memchr;

use super::characters::reference;

/// Maximum number of prefixes that are declared at one place, and of different ones that are not
/// declared. libvirt's domains have one. A prefix is compared with each.
pub(super) const MAX_PREFIXES: usize = 64;

/// Maximum length of a namespace. They are compared with each other.
const MAX_NAMESPACE_BYTES: usize = 2000;

/// The namespace of the prefix `xml`, which needs no declaration.
const XML: &[u8] = b"http://www.w3.org/XML/1998/namespace";

/// The namespace of the prefix `xmlns`, which no document may declare.
const XMLNS: &[u8] = b"http://www.w3.org/2000/xmlns/";

/// A namespace, with its references resolved.
type Uri<'a> = Cow<'a, [u8]>;

/// The prefixes of a document.
#[derive(Debug, Default)]
pub(super) struct Namespaces<'a> {
    /// Those that are declared where the scan is, the innermost last.
    declared: Vec<Declaration<'a>>,
    /// Those that were used where they are not declared, each once.
    undeclared: Vec<Undeclared<'a>>,
    /// If set, only these are noted as undeclared.
    wanted: Option<Vec<&'a [u8]>>,
}

#[derive(Debug)]
struct Declaration<'a> {
    prefix: &'a [u8],
    uri: Uri<'a>,
    /// The number of elements around the one with the declaration.
    depth: usize,
}

/// A prefix that is not declared where it is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undeclared<'a> {
    pub(super) prefix: &'a [u8],
    /// Where it is used first, as an offset.
    pub(super) at: usize,
}

impl<'a> Namespaces<'a> {
    /// Notes only these prefixes as undeclared.
    pub(super) fn only(wanted: Vec<&'a [u8]>) -> Self {
        Self { wanted: Some(wanted), ..Self::default() }
    }

    pub(super) fn undeclared(&self) -> &[Undeclared<'a>] {
        &self.undeclared
    }

    /// Adds a prefix, or the default namespace (`None`), of an element that `depth` others contain.
    /// Returns what is wrong with it.
    pub(super) fn declare(
        &mut self,
        prefix: Option<&'a [u8]>,
        value: &'a [u8],
        depth: usize,
    ) -> Result<(), &'static str> {
        const TOO_MANY: &str = "is declared where 64 others are";
        let uri = resolved(value);
        match (prefix, &uri[..]) {
            (Some(b"xmlns"), _) => return Err("is reserved"),
            (Some(b"xml"), XML) => return Ok(()),
            (Some(b"xml"), _) | (_, XML | XMLNS) => {
                return Err("is declared with a reserved namespace, or is reserved");
            }
            (Some(_), b"") => return Err("is declared with an empty namespace"),
            (None, b"") => return Ok(()),
            _ => {}
        }
        if !is_uri(&uri) {
            return Err("is declared with a namespace that is not a valid URI");
        }
        // Only elements without a prefix have the default namespace, and it needs no declaration.
        let Some(prefix) = prefix else { return Ok(()) };
        if self.declared.len() == MAX_PREFIXES {
            return Err(TOO_MANY);
        }
        self.declared.push(Declaration { prefix, uri, depth });
        Ok(())
    }

    /// Forgets the declarations of an element that `depth` others contain.
    #[inline]
    pub(super) fn leave(&mut self, depth: usize) {
        while self.declared.last().is_some_and(|last| last.depth >= depth) {
            self.declared.pop();
        }
    }

    /// Returns the namespace of a prefix.
    pub(super) fn find(&self, prefix: &[u8]) -> Option<&[u8]> {
        if prefix == b"xml" {
            return Some(XML);
        }
        self.declared.iter().rev().find(|it| it.prefix == prefix).map(|it| &it.uri[..])
    }

    /// Notes the use of a prefix at an offset, if it is not declared. Returns false if there are
    /// too many of them.
    #[must_use]
    pub(super) fn used(&mut self, prefix: &'a [u8], at: usize) -> bool {
        if self.find(prefix).is_some()
            || self.undeclared.iter().any(|it| it.prefix == prefix)
            || self.wanted.as_ref().is_some_and(|wanted| !wanted.contains(&prefix))
        {
            return true;
        }
        self.undeclared.push(Undeclared { prefix, at });
        self.undeclared.len() <= MAX_PREFIXES
    }
}

/// Resolves the references in an attribute's value.
fn resolved(value: &[u8]) -> Uri<'_> {
    if !value.contains(&b'&') {
        return Cow::Borrowed(value);
    }
    let (mut text, mut rest) = (Vec::with_capacity(value.len()), value);
    while let [byte, after @ ..] = rest {
        if let Some((c, after)) = reference(rest) {
            text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        } else {
            text.push(*byte);
            rest = after;
        }
    }
    Cow::Owned(text)
}

/// Whether a text is a URI or a relative reference (RFC 3986), which libxml2 demands. A host must
/// be a name or numbers: no namespace has a user name or an address in brackets.
fn is_uri(text: &[u8]) -> bool {
    let is_allowed =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte);
    let is_escape = |after: &[u8]| after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit);
    let (before, fragment) = split(text, b'#');
    let parts = [before, fragment.unwrap_or_default()];
    let is_text = |part: &[u8]| {
        part.iter().all(is_allowed) && part.split(|byte| *byte == b'%').skip(1).all(is_escape)
    };
    if text.len() > MAX_NAMESPACE_BYTES || !parts.into_iter().all(is_text) {
        return false;
    }
    let (before, _) = split(before, b'?');
    let after_scheme = match split(split(before, b'/').0, b':') {
        (scheme, Some(_)) if is_scheme(scheme) => &before[scheme.len() + 1..],
        (_, Some(_)) => return false,
        (_, None) => before,
    };
    after_scheme.strip_prefix(b"//").is_none_or(|rest| is_authority(split(rest, b'/').0))
}

fn is_scheme(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(fits)
}

/// Whether a text is a host, with a port if there is a colon.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = split(text, b':');
    let is_port = |port: &[u8]| matches!(port.len(), 1..=5) && port.iter().all(u8::is_ascii_digit);
    !host.contains(&b'@') && port.is_none_or(is_port)
}

/// Splits a text at the first of these bytes.
fn split(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match memchr(at, text) {
        Some(found) => (&text[..found], Some(&text[found + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_uris() {
        for good in [
            "http://libvirt.org/schemas/domain/qemu/1.0",
            "http://kubevirt.io",
            "http://a:8080/b?c=d:/?#e/f",
            "urn:uuid:3b9e6c12-7f08-5d4a-a1c3-e4420d9b6f87",
            "http://example.org/%7Ea/~a;b=(c)",
            "app",
            "//a/b",
            "a/b:c",
            "#",
        ] {
            assert!(is_uri(good.as_bytes()), "{good}");
        }
        let long = format!("urn:{}", "a".repeat(MAX_NAMESPACE_BYTES));
        for bad in [
            "http://a b",
            " http://a",
            "http://a\n",
            "http://caf\u{e9}",
            "http://a\u{200b}",
            "1:a",
            ":a",
            "http://a:b/",
            "http://a:/",
            "http://a:123456/",
            "http://a/%",
            "http://a/%4",
            "http://a/%4g",
            "http://a/#b#c",
            "http://a/{b}",
            "a|b",
            "a\\b",
            "<a>",
            "a\"b",
            "a^b",
            "http://a@b@c",
            "http://[::1]/",
            &long,
        ] {
            assert!(!is_uri(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_prefix_is_declared_inside_its_element_and_may_be_declared_again() {
        let mut namespaces = Namespaces::default();
        namespaces.declare(Some(b"a"), b"urn:1", 0).unwrap();
        namespaces.declare(Some(b"a"), b"urn:&#x32;", 1).unwrap();
        assert_eq!(namespaces.find(b"a"), Some(&b"urn:2"[..]));
        namespaces.leave(1);
        assert_eq!(namespaces.find(b"a"), Some(&b"urn:1"[..]));
        namespaces.leave(0);
        assert_eq!(namespaces.find(b"a"), None);
        assert_eq!(namespaces.find(b"xml"), Some(XML));
    }

    #[test]
    fn undeclared_prefixes_are_noted_once_if_they_are_wanted_up_to_a_maximum() {
        let names: Vec<_> = (0..=MAX_PREFIXES).map(|number| format!("p{number}")).collect();
        let mut all = Namespaces::default();
        for (at, name) in names.iter().enumerate() {
            assert_eq!(all.used(name.as_bytes(), at), at < MAX_PREFIXES);
            assert!(at >= MAX_PREFIXES || all.used(name.as_bytes(), at + 1000));
        }
        let mut one = Namespaces::only(vec![b"p7"]);
        assert!(names.iter().all(|name| one.used(name.as_bytes(), 1)));
        let noted: Vec<_> = one.undeclared().iter().map(|it| it.prefix).collect();
        assert_eq!(noted, [b"p7"]);
    }
}
