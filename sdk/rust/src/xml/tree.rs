//! The document as a tree of its elements.
//!
//! Only elements are nodes. All else that stands between two tags (text, comments, …) is never
//! edited but as a whole, so it stays one text: the [`Gap`] before an element, or inside of the
//! end of one. A tag is a text as well, see
//! [`tag`](super::tag). What is not edited is a range of
//! the source.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut, Range};

use super::attributes::Parts;
use super::text::{is_space, trim_end};

/// Maximum nesting depth of elements, which the shim enforces: libxml2, which libvirt uses, has
/// about the same.
pub(super) const MAX_DEPTH: usize = 255;

/// What the prefix `xml` always means.
pub(super) const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// The namespace of declarations, which no document may declare.
pub(super) const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// Number of a node, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(NonZeroU32);

/// The outermost element.
pub(super) const ROOT: Id = Id(NonZeroU32::MIN);

/// Number of a namespace. 0 is none.
pub(super) type Namespace = u32;

pub(super) const NO_NAMESPACE: Namespace = 0;
pub(super) const XML_NAMESPACE: Namespace = 1;
/// The prefix of the name is not declared. What it means is looked up when it is asked for.
pub(super) const UNDECLARED: Namespace = u32::MAX;

/// A text that is part of the source, or is not.
#[derive(Debug, Clone)]
pub(super) enum Raw {
    Source(u32, u32),
    Own(String),
}

/// Makes numbers of a source into smaller ones.
#[expect(clippy::cast_possible_truncation, reason = "the scanner refuses sources of 4 GiB")]
pub(super) fn span(range: Range<usize>) -> (u32, u32) {
    (range.start as u32, range.end as u32)
}

impl Raw {
    pub(super) fn of(range: Range<usize>) -> Self {
        let (start, end) = span(range);
        Self::Source(start, end)
    }

    pub(super) fn get<'t>(&'t self, source: &'t str) -> &'t str {
        match self {
            Self::Source(start, end) => &source[*start as usize..*end as usize],
            Self::Own(text) => text,
        }
    }
}

/// What stands between two tags.
#[derive(Debug, Clone)]
pub(super) struct Gap {
    pub(super) raw: Raw,
    /// Where the white space at its end begins, if nothing but that stands between the tag behind
    /// and what comes before it. `None` if a text does.
    pub(super) blank: Option<u32>,
}

impl Gap {
    pub(super) fn empty() -> Self {
        Self::own(String::new(), Some(0))
    }

    pub(super) fn own(text: String, blank: Option<u32>) -> Self {
        Self { raw: Raw::Own(text), blank }
    }
}

/// How an element ends.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// `/>`
    Empty,
    /// An end tag of the source.
    Source(u32, u32),
    /// An end tag without white space.
    Plain,
}

#[derive(Debug)]
pub(super) struct Node {
    /// Up to the end of its name, if it was taken apart.
    pub(super) tag: Raw,
    pub(super) parts: Option<Box<Parts>>,
    /// Range of the name in the tag, without its prefix.
    pub(super) name: (u32, u32),
    pub(super) end: End,
    pub(super) before: Gap,
    /// Between the last child, or else the tag, and the end tag.
    pub(super) inside: Gap,
    /// Also of a removed element: there its prefixes are looked up.
    pub(super) parent: Option<Id>,
    pub(super) previous: Option<Id>,
    pub(super) next: Option<Id>,
    pub(super) first: Option<Id>,
    pub(super) last: Option<Id>,
    pub(super) namespace: Namespace,
    /// Whether its tag declares a namespace.
    pub(super) declares: bool,
    pub(super) is_removed: bool,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) source: String,
    /// Where what follows the root begins in the source.
    pub(super) tail: usize,
    nodes: Vec<Node>,
    /// All namespaces' numbers, and their names by number.
    numbers: BTreeMap<String, Namespace>,
    names: Vec<String>,
    /// Prefixes of paths.
    pub(super) table: Vec<(String, Namespace)>,
    pub(super) is_edited: bool,
}

impl Index<Id> for Tree {
    type Output = Node;

    fn index(&self, id: Id) -> &Node {
        &self.nodes[id.0.get() as usize - 1]
    }
}

impl IndexMut<Id> for Tree {
    fn index_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id.0.get() as usize - 1]
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree = Self {
            source: String::new(),
            tail: 0,
            nodes: Vec::new(),
            numbers: BTreeMap::new(),
            names: Vec::new(),
            table: Vec::new(),
            is_edited: false,
        };
        // In the order of `NO_NAMESPACE` and `XML_NAMESPACE`.
        tree.number("");
        tree.table = [("xml", XML), ("qemu", QEMU)]
            .map(|(prefix, name)| (prefix.to_owned(), tree.number(name)))
            .into();
        tree
    }

    /// Returns the number of a namespace.
    #[expect(clippy::cast_possible_truncation, reason = "a source is shorter than 4 GiB")]
    pub(super) fn number(&mut self, name: &str) -> Namespace {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        number
    }

    /// Returns the number of a namespace that a tag of this document declares.
    pub(super) fn known(&self, name: &str) -> Namespace {
        self.numbers.get(name).copied().unwrap_or(UNDECLARED)
    }

    pub(super) fn namespace_name(&self, number: Namespace) -> &str {
        self.names.get(number as usize).map_or("", String::as_str)
    }

    /// Adds a node, without a place among its parent's children. `None` after 4 billion.
    pub(super) fn add(&mut self, node: Node) -> Option<Id> {
        self.nodes.push(node);
        Some(Id(u32::try_from(self.nodes.len()).ok().and_then(NonZeroU32::new)?))
    }

    pub(super) fn tag(&self, id: Id) -> &str {
        self[id].tag.get(&self.source)
    }

    /// Returns the name of an element, without prefix.
    pub(super) fn local(&self, id: Id) -> &str {
        let (start, end) = self[id].name;
        &self.tag(id)[start as usize..end as usize]
    }

    /// Returns the prefix of an element's name.
    pub(super) fn prefix(&self, id: Id) -> Option<&str> {
        let colon = (self[id].name.0 as usize).checked_sub(1).filter(|colon| *colon > 0)?;
        Some(&self.tag(id)[1..colon])
    }

    pub(super) fn children(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        let mut next = self[id].first;
        std::iter::from_fn(move || {
            let child = next?;
            next = self[child].next;
            Some(child)
        })
    }

    /// Returns an element and those around it.
    pub(super) fn upwards(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        std::iter::successors(Some(id), |id| self[*id].parent)
    }

    /// Puts a node among its parent's children, before one of them or at the end.
    pub(super) fn link(&mut self, id: Id, before: Option<Id>) {
        let Some(parent) = self[id].parent else { return };
        let previous = match before {
            Some(next) => self[next].previous.replace(id),
            None => self[parent].last.replace(id),
        };
        match previous {
            Some(previous) => self[previous].next = Some(id),
            None => self[parent].first = Some(id),
        }
        (self[id].previous, self[id].next) = (previous, before);
        self.is_edited = true;
    }

    /// Takes a node and the white space before it out of its parent.
    pub(super) fn unlink(&mut self, id: Id) {
        let Some(parent) = self[id].parent.filter(|_| !self[id].is_removed) else { return };
        let (previous, next) = (self[id].previous.take(), self[id].next.take());
        match previous {
            Some(previous) => self[previous].next = next,
            None => self[parent].first = next,
        }
        match next {
            Some(next) => self[next].previous = previous,
            None => self[parent].last = previous,
        }
        self[id].is_removed = true;
        let left = std::mem::replace(&mut self[id].before, Gap::empty());
        let slot = |tree: &mut Self, gap| match next {
            Some(next) => std::mem::replace(&mut tree[next].before, gap),
            None => std::mem::replace(&mut tree[parent].inside, gap),
        };
        let right = slot(self, Gap::empty());
        let joined = self.join(left, &right);
        slot(self, joined);
        self.is_edited = true;
    }

    /// Joins what stands before and behind an element that goes. The white space before it goes
    /// along.
    fn join(&self, left: Gap, right: &Gap) -> Gap {
        let right_text = right.raw.get(&self.source);
        let mut text = match left.raw {
            Raw::Own(text) => text,
            Raw::Source(..) => left.raw.get(&self.source).to_owned(),
        };
        if let Some(blank) = left.blank {
            text.truncate(blank as usize);
        }
        // If a text goes on, all of it counts.
        let blank = right.blank.filter(|blank| left.blank.is_some() || *blank > 0);
        let blank = blank.map(|blank| right_text.len() - blank as usize);
        // XML does not allow "]]>" in a text.
        let seam = if text.ends_with("]]") && right_text.starts_with('>') {
            0
        } else if text.ends_with(']') && right_text.starts_with("]>") {
            1
        } else {
            right_text.len()
        };
        let (start, end) = right_text.split_at(seam);
        text.push_str(start);
        if let Some(end) = end.strip_prefix('>') {
            text.push_str("&gt;");
            text.push_str(end);
        }
        let blank = blank.and_then(|length| u32::try_from(text.len() - length).ok());
        Gap::own(text, blank)
    }

    /// Returns an element's indentation, from the line break on, if it is on its own line.
    pub(super) fn indentation(&self, id: Id) -> Option<&str> {
        let before = &self[id].before;
        let blank = before.raw.get(&self.source).get(before.blank? as usize..)?;
        let at = blank.rfind('\n')?;
        Some(&blank[at - usize::from(blank[..at].ends_with('\r'))..])
    }

    /// Gives `<a/>` an end tag.
    pub(super) fn open_up(&mut self, id: Id) {
        if matches!(self[id].end, End::Empty) {
            let tag = trim_end(self.tag(id)).to_owned();
            if let Some(parts) = &mut self[id].parts {
                parts.tail.clear();
            } else {
                self[id].tag = Raw::Own(tag);
            }
            self[id].end = End::Plain;
        }
    }

    /// Writes the document.
    pub(super) fn write(&self) -> String {
        let mut out = String::with_capacity(self.source.len() + 1024);
        self.write_element(ROOT, &mut out);
        out.push_str(&self.source[self.tail..]);
        out
    }

    /// Writes an element and what stands before it.
    fn write_element(&self, top: Id, out: &mut String) {
        let mut at = top;
        'elements: loop {
            let node = &self[at];
            out.push_str(node.before.raw.get(&self.source));
            out.push_str(self.tag(at));
            if let Some(parts) = &node.parts {
                out.extend(parts.iter().map(|it| it.all));
                out.push_str(&parts.tail);
            }
            if matches!(node.end, End::Empty) {
                out.push_str("/>");
            } else {
                out.push('>');
                if let Some(child) = node.first {
                    at = child;
                    continue;
                }
                self.write_end(at, out);
            }
            loop {
                if at == top {
                    break 'elements;
                }
                let node = &self[at];
                if let Some(next) = node.next {
                    at = next;
                    break;
                }
                at = node.parent.unwrap_or(top);
                self.write_end(at, out);
            }
        }
    }

    /// Writes what is inside of an element.
    pub(super) fn write_inside(&self, id: Id) -> String {
        let mut out = String::new();
        for child in self.children(id) {
            self.write_element(child, &mut out);
        }
        out.push_str(self[id].inside.raw.get(&self.source));
        out
    }

    fn write_end(&self, id: Id, out: &mut String) {
        let node = &self[id];
        out.push_str(node.inside.raw.get(&self.source));
        match node.end {
            End::Empty => {}
            End::Source(start, end) => {
                out.push_str(&self.source[start as usize..end as usize]);
            }
            End::Plain => {
                out.push_str("</");
                out.push_str(&self.tag(id)[1..node.name.1 as usize]);
                out.push('>');
            }
        }
    }
}

/// Whether a text is nothing but white space.
pub(super) fn is_blank(text: &str) -> bool {
    text.bytes().all(is_space)
}
