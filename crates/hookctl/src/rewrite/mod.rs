//! A domain as KubeVirt's Plugins pipeline hands it from one hook to the next. The pipeline reads
//! and writes the domain with libvirt's Go types, so a hook's own result comes back in another
//! spelling:
//!
//! - prefixes are gone: `<qemu:commandline>` is `<commandline xmlns="…/qemu/1.0">`, and the root
//!   declares nothing;
//! - elements with an undeclared prefix are gone;
//! - comments are gone, and white space between elements is an indentation of two spaces;
//! - empty elements have two tags, and quotes, tabs and line breaks are numeric references;
//! - the content of `<metadata>` is kept as it is.
//!
//! Three things are not modelled: the order of elements and attributes, what libvirt's types do not
//! know, and the empty elements that they add.

use std::fmt::Write;

use quick_xml::NsReader;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;

/// One level of indentation.
const INDENT: &str = "  ";

/// Rewrites a domain. Returns `None` for one that cannot be parsed.
pub(crate) fn as_received_by_plugins(domain: &str) -> Option<String> {
    let domain = domain.strip_prefix('\u{feff}').unwrap_or(domain);
    let mut reader = NsReader::from_str(domain);
    let mut writer = Writer::default();
    loop {
        let (namespace, event) = reader.read_resolved_event().ok()?;
        let namespace = match namespace {
            ResolveResult::Bound(namespace) => Some(namespace.0.to_owned()),
            ResolveResult::Unbound => Some(String::new()),
            ResolveResult::Unknown(_) => None,
        };
        match event {
            Event::Start(tag) => match namespace {
                Some(namespace) => {
                    writer.start(&tag, namespace)?;
                    if writer.is_metadata() {
                        let content = reader.read_to_end(tag.name()).ok()?;
                        let range = usize::try_from(content.start).ok()?
                            ..usize::try_from(content.end).ok()?;
                        writer.out.push_str(domain.get(range)?);
                        writer.end()?;
                    }
                }
                None => {
                    reader.read_to_end(tag.name()).ok()?;
                }
            },
            Event::Empty(tag) => {
                if let Some(namespace) = namespace {
                    writer.start(&tag, namespace)?;
                    writer.end()?;
                }
            }
            Event::End(_) => writer.end()?,
            Event::Text(piece) => writer.text(&piece.xml10_content()),
            Event::CData(piece) => writer.text(&piece.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().ok()? {
                Some(character) => writer.text(character.encode_utf8(&mut [0; 4])),
                None => writer.text(resolve_predefined_entity(&reference)?),
            },
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) => {}
            Event::DocType(_) => return None,
            Event::Eof => return writer.finish(),
        }
    }
}

#[derive(Default)]
struct Writer {
    out: String,
    open: Vec<Element>,
}

/// An element whose end tag is not written yet.
struct Element {
    name: String,
    namespace: String,
    text: String,
    has_children: bool,
}

impl Writer {
    fn start(&mut self, tag: &BytesStart<'_>, namespace: String) -> Option<()> {
        let mut outer = "";
        if let Some(parent) = self.open.last_mut() {
            parent.has_children = true;
            outer = &parent.namespace;
        }
        let name = tag.local_name().as_ref().to_owned();
        let mut start = format!("<{name}");
        if namespace != outer {
            attribute(&mut start, "xmlns", &namespace);
        }
        for found in tag.attributes() {
            let found = found.ok()?;
            let key = found.key.as_ref();
            if key != "xmlns" && !key.starts_with("xmlns:") {
                // Go does not turn white space into blanks, as XML says.
                attribute(&mut start, key, &unescape(&found.value).ok()?);
            }
        }
        self.indent();
        self.out.push_str(&start);
        self.out.push('>');
        self.open.push(Element { name, namespace, text: String::new(), has_children: false });
        Some(())
    }

    fn end(&mut self) -> Option<()> {
        let element = self.open.pop()?;
        if element.has_children {
            self.indent();
        } else if !element.text.trim_ascii().is_empty() {
            escape(&mut self.out, &element.text);
        }
        let _ = write!(self.out, "</{}>", element.name);
        Some(())
    }

    /// Adds text to the open element. It is lost if the element has children.
    fn text(&mut self, text: &str) {
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
    }

    /// Whether the open element is the domain's `metadata`.
    fn is_metadata(&self) -> bool {
        matches!(&self.open[..], [_, element]
            if element.name == "metadata" && element.namespace.is_empty())
    }

    fn indent(&mut self) {
        if !self.out.is_empty() {
            self.out.push('\n');
            self.out.push_str(&INDENT.repeat(self.open.len()));
        }
    }

    fn finish(mut self) -> Option<String> {
        self.out.push('\n');
        (self.open.is_empty() && self.out.len() > 1).then_some(self.out)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What KubeVirt's libvirt types (`libvirt.org/go/libvirtxml`) made of `sent.xml`. Its elements
    /// are in the order of those types.
    const RECEIVED: &str = include_str!("received.xml");

    #[test]
    fn a_domain_is_rewritten_as_kubevirt_does() {
        assert_eq!(as_received_by_plugins(include_str!("sent.xml")).unwrap(), RECEIVED);
    }

    #[test]
    fn the_prefix_is_of_no_matter() {
        let sent = include_str!("sent.xml");
        for prefix in ["q", "ns0"] {
            let other = sent
                .replace("qemu:", &format!("{prefix}:"))
                .replace("xmlns:qemu", &format!("xmlns:{prefix}"));
            assert_eq!(as_received_by_plugins(&other).unwrap(), RECEIVED);
        }
    }

    #[test]
    fn what_was_rewritten_stays_as_it_is() {
        assert_eq!(as_received_by_plugins(RECEIVED).unwrap(), RECEIVED);
    }

    #[test]
    fn what_is_no_document_is_not_rewritten() {
        for bad in ["", "text", "<domain>", "<domain></x>", "<domain>&other;</domain>"] {
            assert_eq!(as_received_by_plugins(bad), None, "{bad}");
        }
    }
}
