//! The scan of a document: markup, attributes, text, references and characters, in one pass that
//! looks at each byte once. It follows the grammar of XML 1.0 without a document type.
//!
//! It is quick for ordinary documents: names in ASCII, text, few attributes. What is rare (other
//! names, many attributes, namespaces) has functions that most tags never enter.

use super::names::{local, prefix};
use super::namespaces::{MAX_PREFIXES, Namespaces, Undeclared};
use super::tokens::{IN_TEXT, IN_VALUE};

/// Maximum depth of elements, which `protocol.md` and the SDKs have too. libxml2's is 256.
pub(super) const MAX_DEPTH: usize = 255;

/// Maximum number of attributes of one element, far more than libvirt's elements have. They are
/// kept while the tag is checked.
pub(super) const MAX_ATTRIBUTES: usize = 1000;

/// Up to this number, attributes are compared each with each; more are sorted.
const FEW_ATTRIBUTES: usize = 16;

const TEXT_OUTSIDE: &str = "there is text outside the element `domain`";

/// Maximum length of a name in an error.
const MAX_EXCERPT_CHARS: usize = 120;

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: String,
    /// The offset in bytes.
    pub(super) at: usize,
}

/// A fault is boxed, because most documents have none.
pub(super) type Result<T> = std::result::Result<T, Box<Fault>>;

/// Scans a whole document, which must be one well-formed element `domain`. Returns the prefixes
/// that are used where they are not declared.
pub(super) fn domain(text: &str) -> Result<Vec<Undeclared<'_>>> {
    let mut scan = Scan::new(text, Namespaces::default());
    scan.document()?;
    Ok(scan.namespaces.undeclared().to_vec())
}

/// Returns those of the prefixes that a document uses where they are not declared. A document that
/// is broken is searched up to that place.
pub(super) fn undeclared_in<'a>(text: &'a str, prefixes: Vec<&'a [u8]>) -> Vec<&'a [u8]> {
    let mut scan = Scan::new(text, Namespaces::only(prefixes));
    // Whether it is well-formed does not matter here.
    drop(scan.document());
    scan.namespaces.undeclared().iter().map(|it| it.prefix).collect()
}

pub(super) struct Scan<'a> {
    pub(super) text: &'a str,
    /// What is not scanned yet.
    pub(super) rest: &'a [u8],
    /// The names of the elements around it.
    open: Vec<&'a [u8]>,
    /// The names of the attributes of the tag that is being read.
    attributes: Vec<&'a [u8]>,
    /// Those of them that declare a namespace, and their values without the quotes.
    declarations: Vec<(&'a [u8], &'a [u8])>,
    /// Whether the tag that is being read has a prefix or a declaration.
    pub(super) has_prefixes: bool,
    namespaces: Namespaces<'a>,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str, namespaces: Namespaces<'a>) -> Self {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text).as_bytes();
        Self {
            text,
            rest,
            open: Vec::new(),
            attributes: Vec::new(),
            declarations: Vec::new(),
            has_prefixes: false,
            namespaces,
        }
    }

    /// Accepts the whole document.
    fn document(&mut self) -> Result<()> {
        if let [b'<', b'?', b'x', b'm', b'l', b' ' | b'\t' | b'\n' | b'\r' | b'?', ..] = self.rest {
            self.declaration()?;
        }
        let mut has_root = false;
        loop {
            if self.open.is_empty() {
                self.skip_space();
            } else {
                self.content()?;
            }
            match self.rest {
                [] => return self.at_end(has_root),
                [b'<', b'/', ..] if self.open.is_empty() => {
                    return self.fail("an end tag that matches no start tag");
                }
                [b'<', b'/', ..] => self.end_tag()?,
                [b'<', b'!', b'-', b'-', ..] => self.comment()?,
                [b'<', b'!', ..] => self.cdata()?,
                [b'<', b'?', ..] => self.instruction()?,
                [b'<', ..] => has_root = self.start_tag(has_root)? || has_root,
                _ => return self.fail(TEXT_OUTSIDE),
            }
        }
    }

    fn at_end(&self, has_root: bool) -> Result<()> {
        if !self.open.is_empty() {
            return self.fail("it ends before all elements are closed");
        }
        if !has_root {
            return self.fail("it has no element `domain`");
        }
        Ok(())
    }

    /// Accepts text and references up to the next markup, or to the end.
    fn content(&mut self) -> Result<()> {
        loop {
            match self.run(IN_TEXT) {
                [] | [b'<', ..] => return Ok(()),
                [b'&', ..] => self.reference()?,
                [b']', b']', b'>', ..] => return self.fail("the text contains `]]>`"),
                [b']', rest @ ..] => self.rest = rest,
                _ => self.character()?,
            }
        }
    }

    /// Accepts a start tag, or the tag of an empty element. Returns whether it is the root's.
    fn start_tag(&mut self, has_root: bool) -> Result<bool> {
        let at = self.position();
        self.rest = &self.rest[1..];
        self.has_prefixes = false;
        let name = self.name()?;
        self.attributes()?;
        let is_root = self.open.is_empty();
        if is_root && has_root {
            return fail(at, format!("a second root element `{}`", show(name)));
        }
        if is_root && name != b"domain" {
            let shown = show(name);
            return fail(at, format!("its root element is `{shown}`, not `domain`"));
        }
        if self.open.len() == MAX_DEPTH {
            return fail(at, format!("its elements are nested more than {MAX_DEPTH} deep"));
        }
        self.check_attributes(name, at)?;
        if self.has_prefixes {
            self.check_namespaces(name, at)?;
        }
        if let [b'/', rest @ ..] = self.rest {
            self.rest = rest;
            self.namespaces.leave(self.open.len());
        } else {
            self.open.push(name);
        }
        self.rest = &self.rest[1..];
        Ok(is_root)
    }

    /// Accepts attributes up to the `>` or `/>` of a tag.
    fn attributes(&mut self) -> Result<()> {
        self.attributes.clear();
        self.declarations.clear();
        loop {
            let has_space = self.skip_space();
            match self.rest {
                [b'>', ..] | [b'/', b'>', ..] => return Ok(()),
                [] => return self.fail("it ends inside a tag"),
                [b'<', ..] => return self.fail("a tag lacks its `>`"),
                _ if !has_space => {
                    let at = self.position();
                    // A character that is not allowed in a name is the more likely mistake.
                    self.name_part()?;
                    return fail(at, "there is no space between two attributes".to_owned());
                }
                _ => {}
            }
            let name = self.name()?;
            self.skip_space();
            let [b'=', rest @ ..] = self.rest else {
                return self.fail("an attribute has no value (is there a bare `<`?)");
            };
            self.rest = rest;
            self.skip_space();
            let value = self.rest;
            self.value()?;
            self.attributes.push(name);
            if let [b'x', b'm', b'l', b'n', b's'] | [b'x', b'm', b'l', b'n', b's', b':', ..] = name
            {
                // Without the quotes.
                let value = &value[1..value.len() - self.rest.len() - 1];
                self.declarations.push((name, value));
                self.has_prefixes = true;
            }
            if self.attributes.len() > MAX_ATTRIBUTES {
                return self.fail(&format!("a tag has more than {MAX_ATTRIBUTES} attributes"));
            }
        }
    }

    /// Accepts a quoted value.
    fn value(&mut self) -> Result<()> {
        let [quote @ (b'"' | b'\''), rest @ ..] = self.rest else {
            return self.fail("the value of an attribute is not in quotes");
        };
        self.rest = rest;
        loop {
            match self.run(IN_VALUE) {
                [byte, rest @ ..] if byte == quote => {
                    self.rest = rest;
                    return Ok(());
                }
                [b'"' | b'\'', rest @ ..] => self.rest = rest,
                [b'&', ..] => self.reference()?,
                [b'<', ..] => {
                    return self.fail(
                        "the value of an attribute contains a bare `<` (write `&lt;`), or its \
                         closing quote is missing",
                    );
                }
                [] => return self.fail("it ends inside the value of an attribute"),
                _ => self.character()?,
            }
        }
    }

    /// Checks that no attribute of a tag stands there twice.
    fn check_attributes(&self, element: &[u8], at: usize) -> Result<()> {
        match duplicate(&self.attributes) {
            None => Ok(()),
            Some(twice) => {
                let (element, twice) = (show(element), show(twice));
                fail(at, format!("in the tag `{element}`: duplicate attribute `{twice}`"))
            }
        }
    }

    /// Applies what a tag declares, then checks its prefixes.
    fn check_namespaces(&mut self, element: &'a [u8], at: usize) -> Result<()> {
        for (name, value) in &self.declarations {
            let declared = prefix(name).map(|_| local(name));
            self.namespaces.declare(declared, value, self.open.len()).or_else(|fault| {
                let (element, name) = (show(element), show(name));
                fail(at, format!("in the tag `{element}`: `{name}` {fault}"))
            })?;
        }
        let attributes = self.attributes.iter().filter(|name| prefix(name) != Some(b"xmlns"));
        for name in std::iter::once(&element).chain(attributes.clone()) {
            let Some(prefix) = prefix(name) else { continue };
            if !self.namespaces.used(prefix, self.offset(name)) {
                return fail(at, format!("more than {MAX_PREFIXES} prefixes are not declared"));
            }
            // libxml2 demands that its values are unique.
            if name == b"xml:id" {
                return fail(at, format!("`{}` has an `xml:id`", show(element)));
            }
        }
        let qualified = attributes.filter_map(|name| {
            let namespace = self.namespaces.find(prefix(name)?)?;
            Some((local(name), namespace))
        });
        match duplicate(&qualified.collect::<Vec<_>>()) {
            None => Ok(()),
            Some((local, _)) => {
                let (element, local) = (show(element), show(local));
                let what = format!(
                    "in the tag `{element}`: duplicate attribute `{local}`, by two prefixes of \
                     one namespace"
                );
                fail(at, what)
            }
        }
    }

    /// Accepts the end tag of the element that was opened last.
    fn end_tag(&mut self) -> Result<()> {
        let at = self.position();
        let expected = self.open.pop().unwrap_or_default();
        if let Some(rest) = self.rest[2..].strip_prefix(expected) {
            self.rest = rest;
            self.skip_space();
            if let [b'>', rest @ ..] = self.rest {
                self.rest = rest;
                self.namespaces.leave(self.open.len());
                return Ok(());
            }
        }
        fail(at, format!("expected `</{}>`", show(expected)))
    }

    fn comment(&mut self) -> Result<()> {
        self.enclosed(b"<!--", b"--", "a comment has no end")?;
        if self.accept(b">") { Ok(()) } else { self.fail("a comment contains `--`") }
    }

    fn cdata(&mut self) -> Result<()> {
        if self.rest.starts_with(b"<!DOCTYPE") {
            // Neither libvirt nor KubeVirt needs one, and entities can exhaust a parser.
            return self.fail("it has a document type (`<!DOCTYPE`)");
        }
        if !self.rest.starts_with(b"<![CDATA[") {
            return self.fail("broken markup behind `<!`");
        }
        if self.open.is_empty() {
            return self.fail(TEXT_OUTSIDE);
        }
        self.enclosed(b"<![CDATA[", b"]]>", "a CDATA section has no end")
    }

    /// Accepts a processing instruction.
    fn instruction(&mut self) -> Result<()> {
        const NO_END: &str = "a processing instruction has no end";
        let at = self.position();
        self.rest = &self.rest[2..];
        let target = self.name_part()?;
        if target.eq_ignore_ascii_case(b"xml") {
            let what = "the XML declaration is not at the very beginning, or is broken";
            return fail(at, what.to_owned());
        }
        if self.accept(b"?>") {
            return Ok(());
        }
        if !self.skip_space() {
            return fail(at, "a processing instruction has an invalid name".to_owned());
        }
        self.enclosed(b"", b"?>", NO_END)
    }

    /// Accepts the XML declarations that libxml2 and Go accept: version 1.0, and UTF-8, as the text
    /// is.
    fn declaration(&mut self) -> Result<()> {
        let at = self.position();
        self.rest = &self.rest[b"<?xml".len()..];
        let mut has_space = self.skip_space();
        for (key, is_required) in
            [(&b"version"[..], true), (&b"encoding"[..], false), (&b"standalone"[..], false)]
        {
            if !self.rest.starts_with(key) && !is_required {
                continue;
            }
            if !has_space || !self.accept(key) {
                return fail(at, "its XML declaration must begin with the version".to_owned());
            }
            self.skip_space();
            let is_set = self.accept(b"=");
            self.skip_space();
            let value = self.quoted().filter(|_| is_set);
            let fits = match key {
                b"version" => value == Some(b"1.0"),
                b"encoding" => value.is_some_and(|it| it.eq_ignore_ascii_case(b"utf-8")),
                _ => matches!(value, Some(b"yes" | b"no")),
            };
            if !fits {
                let what = "its XML declaration must be version 1.0, with encoding UTF-8 if any";
                return fail(at, what.to_owned());
            }
            has_space = self.skip_space();
        }
        if self.accept(b"?>") {
            return Ok(());
        }
        fail(at, "its XML declaration is broken".to_owned())
    }
}

#[cold]
pub(super) fn fail<T>(at: usize, what: String) -> Result<T> {
    Err(Box::new(Fault { what, at }))
}

/// Finds what is there twice.
fn duplicate<T: Ord + Copy>(items: &[T]) -> Option<T> {
    if items.len() > FEW_ATTRIBUTES {
        let mut sorted = items.to_vec();
        sorted.sort_unstable();
        return sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
    }
    let mut rest = items;
    while let [first, others @ ..] = rest {
        // `contains` would be a function call.
        if others.iter().any(|other| other == first) {
            return Some(*first);
        }
        rest = others;
    }
    None
}

/// Returns a name as an error shows it. No control character is part of a name.
pub(super) fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(MAX_EXCERPT_CHARS).collect()
}
