//! Writes a domain as Go's `encoding/xml` does.

use std::fmt::Write;

use quick_xml::escape::unescape;
use quick_xml::events::BytesStart;

use super::{QEMU, Receiver};

pub(super) struct Writer {
    receiver: Receiver,
    out: String,
    open: Vec<Element>,
    /// The items of QEMU's command line, if there is one.
    pub(super) command_line: Option<Vec<Item>>,
}

/// An element whose end tag is not written yet.
struct Element {
    name: String,
    namespace: String,
    text: String,
    has_children: bool,
}

/// An argument or a variable of QEMU: its name, and its attributes as they are written.
pub(super) struct Item {
    name: String,
    attributes: String,
}

impl Writer {
    pub(super) fn new(receiver: Receiver) -> Self {
        Self { receiver, out: String::new(), open: Vec::new(), command_line: None }
    }

    /// Returns the number of open elements.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Returns whether the domain's `metadata` is open.
    pub(super) fn is_in_metadata(&self) -> bool {
        let metadata = self.open.get(1);
        metadata.is_some_and(|it| it.name == "metadata" && it.namespace.is_empty())
    }

    pub(super) fn start(&mut self, tag: &BytesStart<'_>, namespace: String) -> Option<()> {
        let name = tag.local_name().as_ref().to_owned();
        let outer = self.open.last().map_or("", |parent| &parent.namespace);
        let mut start = format!("<{name}");
        if namespace != outer {
            attribute(&mut start, "xmlns", &namespace);
        }
        start.push_str(&attributes(tag)?);
        self.indent();
        if let Some(parent) = self.open.last_mut() {
            parent.has_children = true;
        }
        self.out.push_str(&start);
        self.out.push('>');
        self.open.push(Element { name, namespace, text: String::new(), has_children: false });
        Some(())
    }

    pub(super) fn end(&mut self) -> Option<()> {
        if self.open.len() == 1 {
            self.write_command_line();
        }
        let is_inline = self.is_inline();
        let element = self.open.pop()?;
        if element.has_children {
            if !is_inline {
                self.indent();
            }
        } else if !element.text.trim_ascii().is_empty() {
            escape(&mut self.out, &element.text);
        }
        let _ = write!(self.out, "</{}>", element.name);
        Some(())
    }

    /// Adds text to the open element. It is lost if the element has children.
    pub(super) fn text(&mut self, text: &str) {
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
    }

    /// Writes the content of the open element as it is.
    pub(super) fn verbatim(&mut self, content: &str) {
        self.out.push_str(content);
    }

    pub(super) fn item(tag: &BytesStart<'_>) -> Option<Item> {
        let name = tag.local_name().as_ref().to_owned();
        Some(Item { name, attributes: attributes(tag)? })
    }

    /// Writes QEMU's command line as the last child of the root.
    fn write_command_line(&mut self) {
        let Some(items) = self.command_line.take() else { return };
        let (prefix, mut start) = ("qemu:", "<qemu:commandline".to_owned());
        let prefix = if self.receiver == Receiver::SameSidecar {
            // The root's tag is the first.
            let mut declaration = String::new();
            attribute(&mut declaration, "xmlns:qemu", QEMU);
            self.out.insert_str(self.out.find('>').unwrap_or_default(), &declaration);
            prefix
        } else {
            "<commandline".clone_into(&mut start);
            attribute(&mut start, "xmlns", QEMU);
            ""
        };
        // KubeVirt's types do not keep an empty one.
        if items.is_empty() && self.receiver != Receiver::NextPlugin {
            return;
        }
        self.indent();
        let _ = write!(self.out, "{start}>");
        let item_start = self.line_break(self.open.len() + 1);
        for Item { name, attributes } in &items {
            let _ = write!(self.out, "{item_start}<{prefix}{name}{attributes}></{prefix}{name}>");
        }
        if !items.is_empty() {
            self.indent();
        }
        let _ = write!(self.out, "</{prefix}commandline>");
        if let Some(root) = self.open.last_mut() {
            root.has_children = true;
        }
    }

    fn indent(&mut self) {
        if !self.out.is_empty() && !self.is_inline() {
            let line_break = self.line_break(self.open.len());
            self.out.push_str(&line_break);
        }
    }

    fn line_break(&self, depth: usize) -> String {
        let level = if self.receiver == Receiver::SameSidecar { "\t" } else { "  " };
        format!("\n{}", level.repeat(depth))
    }

    /// Returns whether what stands in the open element is not indented: libvirt's types have the
    /// content of `metadata` as text.
    fn is_inline(&self) -> bool {
        self.receiver != Receiver::SameSidecar && self.is_in_metadata()
    }

    pub(super) fn finish(self) -> Option<String> {
        (self.open.is_empty() && !self.out.is_empty()).then_some(self.out)
    }
}

/// Returns the attributes of a tag that have no prefix, each after a space.
fn attributes(tag: &BytesStart<'_>) -> Option<String> {
    let mut written = String::new();
    for found in tag.attributes() {
        let found = found.ok()?;
        let name = found.key.as_ref();
        if name != "xmlns" && !name.contains(':') {
            // Go does not turn white space into blanks, as XML says.
            attribute(&mut written, name, &unescape(&found.value).ok()?);
        }
    }
    Some(written)
}

fn attribute(tag: &mut String, name: &str, value: &str) {
    let _ = write!(tag, " {name}=\"");
    escape(tag, value);
    tag.push('"');
}

/// Escapes text as Go does.
fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\t' => out.push_str("&#x9;"),
            '\n' => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            other => out.push(other),
        }
    }
}
