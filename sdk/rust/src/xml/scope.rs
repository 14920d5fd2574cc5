//! Namespaces: what prefixes mean, and which prefix is written.

use super::error::InvalidPath;
use super::path::Name;
use super::tag;
use super::text::{escape_value, is_allowed, value_of};
use super::tree::{Id, Namespace, Tree, NO_NAMESPACE, ROOT, UNDECLARED, XML, XMLNS, XML_NAMESPACE};

/// The namespace of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Space {
    Known(Namespace),
    /// A prefix that is neither declared nor in the table.
    Undeclared(String),
}

/// The name of a new element as it is written.
pub(super) struct Written {
    /// With its prefix.
    pub(super) name: String,
    /// The declaration that its tag has to have.
    pub(super) declaration: String,
    pub(super) namespace: Namespace,
}

impl Tree {
    /// Puts a prefix into the table, in place of what it meant.
    pub(super) fn set_namespace(&mut self, prefix: &str, name: &str) -> Result<(), InvalidPath> {
        let is_valid = match prefix {
            "xml" => name == XML,
            "xmlns" => false,
            _ => !name.is_empty() && name.chars().all(is_allowed) && ![XML, XMLNS].contains(&name),
        };
        if !is_valid {
            let why = "no declaration of this namespace is allowed in XML";
            return Err(InvalidPath::new(format!("prefix \"{prefix}\": {why}")));
        }
        let namespace = self.number(name);
        match self.table.iter_mut().find(|(known, _)| known == prefix) {
            Some((_, meaning)) => *meaning = namespace,
            None => self.table.push((prefix.to_owned(), namespace)),
        }
        Ok(())
    }

    /// Returns what a prefix of a path means.
    pub(super) fn in_table(&self, prefix: &str) -> Option<Namespace> {
        self.table.iter().find(|(known, _)| known == prefix).map(|(_, namespace)| *namespace)
    }

    /// Returns the namespace of a path's prefix, or `None` without a prefix.
    pub(super) fn looked_up(
        &self,
        path: &str,
        name: &Name<'_>,
    ) -> Result<Option<Namespace>, InvalidPath> {
        let unknown = |prefix| {
            let cure = "name its namespace with Document::namespace";
            InvalidPath::new(format!("\"{path}\": the prefix \"{prefix}\" is unknown: {cure}"))
        };
        let find = |prefix| self.in_table(prefix).ok_or_else(|| unknown(prefix));
        name.prefix.map(find).transpose()
    }

    /// Returns what the tag of an element declares this prefix to be.
    fn declared_by(&self, id: Id, prefix: &str) -> Option<Namespace> {
        if !self[id].declares {
            return None;
        }
        let tag = self.tag(id);
        let found = self.attributes(id).find(|it| it.declares(tag) == Some(prefix))?;
        Some(self.known(&value_of(&tag[found.value])))
    }

    /// Returns what a prefix is declared to be at an element.
    fn declared_at(&self, id: Id, prefix: &str) -> Option<Namespace> {
        if prefix == "xml" {
            return Some(XML_NAMESPACE);
        }
        self.upwards(id).find_map(|id| self.declared_by(id, prefix))
    }

    /// Returns what a prefix in the document means at an element.
    pub(super) fn meaning(&self, id: Id, prefix: &str) -> Option<Namespace> {
        self.declared_at(id, prefix).or_else(|| self.in_table(prefix))
    }

    /// Returns the namespace of an element.
    pub(super) fn space(&self, id: Id) -> Space {
        match (self[id].namespace, self.prefix(id)) {
            (UNDECLARED, Some(prefix)) => match self.meaning(id, prefix) {
                Some(namespace) => Space::Known(namespace),
                None => Space::Undeclared(prefix.to_owned()),
            },
            (namespace, _) => Space::Known(namespace),
        }
    }

    pub(super) fn is_in(&self, id: Id, space: &Space) -> bool {
        match self[id].namespace {
            UNDECLARED => self.space(id) == *space,
            namespace => *space == Space::Known(namespace),
        }
    }

    /// Returns the prefix of the nearest declaration of a namespace that holds at an element.
    fn nearest(&self, place: Id, namespace: Namespace) -> Option<String> {
        self.upwards(place).filter(|id| self[*id].declares).find_map(|id| {
            let tag = self.tag(id);
            let mut prefixes = self.attributes(id).filter_map(|it| it.declares(tag));
            let holds = |prefix: &&str| {
                !prefix.is_empty() && self.declared_at(place, prefix) == Some(namespace)
            };
            prefixes.find(holds).map(str::to_owned)
        })
    }

    /// Returns the outermost element around another one, where namespaces are declared.
    fn top(&self, id: Id) -> Id {
        self.upwards(id).find(|id| self[*id].is_removed).unwrap_or(ROOT)
    }

    /// Declares a prefix at the outermost element, unless that or an element between declares it.
    fn declare_at_top(&mut self, place: Id, prefix: &str, namespace: Namespace) -> bool {
        let top = self.top(place);
        let is_other = |id: Id| self.declared_by(id, prefix).is_some();
        if self.upwards(place).take_while(|id| *id != top).any(is_other) || is_other(top) {
            return false;
        }
        let declaration = self.declaration(prefix, namespace);
        let end = tag::end(self.tag(top));
        self.splice(top, end..end, &declaration);
        self[top].declares = true;
        true
    }

    fn declaration(&self, prefix: &str, namespace: Namespace) -> String {
        let colon = if prefix.is_empty() { "" } else { ":" };
        let value = escape_value(self.namespace_name(namespace), b'"');
        format!(" xmlns{colon}{prefix}=\"{value}\"")
    }

    /// Names a new element, and declares its namespace where that is needed.
    pub(super) fn name_element(&mut self, parent: Id, name: &Name<'_>, space: &Space) -> Written {
        let local = name.local;
        let with = |prefix: &str| format!("{prefix}:{local}");
        let written = |name, namespace| Written { name, declaration: String::new(), namespace };
        let namespace = match space {
            Space::Undeclared(prefix) => return written(with(prefix), UNDECLARED),
            Space::Known(namespace) => *namespace,
        };
        let holds = |prefix: &&str| self.declared_at(parent, prefix) == Some(namespace);
        if let Some(prefix) = name.prefix.filter(holds) {
            return written(with(prefix), namespace);
        }
        if self.declared_at(parent, "").unwrap_or(NO_NAMESPACE) == namespace {
            return written(local.to_owned(), namespace);
        }
        if let Some(prefix) = self.nearest(parent, namespace) {
            return written(with(&prefix), namespace);
        }
        let Some(prefix) = name.prefix else {
            // No namespace below a default one, or one whose prefix means another one here. At the
            // root, this would be in effect for all names.
            let declaration = self.declaration("", namespace);
            return Written { name: local.to_owned(), declaration, namespace };
        };
        let mut written = written(with(prefix), namespace);
        if !self.declare_at_top(parent, prefix, namespace) {
            written.declaration = self.declaration(prefix, namespace);
        }
        written
    }

    /// Returns the prefix for a new attribute, and declares its namespace where that is needed.
    pub(super) fn name_attribute(&mut self, id: Id, prefix: &str, namespace: Namespace) -> String {
        if self.declared_at(id, prefix) == Some(namespace) {
            return prefix.to_owned();
        }
        if let Some(prefix) = self.nearest(id, namespace) {
            return prefix;
        }
        if self.declare_at_top(id, prefix, namespace) {
            return prefix.to_owned();
        }
        // Here the prefix means another namespace, which names in this tag or below may be in.
        let is_taken = |prefix: &String| {
            self.in_table(prefix).is_some() || self.declared_at(id, prefix).is_some()
        };
        let mut others = (1_u64..).map(|number| format!("{prefix}{number}"));
        let prefix = others.find(|prefix| !is_taken(prefix)).unwrap_or_default();
        let declaration = self.declaration(&prefix, namespace);
        let end = tag::end(self.tag(id));
        self.splice(id, end..end, &declaration);
        self[id].declares = true;
        prefix
    }
}
