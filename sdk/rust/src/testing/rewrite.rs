//! A domain as KubeVirt writes it after a hook, from its types.

use std::fmt::Write;

use crate::xml::{Document, Element};

/// The namespace of QEMU's command line.
const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";
/// How libvirt's namespaces begin.
const LIBVIRT: &str = "http://libvirt.org/schemas/domain/";
/// The namespace of KubeVirt's own metadata.
const KUBEVIRT: &str = "http://kubevirt.io";

/// The hook that gets the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    /// Prefixes are gone, `metadata` is verbatim, the indentation is two spaces.
    Plugin,
    /// Of elements with a namespace, the command line is left, with the prefix `qemu`, and
    /// KubeVirt's own metadata. The indentation is a tab.
    Sidecar,
}

/// Rewrites a domain.
///
/// # Panics
///
/// If the domain is not well-formed.
pub(super) fn rewrite(domain: &str, receiver: Receiver) -> String {
    let document = Document::parse(domain)
        .unwrap_or_else(|error| panic!("the hook's result is not well-formed: {error}"));
    let root = document.root();
    let mut writer = Writer { out: String::new(), receiver, home: root.namespace() };
    writer.element(root, &root.namespace(), 0);
    writer.out
}

struct Writer {
    out: String,
    receiver: Receiver,
    /// The namespace of the root, which counts as none.
    home: String,
}

impl Writer {
    fn element(&mut self, element: Element<'_>, outer: &str, depth: usize) {
        let (name, namespace) = (element.name(), element.namespace());
        let prefix = if self.has_prefix(&namespace) { "qemu:" } else { "" };
        self.indent(depth);
        let _ = write!(self.out, "<{prefix}{name}");
        if namespace != outer && prefix.is_empty() {
            self.attribute("xmlns", &namespace);
        }
        for (name, value) in element.attributes_as_in_go() {
            if !name.contains(':') {
                self.attribute(&name, &value);
            }
        }
        if depth == 0 && self.receiver == Receiver::Sidecar {
            self.attribute("xmlns:qemu", QEMU);
        }
        self.out.push('>');
        let children = self.children(element, depth);
        if depth == 1 && name == "metadata" && self.receiver == Receiver::Plugin {
            self.out.push_str(&element.inside());
        } else if children.is_empty() {
            let text = element.text();
            if !text.trim_ascii().is_empty() {
                self.escape(&text);
            }
        } else {
            for child in children {
                self.element(child, &namespace, depth + 1);
            }
            self.indent(depth);
        }
        let _ = write!(self.out, "</{prefix}{name}>");
    }

    fn has_prefix(&self, namespace: &str) -> bool {
        self.receiver == Receiver::Sidecar && namespace == QEMU
    }

    /// Returns the children that are left. All command lines become one.
    fn children<'d>(&self, element: Element<'d>, depth: usize) -> Vec<Element<'d>> {
        let of = |element: Element<'d>| element.find_all("*").unwrap_or_default();
        let is_line = |it: &Element<'_>| it.name() == "commandline" && it.namespace() == QEMU;
        let siblings = match element.parent() {
            Some(root) if depth == 1 && is_line(&element) => of(root),
            _ => vec![element],
        };
        let same = siblings.into_iter().filter(|it| *it == element || is_line(it));
        let mut has_line = false;
        let mut all: Vec<_> = same.flat_map(of).filter(|child| self.is_kept(*child)).collect();
        all.retain(|child| {
            let is_again = depth == 0 && is_line(child) && has_line;
            has_line |= is_line(child);
            !is_again
        });
        all
    }

    fn is_kept(&self, element: Element<'_>) -> bool {
        let namespace = element.namespace();
        let is_declared = !namespace.is_empty() || !element.has_prefix();
        let is_known = match self.receiver {
            Receiver::Plugin => namespace.starts_with(LIBVIRT),
            Receiver::Sidecar => [QEMU, KUBEVIRT].contains(&&*namespace),
        };
        is_declared && (namespace == self.home || is_known)
    }

    fn indent(&mut self, depth: usize) {
        if depth > 0 || self.out.ends_with('>') {
            self.out.push('\n');
        }
        let step = if self.receiver == Receiver::Plugin { "  " } else { "\t" };
        self.out.push_str(&step.repeat(depth));
    }

    fn attribute(&mut self, name: &str, value: &str) {
        let _ = write!(self.out, " {name}=\"");
        self.escape(value);
        self.out.push('"');
    }

    /// Escapes a text as Go does.
    fn escape(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&#34;"),
                '\'' => self.out.push_str("&#39;"),
                '\t' => self.out.push_str("&#x9;"),
                '\n' => self.out.push_str("&#xA;"),
                '\r' => self.out.push_str("&#xD;"),
                other => self.out.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_spelled_as_each_api_does() {
        let sent = "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>\
            <!-- a --><name> a &amp; 'b' </name><os><type>hvm<!-- b --></type> <boot/></os>\
            <metadata>\n<app:x/><kubevirt xmlns='http://kubevirt.io'><uid/></kubevirt></metadata>\
            <x:y/><q:commandline><q:arg value='\"&#9;'/></q:commandline>\
            <z xmlns='urn:foreign'/><q:commandline><q:arg q:a='1'/></q:commandline></domain>";
        assert_eq!(
            rewrite(sent, Receiver::Plugin),
            "<domain type=\"kvm\">\n  <name> a &amp; &#39;b&#39; </name>\n  \
            <os>\n    <type>hvm</type>\n    <boot></boot>\n  </os>\n  \
            <metadata>\n<app:x/><kubevirt xmlns='http://kubevirt.io'><uid/></kubevirt></metadata>\n  \
            <commandline xmlns=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n    \
            <arg value=\"&#34;&#x9;\"></arg>\n    <arg></arg>\n  </commandline>\n</domain>"
        );
        assert_eq!(
            rewrite(sent, Receiver::Sidecar),
            "<domain type=\"kvm\" xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n\t\
            <name> a &amp; &#39;b&#39; </name>\n\t<os>\n\t\t<type>hvm</type>\n\t\t<boot></boot>\n\t</os>\n\t\
            <metadata>\n\t\t<kubevirt xmlns=\"http://kubevirt.io\">\n\t\t\t<uid></uid>\n\t\t</kubevirt>\n\t</metadata>\n\t\
            <qemu:commandline>\n\t\t<qemu:arg value=\"&#34;&#x9;\"></qemu:arg>\n\t\t\
            <qemu:arg></qemu:arg>\n\t</qemu:commandline>\n</domain>"
        );
    }

    /// Returns the content of an element: the children in the order of what they contain, and none
    /// that are empty.
    fn content(node: roxmltree::Node<'_, '_>) -> String {
        let children = node.children().filter(roxmltree::Node::is_element).map(content);
        let mut children: Vec<_> = children.filter(|child| !child.is_empty()).collect();
        let attributes = node.attributes().map(|it| format!(" {}={:?}", it.name(), it.value()));
        let mut attributes: Vec<_> = attributes.collect();
        children.sort_unstable();
        attributes.sort_unstable();
        let text = node.text().filter(|_| children.is_empty()).unwrap_or_default().trim();
        if children.is_empty() && attributes.is_empty() && text.is_empty() {
            return String::new();
        }
        let (name, attributes) = (node.tag_name(), attributes.concat());
        format!("<{name:?}{attributes}>{text}{}", children.concat())
    }

    #[test]
    fn the_content_is_what_kubevirt_itself_has_made_of_a_domain() {
        let recorded =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/hookctl/src/rewrite/recorded");
        let read = |name: &str, kind: &str| {
            std::fs::read_to_string(format!("{recorded}/{name}.{kind}.xml")).unwrap()
        };
        let text = rewrite(&read("text", "sent"), Receiver::Plugin);
        assert_eq!(text, read("text", "next-plugin"));
        let meaning = |xml: &str| content(roxmltree::Document::parse(xml).unwrap().root_element());
        for (name, kind, receiver) in
            [("vm", "next-plugin", Receiver::Plugin), ("vm", "same-sidecar", Receiver::Sidecar)]
        {
            let rewritten = rewrite(&read(name, "sent"), receiver);
            assert_eq!(meaning(&rewritten), meaning(&read(name, kind)), "{name} {kind}");
        }
    }
}
