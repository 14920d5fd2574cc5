//! What two documents say, so that they are compared by that and not by how they are written.
//!
//! Of XML, names count with their namespaces, whatever their prefixes; attributes in any order;
//! text with its references resolved. White space between elements, comments and processing
//! instructions do not count. Of JSON, keys and values count, and numbers to the letter.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use roxmltree::{Document, Node};
use sidecar_shim::hook::HookKind;

use crate::json::Json;
use crate::rewrite::{KUBEVIRT, QEMU};

/// Two documents that say different things, in one way of writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) kind: HookKind,
    pub(super) expected: Bytes,
    pub(super) returned: Bytes,
}

/// Compares two documents. Returns `None` if they say the same. An error says why the one that was
/// returned cannot be read; the one that is expected was checked before.
pub(super) fn compare(
    kind: HookKind,
    expected: &[u8],
    returned: &[u8],
) -> Result<Option<Difference>, String> {
    if expected == returned {
        return Ok(None);
    }
    let (expected, returned) = match kind {
        HookKind::Domain => {
            let mut prefixes = Prefixes::default();
            (prefixes.write(expected)?, prefixes.write(returned)?)
        }
        HookKind::CloudInit => {
            let [expected, returned] = [read_json(expected)?, read_json(returned)?];
            if expected == returned {
                return Ok(None);
            }
            (expected.to_string(), returned.to_string())
        }
        HookKind::Node => return Ok(None),
    };
    let is_same = expected == returned;
    let (expected, returned) = (expected.into(), returned.into());
    Ok((!is_same).then_some(Difference { kind, expected, returned }))
}

fn read_json(document: &[u8]) -> Result<Json, String> {
    Json::parse(document).map_err(|error| format!("is not JSON: {error}"))
}

/// The prefix for each namespace, the same in both documents.
#[derive(Default)]
struct Prefixes(BTreeMap<String, String>);

impl Prefixes {
    /// Writes a document in the one way.
    fn write(&mut self, document: &[u8]) -> Result<String, String> {
        let text = str::from_utf8(document).map_err(|error| format!("is not UTF-8: {error}"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let parsed = Document::parse(text).map_err(|error| format!("is not XML: {error}"))?;
        let mut out = String::new();
        self.element(&mut out, parsed.root_element(), 0, Layout::Lines);
        Ok(out)
    }

    /// Writes an element. (The shim has checked that elements are nested less than 256 deep.)
    fn element(&mut self, out: &mut String, node: Node<'_, '_>, depth: usize, layout: Layout) {
        let indent = |out: &mut String, depth: usize| {
            if layout == Layout::Lines {
                out.extend(std::iter::repeat_n("  ", depth));
            }
        };
        let end = |out: &mut String, text: &str| {
            out.push_str(text);
            if layout == Layout::Lines {
                out.push('\n');
            }
        };
        let name = self.name(node.tag_name().namespace(), node.tag_name().name());
        indent(out, depth);
        let _ = write!(out, "<{name}");
        self.attributes(out, node);
        let content = Content::of(node);
        match content {
            Content::Empty => return end(out, "/>"),
            Content::Elements => {
                end(out, ">");
                for child in node.children().filter(Node::is_element) {
                    self.element(out, child, depth + 1, layout);
                }
                indent(out, depth);
            }
            Content::Text => {
                out.push('>');
                for child in node.children() {
                    match child.text() {
                        Some(text) if child.is_text() => escape(out, text, false),
                        _ if child.is_element() => self.element(out, child, 0, Layout::Inline),
                        _ => {}
                    }
                }
            }
        }
        end(out, &format!("</{name}>"));
    }

    fn attributes(&mut self, out: &mut String, node: Node<'_, '_>) {
        let mut attributes: Vec<_> = node
            .attributes()
            .map(|attribute| {
                (self.name(attribute.namespace(), attribute.name()), attribute.value())
            })
            .collect();
        attributes.sort();
        for (name, value) in attributes {
            let _ = write!(out, " {name}=\"");
            escape(out, value, true);
            out.push('"');
        }
    }

    /// Returns a name with the prefix for its namespace: QEMU's and KubeVirt's have their usual
    /// ones, others a number.
    fn name(&mut self, namespace: Option<&str>, name: &str) -> String {
        let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) else {
            return name.to_owned();
        };
        let number = self.0.len() + 1;
        let prefix = self.0.entry(namespace.to_owned()).or_insert_with(|| match namespace {
            QEMU => "qemu".to_owned(),
            KUBEVIRT => "kubevirt".to_owned(),
            _ => format!("ns{number}"),
        });
        format!("{prefix}:{name}")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Each element on separate lines.
    Lines,
    /// Beside text, where white space counts.
    Inline,
}

enum Content {
    Empty,
    /// White space between them does not count.
    Elements,
    /// Elements may be in it.
    Text,
}

impl Content {
    fn of(node: Node<'_, '_>) -> Self {
        let is_blank = |text: &str| text.chars().all(|c| " \t\r\n".contains(c));
        let has_text =
            node.children().any(|child| child.is_text() && !child.text().is_none_or(is_blank));
        if has_text {
            Self::Text
        } else if node.children().any(|child| child.is_element()) {
            Self::Elements
        } else {
            Self::Empty
        }
    }
}

/// Writes text so that it is read as it was.
fn escape(out: &mut String, text: &str, in_attribute: bool) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' if in_attribute => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' if in_attribute => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare_domains(expected: &str, returned: &str) -> Option<Difference> {
        compare(HookKind::Domain, expected.as_bytes(), returned.as_bytes()).unwrap()
    }

    #[test]
    fn how_a_domain_is_written_is_no_difference() {
        let expected = "<domain type='kvm' id=\"1\"><a>x &amp; y</a><b/><c>\n</c>\
                        <q:commandline xmlns:q='urn:q'><q:arg v='1'/></q:commandline></domain>";
        for returned in [
            "<?xml version='1.0'?>\n<domain id='1' type='kvm'>\n\t<a>x &#38; y</a>\n\t<b></b>\n\t<c/>\
             <commandline xmlns='urn:q'><arg v='1'/></commandline>\n</domain>\n",
            "<domain xmlns:r='urn:q' type='kvm' id='1'><!-- c --><a><![CDATA[x & y]]></a><b> </b>\
             <c></c><r:commandline><r:arg v='1'></r:arg></r:commandline><?pi?></domain>",
        ] {
            assert_eq!(compare_domains(expected, returned), None, "{returned}");
        }
    }

    #[test]
    fn what_a_domain_says_is_a_difference() {
        let expected = "<domain type='kvm'><a>x</a><b/><c/><m>x <i/> y</m></domain>";
        for (old, new) in [
            ("'kvm'", "'qemu'"),
            (" type='kvm'", ""),
            ("<a>x</a>", "<a>x </a>"),
            ("<a>x</a>", "<a>X</a>"),
            ("<a>x</a>", "<a xmlns='urn:q'>x</a>"),
            ("<a>x</a>", "<a y=''>x</a>"),
            ("<a>x</a>", "<a>x<a/></a>"),
            ("<b/><c/>", "<c/><b/>"),
            ("<b/><c/>", "<b><c/></b>"),
            ("<b/>", ""),
            ("<b/>", "<b/><b/>"),
            ("x <i/> y", "x<i/> y"),
            ("x <i/> y", "x  y<i/>"),
        ] {
            let returned = expected.replacen(old, new, 1);
            assert!(compare_domains(expected, &returned).is_some(), "{returned}");
            assert!(compare_domains(&returned, expected).is_some(), "{returned}");
        }
    }

    #[test]
    fn namespaces_have_the_same_prefix_in_both_documents() {
        let Difference { expected, returned, .. } = compare_domains(
            "<domain xmlns:q='urn:q'><q:a/></domain>",
            "<domain><x:b xmlns:x='urn:x'/><y:a xmlns:y='urn:q'/></domain>",
        )
        .unwrap();
        assert_eq!(expected, "<domain>\n  <ns1:a/>\n</domain>\n");
        assert_eq!(returned, "<domain>\n  <ns2:b/>\n  <ns1:a/>\n</domain>\n");
    }

    #[test]
    fn values_of_json_count_and_text_counts_to_the_letter() {
        let differs = |returned: &str| {
            let expected = br#"{"UserData": "a\u0041\n", "N": {"x": 1, "y": [1, 2]}}"#;
            compare(HookKind::CloudInit, expected, returned.as_bytes()).unwrap().is_some()
        };
        assert!(!differs(r#"{"N":{"y":[1,2],"x":1},"UserData":"aA\n"}"#));
        for other in [
            r#"{"N":{"y":[1,2],"x":1},"UserData":"aA"}"#,
            r#"{"N":{"y":[2,1],"x":1},"UserData":"aA\n"}"#,
            r#"{"N":{"y":[1,2],"x":"1"},"UserData":"aA\n"}"#,
            r#"{"N":{"y":[1,2],"x":1},"UserData":"aA\n","V":null}"#,
            r#"{"N":{"y":[1,2],"x":1.0},"UserData":"aA\n"}"#,
            r#"{"N":{"y":[1,2],"x":1},"UserData":"aA\n","UserData":"aA\n"}"#,
        ] {
            assert!(differs(other), "{other}");
        }
    }

    #[test]
    fn a_result_that_cannot_be_read_is_an_error() {
        for (kind, result) in [
            (HookKind::Domain, "<domain><q:a/></domain>"),
            (HookKind::Domain, "<!DOCTYPE domain><domain/>"),
            (HookKind::CloudInit, "{"),
        ] {
            let sent = if kind == HookKind::Domain { "<domain/>" } else { "{}" };
            assert!(compare(kind, sent.as_bytes(), result.as_bytes()).is_err(), "{result}");
        }
    }
}
