//! Edits. Each of them checks everything before it changes anything.

use super::error::{EditError, InvalidPath};
use super::find::{Key, Test};
use super::text::{escape_text, is_allowed, is_text_alone, push_text, value_of};
use super::tree::{is_blank, span, End, Gap, Id, Node, Raw, Tree, MAX_DEPTH, ROOT};

/// Where a new element goes.
#[derive(Clone, Copy)]
pub(super) enum Place {
    LastIn(Id),
    Before(Id),
}

/// Checks that XML can hold a value.
pub(super) fn check(what: &str, value: &str) -> Result<(), EditError> {
    match value.chars().find(|c| !is_allowed(*c)) {
        Some(found) => Err(EditError::Value(format!(
            "{what}: XML cannot hold the character U+{:04X}",
            u32::from(found)
        ))),
        None => Ok(()),
    }
}

impl Tree {
    /// Finds the first match of a path, and adds what is missing.
    pub(super) fn ensure(
        &mut self,
        from: Id,
        path: &str,
        steps: &[Test<'_>],
    ) -> Result<Id, EditError> {
        let (mut at, mut done) = (from, 0);
        self.follow(from, steps, 0, &mut |found, depth| {
            if depth > done {
                (at, done) = (found, depth);
            }
            done == steps.len()
        });
        let missing = &steps[done..];
        self.check_new(at, path, missing)?;
        for step in missing {
            at = self.create(Place::LastIn(at), step)?;
        }
        Ok(at)
    }

    /// Adds an element.
    pub(super) fn insert(
        &mut self,
        place: Place,
        path: &str,
        step: &Test<'_>,
    ) -> Result<Id, EditError> {
        let parent = match place {
            Place::LastIn(parent) => parent,
            Place::Before(next) => self[next].parent.ok_or_else(|| {
                EditError::Value("nothing can be inserted before the root".to_owned())
            })?,
        };
        self.check_new(parent, path, std::slice::from_ref(step))?;
        self.create(place, step)
    }

    /// Checks that elements can be added, one in the other.
    fn check_new(&self, parent: Id, path: &str, steps: &[Test<'_>]) -> Result<(), EditError> {
        let invalid = |why: &str| InvalidPath::new(format!("path \"{path}\""), why.to_owned());
        for step in steps {
            if step.name.is_none() {
                return Err(invalid("an element is missing, and \"*\" does not name it").into());
            }
            for (number, (key, value)) in step.predicates.iter().enumerate() {
                check(&format!("attribute {}", key.name.local), value)?;
                let is_other = |(other, its): &(Key<'_>, &str)| other.is_same(key) && its != value;
                if step.predicates[..number].iter().any(is_other) {
                    return Err(invalid("a new element cannot have one attribute twice").into());
                }
            }
        }
        if !steps.is_empty() && self.upwards(parent).count() + steps.len() > MAX_DEPTH {
            let why = format!("elements cannot be nested more than {MAX_DEPTH} deep");
            return Err(EditError::Value(why));
        }
        Ok(())
    }

    /// Adds an element that was checked.
    fn create(&mut self, place: Place, step: &Test<'_>) -> Result<Id, EditError> {
        let (parent, next) = match place {
            Place::LastIn(parent) => (parent, None),
            // Beside a removed element is nothing, so nothing must be declared around it either.
            Place::Before(next) if self[next].is_removed => (next, Some(next)),
            Place::Before(next) => (self[next].parent.unwrap_or(ROOT), Some(next)),
        };
        let full = || EditError::Value("the document has too many elements".to_owned());
        let (name, space) = step.name.as_ref().ok_or_else(full)?;
        let written = self.name_element(parent, name, space);
        let local = written.name.len() - name.local.len() + 1;
        let node = Node {
            tag: Raw::Own(format!("<{}{}", written.name, written.declaration)),
            parts: None,
            name: span(local..written.name.len() + 1),
            end: End::Plain,
            before: Gap::empty(),
            inside: Gap::empty(),
            parent: Some(parent),
            previous: None,
            next: None,
            first: None,
            last: None,
            namespace: written.namespace,
            declares: !written.declaration.is_empty(),
            is_removed: false,
        };
        let id = self.add(node).ok_or_else(full)?;
        match next {
            // Nothing is beside a removed element.
            Some(next) if self[next].is_removed => self[id].is_removed = true,
            Some(next) => {
                let indentation = self.indentation(next).unwrap_or_default().to_owned();
                let gap = Gap::own(indentation, Some(0));
                self[id].before = std::mem::replace(&mut self[next].before, gap);
                self.link(id, Some(next));
            }
            None => {
                self[id].before = self.make_room(parent);
                self.link(id, None);
            }
        }
        for (number, (key, value)) in step.predicates.iter().enumerate() {
            if !step.predicates[..number].iter().any(|(other, _)| other.is_same(key)) {
                let name = self.written(id, key);
                self.add_attribute(id, &name, value);
            }
        }
        Ok(id)
    }

    /// Makes room for a new last child, and returns what stands before it.
    fn make_room(&mut self, parent: Id) -> Gap {
        if let Some(last) = self[parent].last {
            return Gap::own(self.indentation(last).unwrap_or_default().to_owned(), Some(0));
        }
        self.open_up(parent);
        let inside = self[parent].inside.clone();
        let rest = inside.raw.get(&self.source);
        if !is_blank(rest) {
            self[parent].inside = Gap::empty();
            return inside;
        }
        let Some((indentation, deeper)) = self.inner_indentation(parent) else {
            return Gap::empty();
        };
        if !rest.contains('\n') {
            self[parent].inside = Gap::own(format!("{rest}{indentation}"), Some(0));
        }
        Gap::own(deeper, Some(0))
    }

    /// Returns the indentation of an element and that of its first child, if that is to be on its
    /// own line.
    fn inner_indentation(&self, id: Id) -> Option<(String, String)> {
        let own = self.indentation(id)?;
        let parent = self[id].parent.filter(|_| !self[id].is_removed)?;
        let outer = if parent == ROOT { "\n" } else { self.indentation(parent)? };
        let more = own.strip_prefix(outer).filter(|more| !more.is_empty())?;
        Some((own.to_owned(), format!("{own}{more}")))
    }

    pub(super) fn remove(&mut self, id: Id) -> Result<(), EditError> {
        if id == ROOT {
            return Err(EditError::Value("the root cannot be removed".to_owned()));
        }
        self.unlink(id);
        Ok(())
    }

    pub(super) fn set(&mut self, id: Id, key: &Key<'_>, value: &str) -> Result<(), EditError> {
        check(&format!("attribute {}", key.name.local), value)?;
        self.prepare(id);
        let Some(there) = self.attribute(id, key) else {
            let name = self.written(id, key);
            self.add_attribute(id, &name, value);
            return Ok(());
        };
        if value_of(there.value) != value {
            let name = there.name.to_owned();
            self.change_attribute(id, &name, value);
        }
        Ok(())
    }

    /// Returns the name of a new attribute with its prefix.
    fn written(&mut self, id: Id, key: &Key<'_>) -> String {
        match (key.name.prefix, key.namespace) {
            (Some(prefix), Some(namespace)) => {
                format!("{}:{}", self.name_attribute(id, prefix, namespace), key.name.local)
            }
            _ => key.name.local.to_owned(),
        }
    }

    pub(super) fn remove_attribute(&mut self, id: Id, key: &Key<'_>) {
        self.prepare(id);
        if let Some(there) = self.attribute(id, key) {
            let name = there.name.to_owned();
            self.drop_attribute(id, &name);
        }
    }

    /// Returns the text of an element, without what is in its children.
    pub(super) fn text(&self, id: Id) -> String {
        let mut text = String::new();
        for child in self.children(id) {
            push_text(self[child].before.raw.get(&self.source), &mut text);
        }
        push_text(self[id].inside.raw.get(&self.source), &mut text);
        text
    }

    pub(super) fn set_text(&mut self, id: Id, text: &str) -> Result<(), EditError> {
        check("text", text)?;
        let is_text =
            self[id].first.is_none() && is_text_alone(self[id].inside.raw.get(&self.source));
        if is_text && self.text(id) == text {
            return Ok(());
        }
        let children: Vec<_> = self.children(id).collect();
        for child in children {
            let child = &mut self[child];
            (child.previous, child.next, child.is_removed) = (None, None, true);
            child.before = Gap::empty();
        }
        (self[id].first, self[id].last) = (None, None);
        self.open_up(id);
        let blank = is_blank(text).then_some(0);
        self[id].inside = Gap::own(escape_text(text), blank);
        self.is_edited = true;
        Ok(())
    }
}
