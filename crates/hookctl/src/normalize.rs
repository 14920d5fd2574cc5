//! Documents in one normal form, so that their contents are compared and not how they are written.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};

/// What kind of document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A libvirt domain.
    Xml,
    /// Cloud-init data.
    Json,
}

/// A document in its normal form, in lines. Text that cannot be parsed stays as it is.
pub(crate) fn normalize(kind: Kind, document: &[u8]) -> String {
    let text = String::from_utf8_lossy(document);
    match kind {
        Kind::Xml => normalize_xml(&text).unwrap_or_else(|_| text.into_owned()),
        Kind::Json => normalize_json(&text).unwrap_or_else(|_| text.into_owned()),
    }
}

/// Empty elements have one tag, attributes stand in the order of their names.
fn normalize_xml(text: &str) -> Result<String, quick_xml::Error> {
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

/// Indents the JSON, which comes in one line, and breaks strings at their line breaks.
fn normalize_json(text: &str) -> serde_json::Result<String> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    Ok(serde_json::to_string_pretty(&value)?.replace("\\n", "\\n\n    "))
}
