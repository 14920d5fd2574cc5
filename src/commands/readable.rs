//! Documents in one way of writing them: what they say is compared, not how it is written.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};

/// What kind of document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A libvirt domain.
    Xml,
    /// Cloud-init data.
    Json,
}

/// A document in lines, in one way of writing it. Text that cannot be read stays as it is.
pub(super) fn readable(kind: Kind, document: &[u8]) -> String {
    let text = String::from_utf8_lossy(document);
    match kind {
        Kind::Xml => readable_xml(&text).unwrap_or_else(|_| text.into_owned()),
        Kind::Json => readable_json(&text).unwrap_or_else(|_| text.into_owned()),
    }
}

/// Empty elements have one tag, attributes stand in the order of their names.
fn readable_xml(text: &str) -> Result<String, quick_xml::Error> {
    let mut reader = Reader::from_str(text);
    let mut writer = Writer::new(Vec::new());
    let mut held: Option<BytesStart<'_>> = None;
    loop {
        let event = reader.read_event()?;
        if let Some(start) = held.take() {
            if let Event::End(_) = event {
                writer.write_event(Event::Empty(start))?;
                continue;
            }
            writer.write_event(Event::Start(start))?;
        }
        match event {
            Event::Start(start) => held = Some(in_order(&start)?),
            Event::Empty(start) => writer.write_event(Event::Empty(in_order(&start)?))?,
            Event::Eof => break,
            other => writer.write_event(other)?,
        }
    }
    let written = writer.into_inner();
    Ok(format!("{}\n", String::from_utf8_lossy(&written).trim_end()))
}

fn in_order<'a>(start: &BytesStart<'a>) -> Result<BytesStart<'a>, quick_xml::Error> {
    let name = start.name();
    let name: &str = name.as_ref();
    let mut ordered = BytesStart::new(name.to_owned());
    let mut attributes = start.attributes().collect::<Result<Vec<_>, _>>()?;
    attributes.sort_by_key(|attribute| attribute.key);
    for attribute in attributes {
        ordered.push_attribute(attribute);
    }
    Ok(ordered)
}

/// It comes in one line: it is laid out, and strings of several lines are broken where they
/// break.
fn readable_json(text: &str) -> serde_json::Result<String> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    Ok(serde_json::to_string_pretty(&value)?.replace("\\n", "\\n\n    "))
}
