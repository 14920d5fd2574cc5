//! The handle to an element.

use std::fmt;

use super::edit::Place;
use super::error::{EditError, InvalidPath};
use super::find::Test;
use super::path::{self, Path};
use super::scope::Space;
use super::text::value_of;
use super::tree::{Id, Tree};
use super::Document;

/// An element of a [`Document`]: a small handle that can be copied.
///
/// It stays valid whatever is done to the document. What is done to a removed element, or below
/// it, does not show.
#[derive(Clone, Copy)]
pub struct Element<'d> {
    pub(super) document: &'d Document,
    pub(super) id: Id,
}

#[expect(clippy::needless_pass_by_value, reason = "paths are literals, without `&`")]
impl Element<'_> {
    fn of(self, id: Id) -> Self {
        Self { document: self.document, id }
    }

    /// Finds the first element at a path below this one.
    ///
    /// A path is a text such as `devices/disk[@type='file']`, or a pair of a text in which `?`
    /// stands for values and these values: `("disk[@name=?]", [name])`.
    pub fn find(self, path: impl Path) -> Result<Option<Self>, InvalidPath> {
        let mut first = None;
        self.follow(&path, |id| {
            first = Some(id);
            true
        })?;
        Ok(first.map(|id| self.of(id)))
    }

    /// Finds all elements at a path below this one, in the order of the document.
    pub fn find_all(self, path: impl Path) -> Result<Vec<Self>, InvalidPath> {
        let mut all = Vec::new();
        self.follow(&path, |id| {
            all.push(self.of(id));
            false
        })?;
        Ok(all)
    }

    /// Visits the matches of a path until the function returns that it is enough. The function
    /// must not use the document.
    fn follow(
        self,
        path: &impl Path,
        mut visit: impl FnMut(Id) -> bool,
    ) -> Result<(), InvalidPath> {
        let (text, values) = (path.text(), path.values());
        let tree = self.document.tree.borrow();
        let steps = self.tests(&tree, text, &values)?;
        tree.follow(self.id, &steps, 0, &mut |id, done| done == steps.len() && visit(id));
        Ok(())
    }

    fn tests<'p>(
        self,
        tree: &Tree,
        text: &'p str,
        values: &[&'p str],
    ) -> Result<Vec<Test<'p>>, InvalidPath> {
        let steps = path::parse(text, values)?;
        steps.iter().map(|step| tree.test(self.id, text, step)).collect()
    }

    /// Finds the first element at a path below this one, or adds what is missing of the path.
    ///
    /// It follows the longest beginning of the path that matches, to the first such element, and
    /// appends the rest there. Predicates of new elements become attributes.
    pub fn ensure(self, path: impl Path) -> Result<Self, EditError> {
        let (text, values) = (path.text(), path.values());
        let mut tree = self.document.tree.borrow_mut();
        let steps = self.tests(&tree, text, &values)?;
        Ok(self.of(tree.ensure(self.id, text, &steps)?))
    }

    /// Adds an element as the last child. The path has one step.
    ///
    /// ```
    /// # use kubevirt_hook::xml::Document;
    /// # fn main() -> kubevirt_hook::Result<()> {
    /// let doc = Document::parse("<disk type='vhostuser'/>")?;
    /// doc.append("target[@bus='virtio'][@dev='vdb']")?;
    /// let expected = "<disk type='vhostuser'><target bus=\"virtio\" dev=\"vdb\"></target></disk>";
    /// assert_eq!(doc.to_string(), expected);
    /// # Ok(())
    /// # }
    /// ```
    pub fn append(self, step: impl Path) -> Result<Self, EditError> {
        self.insert(&step, Place::LastIn(self.id))
    }

    /// Adds an element before this one. The path has one step. Nothing can stand before the root.
    pub fn insert_before(self, step: impl Path) -> Result<Self, EditError> {
        self.insert(&step, Place::Before(self.id))
    }

    fn insert(self, step: &impl Path, place: Place) -> Result<Self, EditError> {
        let (text, values) = (step.text(), step.values());
        let step = path::parse_step(text, &values)?;
        let mut tree = self.document.tree.borrow_mut();
        let step = tree.test(self.id, text, &step)?;
        Ok(self.of(tree.insert(place, text, &step)?))
    }

    /// Removes this element, and the white space before it. The root cannot be removed.
    pub fn remove(self) -> Result<(), EditError> {
        self.document.tree.borrow_mut().remove(self.id)
    }

    /// Returns the value of an attribute, if it is there.
    pub fn get(self, name: &str) -> Result<Option<String>, InvalidPath> {
        let mut tree = self.document.tree.borrow_mut();
        let key = tree.key(name, path::parse_attribute(name)?)?;
        tree.prepare(self.id);
        Ok(tree.attribute(self.id, &key).map(|it| value_of(it.value).into_owned()))
    }

    /// Changes or adds an attribute. Returns this element, for the next one.
    pub fn set(self, name: &str, value: impl AsRef<str>) -> Result<Self, EditError> {
        let value = value.as_ref();
        let mut tree = self.document.tree.borrow_mut();
        let key = tree.key(name, path::parse_attribute(name)?)?;
        tree.set(self.id, &key, value)?;
        Ok(self)
    }

    /// Removes an attribute if it is there.
    pub fn remove_attribute(self, name: &str) -> Result<(), InvalidPath> {
        let mut tree = self.document.tree.borrow_mut();
        let key = tree.key(name, path::parse_attribute(name)?)?;
        tree.remove_attribute(self.id, &key);
        Ok(())
    }

    /// Returns the names of all attributes as they are written, and their values, in order.
    /// Declarations of namespaces do not count as attributes.
    #[must_use]
    pub fn attributes(self) -> Vec<(String, String)> {
        self.attributes_by(|raw| value_of(raw).into_owned())
    }

    /// Returns the attributes as Go reads them, where a tab or line feed is not a space.
    pub(crate) fn attributes_as_in_go(self) -> Vec<(String, String)> {
        self.attributes_by(|raw| {
            let raw = raw.replace("\r\n", "\n").replace('\t', "&#9;").replace('\n', "&#10;");
            value_of(&raw).into_owned()
        })
    }

    fn attributes_by(self, read: fn(&str) -> String) -> Vec<(String, String)> {
        let tree = self.document.tree.borrow();
        let all = tree.attributes(self.id).filter(|it| it.declares().is_none());
        all.map(|it| (it.name.to_owned(), read(it.value))).collect()
    }

    /// Returns the text in this element, without what is in its children.
    #[must_use]
    pub fn text(self) -> String {
        self.document.tree.borrow().text(self.id)
    }

    /// Replaces all that is in this element by a text. Returns this element.
    pub fn set_text(self, text: impl AsRef<str>) -> Result<Self, EditError> {
        let text = text.as_ref();
        self.document.tree.borrow_mut().set_text(self.id, text)?;
        Ok(self)
    }

    /// Whether the name has a prefix as it is written.
    pub(crate) fn has_prefix(self) -> bool {
        self.document.tree.borrow().prefix(self.id).is_some()
    }

    /// Returns all that is inside of this element, as it is written.
    pub(crate) fn inside(self) -> String {
        self.document.tree.borrow().write_inside(self.id)
    }

    /// Returns the name without prefix.
    #[must_use]
    pub fn name(self) -> String {
        self.document.tree.borrow().local(self.id).to_owned()
    }

    /// Returns the namespace, or an empty string.
    #[must_use]
    pub fn namespace(self) -> String {
        let tree = self.document.tree.borrow();
        match tree.space(self.id) {
            Space::Known(namespace) => tree.namespace_name(namespace).to_owned(),
            Space::Undeclared(_) => String::new(),
        }
    }

    /// Returns the element around this one. The root has none, and neither has a removed element.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        let tree = self.document.tree.borrow();
        let parent = tree[self.id].parent.filter(|_| !tree[self.id].is_removed);
        parent.map(|id| self.of(id))
    }
}

/// Whether two handles are of one element.
impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.document, other.document) && self.id == other.id
    }
}

impl Eq for Element<'_> {}

/// Prints the name alone: documents do not belong into logs.
impl fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        write!(f, "Element({name})")
    }
}
