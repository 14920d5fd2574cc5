//! Namespaces: what prefixes mean, and which prefix is written.

use super::attributes::declaration_name;
use super::error::InvalidPath;
use super::path::Name;
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
    /// Puts a prefix into the table. It must not stand for another namespace.
    pub(super) fn set_namespace(&mut self, prefix: &str, name: &str) -> Result<(), InvalidPath> {
        let invalid =
            |why: &str| Err(InvalidPath::new(format!("prefix \"{prefix}\""), why.to_owned()));
        let known = self.in_table(prefix).map(|known| self.namespace_name(known));
        if known == Some(name) {
            return Ok(());
        }
        if known.is_some() || prefix == "xmlns" {
            return invalid("it stands for another namespace");
        }
        if [XML, XMLNS].contains(&name) {
            return invalid("XML reserves this namespace");
        }
        if name.is_empty() || !name.chars().all(is_allowed) {
            return invalid("its namespace is empty, or XML cannot hold it");
        }
        let namespace = self.number(name);
        self.table.push((prefix.to_owned(), namespace));
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
            let why = format!("the prefix \"{prefix}\" is unknown: {cure}");
            InvalidPath::new(format!("\"{path}\""), why)
        };
        let find = |prefix| self.in_table(prefix).ok_or_else(|| unknown(prefix));
        name.prefix.map(find).transpose()
    }

    /// Returns what the tag of an element declares this prefix to be.
    fn declared_by(&self, id: Id, prefix: &str) -> Option<Namespace> {
        if !self[id].declares {
            return None;
        }
        self.declaration_of(id, prefix).map(|value| self.known(&value_of(value)))
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
        let holds = |(prefix, value): &(&str, &str)| {
            !prefix.is_empty()
                && self.known(&value_of(value)) == namespace
                && self.declared_at(place, prefix) == Some(namespace)
        };
        let declaring = self.upwards(place).filter(|id| self[*id].declares);
        let found = declaring.flat_map(|id| self.declarations(id)).find(holds);
        // That one counts as declared around the root.
        let xml = (namespace == XML_NAMESPACE).then_some("xml");
        found.map(|it| it.0).or(xml).map(str::to_owned)
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
        let name = self.namespace_name(namespace).to_owned();
        self.declare(top, prefix, &name);
        true
    }

    fn declaration(&self, prefix: &str, namespace: Namespace) -> String {
        let value = escape_value(self.namespace_name(namespace), b'"');
        format!(" {}=\"{value}\"", declaration_name(prefix))
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
        let name = self.namespace_name(namespace).to_owned();
        self.declare(id, &prefix, &name);
        prefix
    }
}
