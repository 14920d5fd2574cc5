//! Reads a document: what XML 1.0 with namespaces calls well-formed, without document types. A
//! prefix need not be declared.

mod characters;

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::ParseError;
use super::tag;
use super::text::{is_space, value_of};
use super::tree::{
    is_blank, span, End, Gap, Id, Namespace, Node, Raw, Tree, MAX_DEPTH, NO_NAMESPACE, UNDECLARED,
    XML, XMLNS, XML_NAMESPACE,
};

/// Number of attributes up to which comparing all of them costs less than sorting them.
const FEW_ATTRIBUTES: usize = 16;

/// Why a document is refused.
type Fault = &'static str;

/// Parses a document.
pub(super) fn scan(source: &str) -> Result<Tree, ParseError> {
    if u32::try_from(source.len()).is_err() {
        return Err(ParseError::at("", 0, "the document has 4 GiB or more"));
    }
    let mut scanner = Scanner {
        text: source,
        at: 0,
        tree: Tree::new(),
        open: Vec::new(),
        scope: BTreeMap::new(),
        declared: Vec::new(),
        attributes: Vec::new(),
    };
    if let Err(fault) = scanner.document() {
        return Err(ParseError::at(source, scanner.at, fault));
    }
    let mut tree = scanner.tree;
    source.clone_into(&mut tree.source);
    tree.is_edited = false;
    Ok(tree)
}

/// An element whose end tag has not come yet.
struct Open<'s> {
    id: Id,
    /// As it is written.
    name: &'s str,
    /// The number of declarations around it.
    declared: usize,
}

struct Scanner<'s> {
    text: &'s str,
    at: usize,
    tree: Tree,
    open: Vec<Open<'s>>,
    /// What each prefix means here, innermost last. The default namespace has the prefix "".
    scope: BTreeMap<&'s str, Vec<Namespace>>,
    /// The prefixes that the open elements declare.
    declared: Vec<&'s str>,
    /// The names and values of the last tag. It is kept for its memory.
    attributes: Vec<(&'s str, Range<usize>)>,
}

impl<'s> Scanner<'s> {
    fn document(&mut self) -> Result<(), Fault> {
        self.take("\u{feff}");
        if self.take("<?xml") && self.peek().is_some_and(is_space) {
            self.declaration()?;
        } else {
            // Perhaps an instruction whose name begins like that.
            self.at = if self.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        }
        let mut gap = self.gap(0)?;
        loop {
            if self.take("</") {
                if self.end_tag(gap)? {
                    break;
                }
            } else if self.start_tag(gap)? {
                break;
            }
            gap = self.gap(self.at)?;
        }
        self.tree.tail = self.at;
        self.gap(self.at)?;
        if self.at < self.text.len() {
            return Err("the document ends with its first element, and this is another one");
        }
        Ok(())
    }

    /// The rest of `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>`.
    fn declaration(&mut self) -> Result<(), Fault> {
        // libxml2 and Go refuse other versions, and other encodings than that of the document.
        const BROKEN: Fault = "the XML declaration is broken, has another version than 1.0, or is \
                               not for UTF-8";
        for name in ["version", "encoding", "standalone"] {
            let start = self.at;
            if !(self.space() && self.take(name)) {
                if name == "version" {
                    return Err(BROKEN);
                }
                self.at = start;
                continue;
            }
            self.equals()?;
            let value = self.quoted()?;
            let value = &self.text[value];
            let is_valid = match name {
                "version" => value == "1.0",
                "encoding" => value.eq_ignore_ascii_case("utf-8"),
                _ => matches!(value, "yes" | "no"),
            };
            if !is_valid {
                return Err(BROKEN);
            }
        }
        self.space();
        if !self.take("?>") {
            return Err(BROKEN);
        }
        Ok(())
    }

    /// Reads what stands before the next tag, or before the end of the document.
    fn gap(&mut self, start: usize) -> Result<Gap, Fault> {
        let mut blank = Some(self.at);
        loop {
            let text = self.at;
            self.characters()?;
            if self.at > text {
                blank = is_blank(&self.text[text..self.at]).then_some(text);
                if blank.is_none() && self.open.is_empty() {
                    self.at = text;
                    return Err("a text outside of the document's element");
                }
            }
            if self.rest().is_empty() {
                if !self.open.is_empty() || self.tree.tail == 0 {
                    return Err("the document ends before its element does");
                }
            } else if self.take("<!--") {
                self.until("--", "a comment without end")?;
                if !self.take(">") {
                    return Err("\"--\" in a comment");
                }
                blank = Some(self.at);
                continue;
            } else if self.rest().starts_with("<![CDATA[") {
                if self.open.is_empty() {
                    return Err("a text outside of the document's element");
                }
                self.at += "<![CDATA[".len();
                self.until("]]>", "a CDATA section without end")?;
                blank = Some(self.at);
                continue;
            } else if self.rest().starts_with("<!") {
                return Err("a document type, or another declaration that is not allowed here");
            } else if self.take("<?") {
                self.instruction()?;
                blank = Some(self.at);
                continue;
            }
            let blank = blank.and_then(|blank| u32::try_from(blank - start).ok());
            return Ok(Gap { raw: Raw::of(start..self.at), blank });
        }
    }

    fn instruction(&mut self) -> Result<(), Fault> {
        let name = self.name()?;
        if name.contains(':') || name.eq_ignore_ascii_case("xml") {
            return Err("a processing instruction with a name that is not allowed");
        }
        if !self.take("?>") {
            if !self.space() {
                return Err("a processing instruction without white space behind its name");
            }
            self.until("?>", "a processing instruction without end")?;
        }
        Ok(())
    }

    /// Reads a start tag. Returns whether the document's element ends with it.
    fn start_tag(&mut self, before: Gap) -> Result<bool, Fault> {
        if self.open.len() == MAX_DEPTH {
            return Err("elements are nested more than 255 deep");
        }
        let start = self.at;
        self.at += "<".len();
        let name = self.name()?;
        if name.starts_with("xmlns:") {
            self.at = start;
            return Err("an element with the prefix xmlns");
        }
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.clear();
        let is_empty = loop {
            let has_space = self.space();
            if self.take("/>") {
                break true;
            } else if self.take(">") {
                break false;
            } else if !has_space {
                return Err("white space, \">\" or \"/>\" is missing in a tag");
            }
            let name = self.name()?;
            self.equals()?;
            attributes.push((name, self.quoted()?));
        };
        let end = self.at - if is_empty { "/>" } else { ">" }.len();
        let declared = self.declared.len();
        self.declare(&attributes)?;
        self.check_unique(&attributes)?;
        self.attributes = attributes;
        let node = self.node(before, Raw::of(start..end), name, declared);
        let id = self.tree.add(node).ok_or("the document has too many elements")?;
        self.tree.link(id, None);
        self.open.push(Open { id, name, declared });
        Ok(is_empty && self.close())
    }

    fn node(&self, before: Gap, tag: Raw, name: &str, declared: usize) -> Node {
        let prefix = tag::split(name).0;
        let local = prefix.map_or(1, |prefix| prefix.len() + 2);
        Node {
            tag,
            parts: None,
            name: span(local..1 + name.len()),
            end: End::Empty,
            before,
            inside: Gap::empty(),
            parent: self.open.last().map(|parent| parent.id),
            previous: None,
            next: None,
            first: None,
            last: None,
            namespace: match prefix {
                Some(prefix) => self.meaning(prefix).unwrap_or(UNDECLARED),
                None => self.meaning("").unwrap_or(NO_NAMESPACE),
            },
            declares: self.declared.len() > declared,
            is_removed: false,
        }
    }

    /// Brings the declarations of a tag into effect.
    fn declare(&mut self, attributes: &[(&'s str, Range<usize>)]) -> Result<(), Fault> {
        for (name, value) in attributes {
            let Some(prefix) = tag::declared(name) else { continue };
            let uri = value_of(&self.text[value.clone()]);
            let is_allowed = match prefix {
                "" => uri != XML && uri != XMLNS,
                "xml" => uri == XML,
                "xmlns" => false,
                _ => !uri.is_empty() && uri != XML && uri != XMLNS,
            };
            if !is_allowed {
                return Err("the declaration of a namespace that is not allowed");
            }
            let number = self.tree.number(&uri);
            self.scope.entry(prefix).or_default().push(number);
            self.declared.push(prefix);
        }
        Ok(())
    }

    fn meaning(&self, prefix: &str) -> Option<Namespace> {
        if prefix == "xml" {
            return Some(XML_NAMESPACE);
        }
        self.scope.get(prefix)?.last().copied()
    }

    /// Checks that no attribute of a tag is there twice, by two prefixes of one namespace either.
    fn check_unique(&self, attributes: &[(&'s str, Range<usize>)]) -> Result<(), Fault> {
        const TWICE: Fault = "an attribute is there twice";
        if attributes.len() < 2 {
            return Ok(());
        }
        let prefixed = attributes.iter().filter(|(name, _)| name.bytes().any(|byte| byte == b':'));
        if attributes.len() <= FEW_ATTRIBUTES && prefixed.count() < 2 {
            // Their names as they are written say all. Most tags are like that.
            let mut before = attributes.iter().enumerate();
            let is_twice = before.any(|(number, (name, _))| {
                attributes[..number].iter().any(|(other, _)| other == name)
            });
            return if is_twice { Err(TWICE) } else { Ok(()) };
        }
        let mut seen: Vec<_> = attributes
            .iter()
            .map(|(name, _)| match tag::split(name) {
                (Some(prefix), local) if prefix != "xmlns" => match self.meaning(prefix) {
                    Some(namespace) => (namespace, local),
                    None => (UNDECLARED, *name),
                },
                _ => (NO_NAMESPACE, *name),
            })
            .collect();
        seen.sort_unstable();
        if seen.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(TWICE);
        }
        Ok(())
    }

    /// Reads the rest of an end tag. Returns whether the document's element ends with it.
    fn end_tag(&mut self, inside: Gap) -> Result<bool, Fault> {
        let start = self.at - "</".len();
        let Some(open) = self.open.last() else { return Err("an end tag without a start tag") };
        let (id, wanted) = (open.id, open.name);
        if self.name()? != wanted {
            self.at = start;
            return Err("an end tag that does not match its start tag");
        }
        self.space();
        if !self.take(">") {
            return Err("\">\" is missing in an end tag");
        }
        self.tree[id].inside = inside;
        let (start, end) = span(start..self.at);
        self.tree[id].end = End::Source(start, end);
        Ok(self.close())
    }

    /// Takes the declarations of the innermost element out of effect. Returns whether it is the
    /// document's.
    fn close(&mut self) -> bool {
        if let Some(open) = self.open.pop() {
            for prefix in self.declared.drain(open.declared..) {
                if let Some(meanings) = self.scope.get_mut(prefix) {
                    meanings.pop();
                }
            }
        }
        self.open.is_empty()
    }
}
