//! Markers: text in a domain that no hook has a reason to change. It shows whether the domain was
//! kept intact, and which call's it is.

use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// The marker's element. It goes into the domain's `metadata`, where libvirt keeps data of other
/// programs, each in its own namespace.
const ELEMENT: &str = "sidecar-shim-check";

const NAMESPACE: &str = "https://sidecar-shim.example/check";

/// Text with everything that careless programs lose: white space at both ends and in a row, letters
/// of several scripts, a combining accent, a no-break space, a character beyond U+FFFF, and what
/// must be escaped in XML or JSON.
pub(super) const DIFFICULT_TEXT: &str = "  two  blanks,\ta tab,\n\ta new line; \u{a0}e\u{301} \
                                         é ß Ж 中 \u{1f600} <&> \"quoted\" 'too' \\ \\n  ";

/// The same for an attribute. XML does not keep white space there.
const DIFFICULT_VALUE: &str = "é ß Ж 中 \u{1f600} <&> \"quoted\" 'too' \\n";

/// Returns the domain with a marker in its metadata that contains `text`. `None` if there is no
/// place for it.
pub(super) fn insert(domain: &str, text: &str) -> Option<String> {
    let places = places(domain)?;
    if let Some(at) = places.metadata_end {
        return insert_at(domain, at, text);
    }
    let (before, after) = domain.split_at_checked(places.root_end)?;
    Some(format!("{before}<metadata>{}</metadata>{after}", marker(text)))
}

/// Returns the domain with a marker at this offset.
pub(super) fn insert_at(domain: &str, at: usize, text: &str) -> Option<String> {
    let (before, after) = domain.split_at_checked(at)?;
    Some(format!("{before}{}{after}", marker(text)))
}

fn marker(text: &str) -> String {
    format!(
        "<c:{ELEMENT} xmlns:c=\"{NAMESPACE}\" value=\"{}\">{}</c:{ELEMENT}>",
        escape(DIFFICULT_VALUE),
        escape(text)
    )
}

/// Offsets in a domain where something can be inserted.
pub(super) struct Places {
    /// That of the end tag of the domain's `metadata`.
    pub(super) metadata_end: Option<usize>,
    /// That of the domain's own end tag.
    pub(super) root_end: usize,
}

/// Finds the places of a domain. `None` if it has none.
pub(super) fn places(domain: &str) -> Option<Places> {
    let body = domain.strip_prefix('\u{feff}').unwrap_or(domain);
    let skipped = domain.len() - body.len();
    let mut reader = Reader::from_str(body);
    let mut depth = 0_usize;
    let mut metadata_end = None;
    loop {
        let at = skipped + usize::try_from(reader.buffer_position()).ok()?;
        match reader.read_event().ok()? {
            Event::Start(_) => depth += 1,
            Event::End(tag) => {
                if depth == 2 && tag.local_name().as_ref() == "metadata" {
                    metadata_end.get_or_insert(at);
                }
                if depth == 1 {
                    return Some(Places { metadata_end, root_end: at });
                }
                depth = depth.checked_sub(1)?;
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// Returns the text of a domain's marker, and whether its attribute is intact. `None` if the marker
/// is lost.
pub(super) fn read(domain: &str) -> Option<(String, bool)> {
    let mut reader = Reader::from_str(domain.strip_prefix('\u{feff}').unwrap_or(domain));
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) if tag.local_name().as_ref() == ELEMENT => {
                return Some((text_of(&mut reader)?, value_is_intact(&tag)));
            }
            Event::Empty(tag) if tag.local_name().as_ref() == ELEMENT => {
                return Some((String::new(), value_is_intact(&tag)));
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn value_is_intact(tag: &BytesStart<'_>) -> bool {
    let value = tag.try_get_attribute("value").ok().flatten();
    value
        .and_then(|value| value.normalized_value(XmlVersion::Implicit1_0).ok())
        .is_some_and(|value| value == DIFFICULT_VALUE)
}

/// Reads the text up to the end of the current element.
fn text_of(reader: &mut Reader<&[u8]>) -> Option<String> {
    let mut text = String::new();
    loop {
        match reader.read_event().ok()? {
            Event::Text(piece) => text.push_str(&piece.xml10_content()),
            Event::CData(piece) => text.push_str(&piece.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().ok()? {
                Some(character) => text.push(character),
                None => text.push_str(resolve_predefined_entity(&reference)?),
            },
            Event::End(_) => return Some(text),
            Event::Comment(_) => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_wherever_they_were_inserted() {
        for domain in [
            "<domain><metadata><a/></metadata><b/></domain>",
            "<?xml version='1.0'?>\n<domain>\n\t<name>x</name>\n</domain>\n",
            "\u{feff}<domain><devices><metadata>no</metadata></devices></domain>",
        ] {
            let marked = insert(domain, DIFFICULT_TEXT).unwrap();
            assert_eq!(read(&marked).unwrap(), (DIFFICULT_TEXT.to_owned(), true), "{marked}");
            let start = marked.find("<metadata><c:").map_or(marked.len(), |at| at);
            assert_eq!(start == marked.len(), domain.contains("<a/>"), "{marked}");
        }
        assert_eq!(insert("<domain/>", "x"), None);
        assert_eq!(insert("no document", "x"), None);
        assert_eq!(read("<domain/>"), None);
    }

    #[test]
    fn a_marker_may_be_written_in_another_way() {
        let marked = insert("<domain></domain>", "a<b").unwrap();
        let other = marked.replace("a&lt;b", "<!-- x -->&#97;<![CDATA[<b]]>").replace("c:", "ns0:");
        assert_eq!(read(&other).unwrap(), ("a<b".to_owned(), true));
        let changed = marked.replace("Ж", "?");
        assert_eq!(read(&changed).unwrap(), ("a<b".to_owned(), false));
    }
}
