//! The attributes of one tag, where they change.
//!
//! A tag that is not edited is read again each time. One that is edited is taken apart, so that a
//! change takes a time that does not grow with the number of attributes.

use std::collections::HashMap;

use super::find::Key;
use super::tag::{self, Attribute};
use super::text::escape_value;
use super::tree::{Id, Tree};

/// Length from which a tag is taken apart to be read: with so much in it, that takes less time
/// than to read it often. Ordinary tags are shorter.
const LONG_TAG_BYTES: usize = 4096;

/// Where what an attribute consists of stands in its text, which begins with white space and ends
/// with a quote.
#[derive(Debug)]
struct Part {
    text: String,
    name: (usize, usize),
    value: usize,
}

impl Part {
    fn of(attribute: &Attribute<'_>) -> Self {
        let name = attribute.all.len() - attribute.all.trim_start().len();
        let value = attribute.all.len() - 1 - attribute.value.len();
        Self { text: attribute.all.to_owned(), name: (name, name + attribute.name.len()), value }
    }

    fn new(name: &str, escaped: &str) -> Self {
        let text = format!(" {name}=\"{escaped}\"");
        let value = text.len() - 1 - escaped.len();
        Self { text, name: (1, 1 + name.len()), value }
    }

    fn get(&self) -> Attribute<'_> {
        Attribute {
            all: &self.text,
            name: &self.text[self.name.0..self.name.1],
            value: &self.text[self.value..self.text.len() - 1],
        }
    }
}

/// The attributes and declarations of a tag that was taken apart.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// In their order. A removed one is `None`.
    list: Vec<Option<Part>>,
    /// Their numbers in that list, by their names as they are written.
    numbers: HashMap<String, usize>,
    /// The prefixes of attributes. They may be more than are in use.
    prefixes: Vec<String>,
    /// The prefixes that are declared and their namespaces as they are written, in order. No edit
    /// changes a declaration.
    declared: Vec<(String, String)>,
    /// The white space behind the last one.
    pub(super) tail: String,
}

impl Parts {
    fn add(&mut self, part: Part) {
        let Attribute { name, value, .. } = part.get();
        if let Some(prefix) = tag::declared(name) {
            self.declared.push((prefix.to_owned(), value.to_owned()));
        } else if let (Some(prefix), _) = tag::split(name) {
            if !self.prefixes.iter().any(|it| it == prefix) {
                self.prefixes.push(prefix.to_owned());
            }
        }
        self.numbers.insert(name.to_owned(), self.list.len());
        self.list.push(Some(part));
    }

    fn remove(&mut self, name: &str) {
        if let Some(number) = self.numbers.remove(name) {
            self.list[number] = None;
        }
        if self.list.len() > 2 * self.numbers.len() {
            self.list.retain(Option::is_some);
            let parts = self.list.iter().flatten().enumerate();
            self.numbers =
                parts.map(|(number, part)| (part.get().name.to_owned(), number)).collect();
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        let part = self.numbers.get(name).and_then(|number| self.list[*number].as_mut());
        if let Some(part) = part {
            if let Some(quote) = part.text.pop() {
                part.text.truncate(part.value);
                part.text.push_str(&escape_value(value, quote as u8));
                part.text.push(quote);
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Attribute<'_>> {
        self.list[*self.numbers.get(name)?].as_ref().map(Part::get)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Attribute<'_>> {
        self.list.iter().flatten().map(Part::get)
    }
}

impl Tree {
    /// Returns all attributes and declarations of an element's tag.
    pub(super) fn attributes(&self, id: Id) -> impl Iterator<Item = Attribute<'_>> + '_ {
        let node = &self[id];
        let whole = node.parts.is_none();
        let whole = whole.then(|| tag::attributes(self.tag(id), node.name.1 as usize));
        whole.into_iter().flatten().chain(node.parts.iter().flat_map(|parts| parts.iter()))
    }

    /// Finds an attribute.
    pub(super) fn attribute(&self, id: Id, key: &Key<'_>) -> Option<Attribute<'_>> {
        let local = key.name.local;
        let means = |prefix: &str, wanted| self.meaning(id, prefix) == Some(wanted);
        match (&self[id].parts, key.namespace) {
            (Some(parts), None) => parts.get(local),
            (Some(parts), Some(wanted)) => {
                let found = parts.prefixes.iter().filter_map(|prefix| {
                    parts.get(&format!("{prefix}:{local}")).filter(|_| means(prefix, wanted))
                });
                found.into_iter().next()
            }
            (None, namespace) => {
                self.attributes(id).find(|it| match (tag::split(it.name), namespace) {
                    ((None, name), None) => name == local,
                    ((Some(prefix), name), Some(wanted)) => {
                        name == local && prefix != "xmlns" && means(prefix, wanted)
                    }
                    _ => false,
                })
            }
        }
    }

    /// Returns the prefixes that the tag of an element declares, and what for, in order.
    pub(super) fn declarations(&self, id: Id) -> impl Iterator<Item = (&str, &str)> + '_ {
        let parts = self[id].parts.as_ref();
        let changed = parts.into_iter().flat_map(|parts| &parts.declared);
        let changed = changed.map(|(prefix, value)| (prefix.as_str(), value.as_str()));
        let whole = parts.is_none().then(|| self.attributes(id));
        let whole = whole.into_iter().flatten();
        whole.filter_map(|it| Some((it.declares()?, it.value))).chain(changed)
    }

    /// Returns what the tag of an element declares a prefix to be.
    pub(super) fn declaration_of(&self, id: Id, prefix: &str) -> Option<&str> {
        match &self[id].parts {
            Some(parts) => parts.get(&declaration_name(prefix)).map(|it| it.value),
            None => self.declarations(id).find(|it| it.0 == prefix).map(|it| it.1),
        }
    }

    /// Takes a long tag apart, so that it is not read for each attribute. The document
    /// stays as it is written.
    pub(super) fn prepare(&mut self, id: Id) {
        if self[id].parts.is_none() && self.tag(id).len() > LONG_TAG_BYTES {
            self.take_apart(id);
        }
    }

    fn take_apart(&mut self, id: Id) -> &mut Parts {
        if self[id].parts.is_none() {
            let (tag, mut parts) = (self.tag(id), Parts::default());
            let mut end = self[id].name.1 as usize;
            for attribute in tag::attributes(tag, end) {
                end += attribute.all.len();
                parts.add(Part::of(&attribute));
            }
            tag[end..].clone_into(&mut parts.tail);
            let name = tag[..self[id].name.1 as usize].to_owned();
            self[id].tag = super::tree::Raw::Own(name);
            self[id].parts = Some(Box::new(parts));
        }
        self[id].parts.get_or_insert_default()
    }

    /// Adds an attribute behind the last one.
    pub(super) fn add_attribute(&mut self, id: Id, name: &str, value: &str) {
        self.take_apart(id).add(Part::new(name, &escape_value(value, b'"')));
        self.is_edited = true;
    }

    /// Changes the value of an attribute that is there, and keeps its quotes.
    pub(super) fn change_attribute(&mut self, id: Id, name: &str, value: &str) {
        self.take_apart(id).set(name, value);
        self.is_edited = true;
    }

    /// Removes an attribute by its name as it is written, and the white space before it.
    pub(super) fn drop_attribute(&mut self, id: Id, name: &str) {
        self.take_apart(id).remove(name);
        self.is_edited = true;
    }

    /// Adds the declaration of a namespace.
    pub(super) fn declare(&mut self, id: Id, prefix: &str, namespace: &str) {
        self.add_attribute(id, &declaration_name(prefix), namespace);
        self[id].declares = true;
    }
}

/// Returns the name of the attribute that declares a prefix.
pub(super) fn declaration_name(prefix: &str) -> String {
    let colon = if prefix.is_empty() { "" } else { ":" };
    format!("xmlns{colon}{prefix}")
}
