//! Edits an XML document and keeps every byte that is not edited: white space, comments, prefixes,
//! quotes, and the form of empty elements.
//!
//! ```
//! use kubevirt_hook::xml::Document;
//!
//! # fn main() -> kubevirt_hook::Result<()> {
//! let doc = Document::parse("<domain>\n  <os>\n    <type>hvm</type>\n  </os>\n</domain>\n")?;
//! doc.ensure("os/smbios")?.set("mode", "sysinfo")?;
//! doc.ensure("qemu:commandline")?.append(("qemu:arg[@value=?]", ["-no-hpet"]))?;
//! assert_eq!(
//!     doc.to_string(),
//!     r#"<domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
//!   <os>
//!     <type>hvm</type>
//!     <smbios mode="sysinfo"></smbios>
//!   </os>
//!   <qemu:commandline>
//!     <qemu:arg value="-no-hpet"></qemu:arg>
//!   </qemu:commandline>
//! </domain>
//! "#
//! );
//! # Ok(())
//! # }
//! ```
//!
//! `docs/editing-xml.md` of sidecar-shim defines paths, namespaces, and how changes are written,
//! for all SDKs.
//!
//! A document is edited through shared references: an [`Element`] is a small handle that can be
//! copied, and stays valid while the document changes. What is read is returned as `String`, so no
//! sequence of calls panics.

mod attributes;
mod edit;
mod element;
mod error;
mod find;
mod path;
mod scan;
mod scope;
mod tag;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use std::cell::RefCell;
use std::fmt;

pub use self::element::Element;
pub use self::error::{EditError, InvalidPath, ParseError};
pub use self::path::Path;
use self::tree::{Tree, ROOT};

/// An XML document that can be edited. Its `to_string` is the text with the changes.
pub struct Document {
    /// Borrowed inside of methods only, and never while code of the caller runs.
    tree: RefCell<Tree>,
}

impl Document {
    /// Parses a document. It must be well-formed, have no document type, and elements that are
    /// nested up to 255 deep.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self { tree: RefCell::new(scan::scan(text)?) })
    }

    /// Returns the outermost element.
    #[must_use]
    pub fn root(&self) -> Element<'_> {
        Element { document: self, id: ROOT }
    }

    /// Says what a prefix stands for in paths and names. `qemu` and `xml` are known.
    ///
    /// ```
    /// # use kubevirt_hook::xml::Document;
    /// # fn main() -> kubevirt_hook::Result<()> {
    /// let doc = Document::parse("<domain><metadata/></domain>")?;
    /// doc.namespace("app", "https://example.com/app")?;
    /// doc.ensure("metadata/app:owner")?.set_text("alice")?;
    /// assert_eq!(
    ///     doc.to_string(),
    ///     "<domain xmlns:app=\"https://example.com/app\">\
    ///      <metadata><app:owner>alice</app:owner></metadata></domain>"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn namespace(&self, prefix: &str, namespace: &str) -> Result<(), InvalidPath> {
        let prefix = path::parse_prefix(prefix)?;
        self.tree.borrow_mut().set_namespace(prefix, namespace)
    }

    /// Finds the first element at a path below the root: [`Element::find`].
    pub fn find(&self, path: impl Path) -> Result<Option<Element<'_>>, InvalidPath> {
        self.root().find(path)
    }

    /// Finds all elements at a path below the root: [`Element::find_all`].
    pub fn find_all(&self, path: impl Path) -> Result<Vec<Element<'_>>, InvalidPath> {
        self.root().find_all(path)
    }

    /// Finds or adds the element at a path below the root: [`Element::ensure`].
    pub fn ensure(&self, path: impl Path) -> Result<Element<'_>, EditError> {
        self.root().ensure(path)
    }

    /// Adds an element as the last child of the root: [`Element::append`].
    pub fn append(&self, step: impl Path) -> Result<Element<'_>, EditError> {
        self.root().append(step)
    }

    /// Returns the text if it is another one than that which was parsed.
    #[must_use]
    pub fn changed(&self) -> Option<String> {
        let tree = self.tree.borrow();
        let changed = tree.is_edited.then(|| tree.write());
        changed.filter(|changed| *changed != tree.source)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter may run code of the caller.
        let text = self.tree.borrow().write();
        f.write_str(&text)
    }
}

/// Prints the size alone: documents do not belong into logs.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.tree.borrow().source.len();
        write!(f, "Document({bytes} bytes)")
    }
}
