//! Edits an XML document and keeps every other byte: white space, comments, prefixes, quotes, and
//! the form of empty elements.
//!
//! [`set_attribute`] and [`set_text`] change the element at a path. For other edits, read the
//! document with [`parse`], search the [`roxmltree`] document, and collect [`Changes`] of its
//! elements. (The tree's `has_tag_name("os")` matches that name in any namespace, and `<metadata>`
//! may hold any elements.)
//!
//! ```
//! use kubevirt_hook::xml::{self, Changes};
//!
//! # fn main() -> kubevirt_hook::Result<()> {
//! let domain = "<domain>\n  <os>\n    <type>hvm</type>\n  </os>\n</domain>\n";
//! let domain = xml::set_attribute(domain, "os/smbios", "mode", "sysinfo")?;
//! assert!(domain.contains("</type>\n    <smbios mode=\"sysinfo\"></smbios>\n  </os>"));
//!
//! let document = xml::parse(&domain)?;
//! let mut changes = Changes::of(&domain);
//! if let Some(smbios) = xml::find(document.root_element(), "os/smbios") {
//!     changes.remove(smbios);
//! }
//! # assert!(!changes.apply().contains("smbios"));
//! # Ok(())
//! # }
//! ```

use std::ops::Range;

use roxmltree::{Document, Node};

pub use roxmltree;

use crate::InvalidParams;

/// Maximum nesting depth of elements, which the shim enforces: libxml2, which libvirt uses, has
/// about the same.
const MAX_DEPTH: usize = 255;

/// Parses a document, which must not have a document type, nor elements that are nested more than
/// 255 deep.
///
/// The error gives the position only; it does not quote the document.
pub fn parse(xml: &str) -> Result<Document<'_>, InvalidParams> {
    let document = Document::parse(xml).map_err(|error| {
        // The error's own text names elements and entities.
        let at = error.pos();
        InvalidParams::new(format!(
            "the document is not well-formed XML: line {}, column {}",
            at.row, at.col
        ))
    })?;
    if is_too_deep(&document) {
        let why = format!("the document has elements that are nested more than {MAX_DEPTH} deep");
        return Err(InvalidParams::new(why));
    }
    Ok(document)
}

/// Walks through all nodes without recursion.
fn is_too_deep(document: &Document<'_>) -> bool {
    let (mut node, mut depth) = (document.root(), 0);
    loop {
        if let Some(child) = node.first_child() {
            (node, depth) = (child, depth + 1);
            // The document itself is a node, and so is the content of the innermost element.
            if node.is_element() && depth > MAX_DEPTH {
                return true;
            }
            continue;
        }
        loop {
            if let Some(sibling) = node.next_sibling() {
                node = sibling;
                break;
            }
            let Some(parent) = node.parent() else { return false };
            (node, depth) = (parent, depth - 1);
        }
        if node.is_element() && depth > MAX_DEPTH {
            return true;
        }
    }
}

/// Finds the first element at a path below another.
///
/// A path consists of element names and, where the name alone is ambiguous, an attribute in the
/// syntax of `XPath`: `sysinfo[@type='smbios']/baseBoard/entry[@name='manufacturer']`. It matches
/// elements in the namespace of the start element; if that has none, elements without a namespace.
#[must_use]
pub fn find<'a, 'i>(node: Node<'a, 'i>, path: &str) -> Option<Node<'a, 'i>> {
    match follow(node, path) {
        Found::Element(node) => Some(node),
        Found::Missing(..) => None,
    }
}

/// Sets an attribute of the element at a path below the root (see [`find`]) and returns the
/// document. Missing elements of the path are appended to the last existing one.
pub fn set_attribute(
    xml: &str,
    path: &str,
    name: &str,
    value: &str,
) -> Result<String, InvalidParams> {
    let document = parse(xml)?;
    let mut changes = Changes::of(xml);
    match follow(document.root_element(), path) {
        Found::Element(node) => changes.set_attribute(node, name, value),
        Found::Missing(node, steps) => {
            changes.append(node, &nested(&steps, &attribute(name, value), ""));
        }
    }
    Ok(changes.apply())
}

/// Replaces the content of the element at a path below the root (see [`find`]) with a text and
/// returns the document. Missing elements of the path are appended to the last existing one.
pub fn set_text(xml: &str, path: &str, text: &str) -> Result<String, InvalidParams> {
    let document = parse(xml)?;
    let mut changes = Changes::of(xml);
    match follow(document.root_element(), path) {
        Found::Element(node) => changes.set_text(node, text),
        Found::Missing(node, steps) => changes.append(node, &nested(&steps, "", &escape(text))),
    }
    Ok(changes.apply())
}

/// Escapes a value for use in an attribute or as the text of an element.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Unescaped in an attribute, a parser reads them as spaces.
            '\t' => escaped.push_str("&#9;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// Returns whether a text has neither control characters, most of which XML cannot represent even
/// escaped, nor Unicode noncharacters.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| {
        c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
    })
}

/// A set of changes to one document. [`apply`](Self::apply) makes them.
#[derive(Debug)]
pub struct Changes<'d> {
    xml: &'d str,
    /// Ranges of the document and their replacements.
    pieces: Vec<(Range<usize>, String)>,
}

impl<'d> Changes<'d> {
    /// Creates an empty set of changes to this document. The methods accept elements of
    /// [`parse`]`(xml)` only.
    #[must_use]
    pub fn of(xml: &'d str) -> Self {
        Self { xml, pieces: Vec::new() }
    }

    /// Declares a namespace at an element, unless the prefix is already declared there.
    pub fn declare(&mut self, node: Node<'_, '_>, prefix: &str, uri: &str) {
        if node.lookup_namespace_uri(Some(prefix)).is_none() {
            self.set_attribute(node, &format!("xmlns:{prefix}"), uri);
        }
    }

    /// Sets an attribute of an element. The name may have a prefix.
    pub fn set_attribute(&mut self, node: Node<'_, '_>, name: &str, value: &str) {
        match node.attribute_node(name) {
            Some(there) if there.value() == value => {}
            Some(there) => {
                // The document's quotes stay. They may be single ones.
                let value = escape(value).replace('\'', "&apos;");
                self.pieces.push((there.range_value(), value));
            }
            None => {
                let tag = self.start_tag(node);
                let inside = self.xml[tag.clone()].trim_end_matches('>').trim_end_matches('/');
                let at = tag.start + inside.trim_end().len();
                self.pieces.push((at..at, attribute(name, value)));
            }
        }
    }

    /// Replaces the content of an element with a text.
    pub fn set_text(&mut self, node: Node<'_, '_>, text: &str) {
        let is_text = node.children().all(|child| child.is_text());
        if is_text && node.text().unwrap_or_default() == text {
            return;
        }
        match self.end_tag(node) {
            Some(end) => self.pieces.push((self.start_tag(node).end..end, escape(text))),
            None => self.open_up(node, &escape(text)),
        }
    }

    /// Appends XML to the content of an element. If the element's children are on separate lines,
    /// the new one gets its own line with their indentation.
    pub fn append(&mut self, node: Node<'_, '_>, xml: &str) {
        let Some(end) = self.end_tag(node) else { return self.open_up(node, xml) };
        let before_last = node.last_element_child().and_then(|last| last.prev_sibling());
        let indentation =
            before_last.and_then(|node| node.text()).filter(|it| it.trim().is_empty());
        // The end tag stays on its line.
        let start = self.start_tag(node).end;
        let at = start + self.xml[start..end].trim_end().len();
        self.pieces.push((at..at, format!("{}{xml}", indentation.unwrap_or_default())));
    }

    /// Removes an element and the white space before it.
    pub fn remove(&mut self, node: Node<'_, '_>) {
        let Range { start, end } = node.range();
        self.pieces.push((self.xml[..start].trim_end().len()..end, String::new()));
    }

    /// Makes the changes and returns the new document.
    ///
    /// # Panics
    ///
    /// If one change is inside the range that another one replaces.
    #[must_use]
    pub fn apply(mut self) -> String {
        // A stable sort keeps the order of changes at one position.
        self.pieces.sort_by_key(|(range, _)| (range.start, range.end));
        let mut changed = String::with_capacity(self.xml.len());
        let mut done = 0;
        for (range, text) in &self.pieces {
            assert!(done <= range.start, "two changes of an XML document overlap");
            changed.push_str(&self.xml[done..range.start]);
            changed.push_str(text);
            done = range.end;
        }
        changed.push_str(&self.xml[done..]);
        changed
    }

    /// Turns `<a/>` into `<a>…</a>`.
    fn open_up(&mut self, node: Node<'_, '_>, inside: &str) {
        let tag = self.start_tag(node);
        let name = self.xml[tag.start + 1..tag.end].trim_end_matches("/>");
        let name = name.split_ascii_whitespace().next().unwrap_or_default();
        self.pieces.push((tag.end - 2..tag.end, format!(">{inside}</{name}>")));
    }

    /// Returns the range of an element's start tag. A `>` in an attribute does not end the tag.
    fn start_tag(&self, node: Node<'_, '_>) -> Range<usize> {
        let Range { start, end } = node.range();
        let mut quote = None;
        for (at, byte) in self.xml[start..end].bytes().enumerate() {
            match (quote, byte) {
                (None, b'>') => return start..start + at + 1,
                (None, b'"' | b'\'') => quote = Some(byte),
                (Some(open), _) if open == byte => quote = None,
                _ => {}
            }
        }
        start..end
    }

    /// Returns the position of an element's end tag, if it has one.
    fn end_tag(&self, node: Node<'_, '_>) -> Option<usize> {
        let Range { start, end } = node.range();
        if self.xml[self.start_tag(node)].ends_with("/>") {
            return None;
        }
        self.xml[start..end].rfind("</").map(|at| start + at)
    }
}

/// A step of a path: the name of an element and, optionally, an attribute that it must have.
type Step<'p> = (&'p str, Option<(&'p str, &'p str)>);

enum Found<'a, 'i, 'p> {
    Element(Node<'a, 'i>),
    /// The last existing element and the rest of the path.
    Missing(Node<'a, 'i>, Vec<Step<'p>>),
}

fn follow<'a, 'i, 'p>(from: Node<'a, 'i>, path: &'p str) -> Found<'a, 'i, 'p> {
    let namespace = from.tag_name().namespace();
    let mut node = from;
    let mut steps = path.split('/').map(|text| match text.split_once("[@") {
        Some((name, attribute)) => (name, attribute.trim_end_matches("']").split_once("='")),
        None => (text, None),
    });
    while let Some((name, attribute)) = steps.next() {
        let fits = |child: &Node<'_, '_>| {
            let known = |(name, value)| child.attribute(name) == Some(value);
            let is_named = child.has_tag_name(name) && child.tag_name().namespace() == namespace;
            is_named && attribute.is_none_or(known)
        };
        let Some(child) = node.children().find(fits) else {
            return Found::Missing(node, [(name, attribute)].into_iter().chain(steps).collect());
        };
        node = child;
    }
    Found::Element(node)
}

/// Formats nested elements. The innermost one has the attributes and the content.
fn nested(steps: &[Step<'_>], attributes: &str, content: &str) -> String {
    let Some(((name, known), rest)) = steps.split_first() else { return content.to_owned() };
    let known = known.map(|(name, value)| attribute(name, value)).unwrap_or_default();
    let own = if rest.is_empty() { attributes } else { "" };
    format!("<{name}{known}{own}>{}</{name}>", nested(rest, attributes, content))
}

fn attribute(name: &str, value: &str) -> String {
    format!(" {name}=\"{}\"", escape(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_of_elements_has_the_maximum_that_the_protocol_says() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(&format!("| elements of a domain | nested up to {MAX_DEPTH} deep |")));
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert!(parse(&nested(MAX_DEPTH).replacen("<a></a>", "<a>text<!-- c --></a>", 1)).is_ok());
        for deep in
            [nested(MAX_DEPTH + 1), nested(MAX_DEPTH).replacen("<a></a>", "<a>text<b/></a>", 1)]
        {
            let error = parse(&deep).unwrap_err().to_string();
            assert_eq!(error, "the document has elements that are nested more than 255 deep");
        }
        assert!(parse(&nested(100_000)).is_err());
    }

    /// A document with everything that an edit must keep.
    const DOMAIN: &str =
        "<?xml version='1.0'?>\n<!-- <os> -->\n<domain type='kvm' xmlns:q=\"a>b\" >\r\n\
        \t<a:os xmlns:a='urn:a'/>\n\t<os   >\n\t\t<type a = 'x>y'>h&#118;m</type>\n\t</os>\n\
        \t<empty/><wide b='' />\n\
        \t<list><e n='1'>&lt;</e><e n=\"2\">two<!-- c --></e></list>\n</domain>\n<!-- end -->\n";

    fn change(make: impl FnOnce(&Document<'_>, &mut Changes<'_>)) -> String {
        let mut changes = Changes::of(DOMAIN);
        make(&parse(DOMAIN).unwrap(), &mut changes);
        let result = changes.apply();
        assert!(parse(&result).is_ok(), "{result}");
        result
    }

    fn element<'a>(document: &'a Document<'a>, name: &str) -> Node<'a, 'a> {
        document.descendants().find(|node| node.has_tag_name(name)).unwrap()
    }

    #[test]
    fn what_is_right_stays_to_the_byte() {
        assert_eq!(change(|_, _| {}), DOMAIN);
        assert_eq!(set_attribute(DOMAIN, "os/type", "a", "x>y").unwrap(), DOMAIN);
        assert_eq!(set_text(DOMAIN, "os/type", "hvm").unwrap(), DOMAIN);
        assert_eq!(set_text(DOMAIN, "list/e[@n='1']", "<").unwrap(), DOMAIN);
        assert_eq!(set_text(DOMAIN, "empty", "").unwrap(), DOMAIN);
    }

    /// Asserts that `old` became `new` and that the rest of the document is unchanged.
    fn assert_replaced(changed: &str, old: &str, new: &str) {
        assert_eq!(DOMAIN.matches(old).count(), 1, "{old}");
        assert_eq!(changed, DOMAIN.replace(old, new));
    }

    #[test]
    fn an_attribute_is_replaced_or_added_in_its_tag() {
        let changed = set_attribute(DOMAIN, "os/type", "a", "\"<&>'\n").unwrap();
        assert_replaced(&changed, "'x>y'", "'&quot;&lt;&amp;&gt;&apos;&#10;'");
        let changed = set_attribute(DOMAIN, "os", "b", "1").unwrap();
        assert_replaced(&changed, "<os   >", "<os b=\"1\"   >");
        let changed = set_attribute(DOMAIN, "wide", "c", "").unwrap();
        assert_replaced(&changed, "<wide b='' />", "<wide b='' c=\"\" />");
        let changed = change(|document, changes| {
            changes.declare(document.root_element(), "n", "urn:n");
            changes.declare(document.root_element(), "q", "urn:known");
        });
        assert_replaced(&changed, "\"a>b\" >", "\"a>b\" xmlns:n=\"urn:n\" >");
    }

    /// The attributes and texts of all elements, in the order of the document.
    fn contents(document: &Document<'_>) -> Vec<String> {
        let elements = document.descendants().filter(Node::is_element);
        elements
            .flat_map(|element| {
                let attributes = element.attributes();
                let attributes = attributes.map(|it| format!("{}={:?}", it.name(), it.value()));
                let texts = element.children().filter(Node::is_text);
                attributes.chain(texts.map(|text| format!("{:?}", text.text()))).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn a_value_with_quotes_adds_no_attribute() {
        let changed = set_attribute("<d><s mode='x'/></d>", "s", "mode", "a' evil='b").unwrap();
        assert_eq!(changed, "<d><s mode='a&apos; evil=&apos;b'/></d>");
        let changed = set_attribute("<d><s mode='x'/></d>", "s", "mode", "O'Neill").unwrap();
        assert_eq!(changed, "<d><s mode='O&apos;Neill'/></d>");
    }

    proptest::proptest! {
        /// Whatever the value, it is what the document holds then, and the rest is as it was.
        #[test]
        fn a_value_is_read_back_as_it_was_set(
            value in r#"([ -~\t\n\r'"<&>=/]|[\u{a0}-\u{2fff}\u{1f600}])*"#,
            quote in "['\"]",
        ) {
            let document = |s: &str| format!(
                "<d a='1' b=\"2\"><s x='3' mode={s} y=\"4\">text</s><s mode='5'/><t z = '6'>text</t></d>"
            );
            let before = document(&format!("{quote}old{quote}"));
            let quoted = format!("{quote}{}{quote}", escape(&value).replace('\'', "&apos;"));
            let changed = set_attribute(&before, "s", "mode", &value).unwrap();
            proptest::prop_assert_eq!(&changed, &document(&quoted));
            let (old, new) = (parse(&before).unwrap(), parse(&changed).unwrap());
            let expected = contents(&old).into_iter().map(|it| {
                if it == "mode=\"old\"" { format!("mode={value:?}") } else { it }
            });
            proptest::prop_assert_eq!(contents(&new), expected.collect::<Vec<_>>());

            let changed = set_text(&before, "s", &value).unwrap();
            let new = parse(&changed).unwrap();
            let text = find(new.root_element(), "s").unwrap().text().unwrap_or_default();
            proptest::prop_assert_eq!(text, &value);
            let changed = set_attribute(&before, "t", "new", &value).unwrap();
            let new = parse(&changed).unwrap();
            let t = find(new.root_element(), "t").unwrap();
            proptest::prop_assert_eq!(t.attribute("new"), Some(&*value));
            proptest::prop_assert_eq!(t.attributes().len(), 2);
        }
    }

    #[test]
    fn a_text_takes_the_place_of_all_that_is_in_an_element() {
        let changed = set_text(DOMAIN, "list/e[@n='2']", "a < b").unwrap();
        assert_replaced(&changed, "two<!-- c -->", "a &lt; b");
        let changed = set_text(DOMAIN, "empty", "full").unwrap();
        assert_replaced(&changed, "<empty/>", "<empty>full</empty>");
        let changed = set_text(DOMAIN, "list", "").unwrap();
        assert!(changed.contains("<list></list>"));
    }

    #[test]
    fn what_is_missing_is_added_in_line_with_the_rest() {
        let changed = set_attribute(DOMAIN, "os/smbios", "mode", "sysinfo").unwrap();
        assert_replaced(
            &changed,
            "</type>\n\t</os>",
            "</type>\n\t\t<smbios mode=\"sysinfo\"></smbios>\n\t</os>",
        );
        let changed = set_text(DOMAIN, "new[@k='v']/x/e[@n='\"']", "t").unwrap();
        assert_replaced(
            &changed,
            "</list>\n</domain>",
            "</list>\n\t<new k=\"v\"><x><e n=\"&quot;\">t</e></x></new>\n</domain>",
        );
        let changed = set_text(DOMAIN, "wide/x", "t").unwrap();
        assert_replaced(&changed, "<wide b='' />", "<wide b='' ><x>t</x></wide>");
        // Another number, so another element.
        let changed = set_text(DOMAIN, "list/e[@n='3']", "").unwrap();
        assert_replaced(&changed, "</e></list>", "</e><e n=\"3\"></e></list>");
    }

    #[test]
    fn changes_at_one_place_go_together() {
        let changed = change(|document, changes| {
            let empty = element(document, "empty");
            changes.append(empty, "<x/>");
            changes.set_attribute(empty, "a", "1");
            changes.set_attribute(empty, "b", "2");
            changes.append(document.root_element(), "<y/>");
            changes.append(document.root_element(), "<z/>");
            changes.remove(element(document, "type"));
        });
        assert!(changed.contains("<empty a=\"1\" b=\"2\"><x/></empty>"), "{changed}");
        assert!(changed.contains("</list>\n\t<y/>\n\t<z/>\n</domain>"), "{changed}");
        assert!(changed.contains("<os   >\n\t</os>"), "{changed}");
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn a_change_inside_what_is_removed_is_a_mistake() {
        change(|document, changes| {
            changes.remove(find(document.root_element(), "os").unwrap());
            changes.set_attribute(element(document, "type"), "a", "1");
        });
    }

    #[test]
    fn of_a_document_that_cannot_be_read_an_error_tells_the_place_alone() {
        let broken = DOMAIN.replace("</os>", "</secret>");
        let error = set_text(&broken, "os", "").unwrap_err().to_string();
        assert_eq!(error, "the document is not well-formed XML: line 7, column 2");
        assert!(parse("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>").is_err());
    }

    #[test]
    fn plain_text_has_no_control_characters() {
        assert!(is_plain("") && is_plain("Größe <&> 漢字 😀"));
        for text in ["a\n", "\0", "\u{85}", "\u{fdd0}", "\u{ffff}", "\u{1fffe}"] {
            assert!(!is_plain(text), "{text:?}");
        }
    }
}
