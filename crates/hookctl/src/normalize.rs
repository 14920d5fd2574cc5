//! Documents in a normal form, to compare their contents and not how they are written.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};
use sidecar_shim::hook::HookKind;

use crate::json::Json;

/// Returns the document of a hook in its normal form, in lines. Text that cannot be parsed stays as
/// it is.
pub(crate) fn normalize(kind: HookKind, document: &[u8]) -> String {
    let text = String::from_utf8_lossy(document);
    let normal = match kind {
        HookKind::Domain => normalize_xml(&text).ok(),
        HookKind::CloudInit => normalize_json(&text).ok(),
        HookKind::Node => None,
    };
    normal.unwrap_or_else(|| text.into_owned())
}

/// Writes empty elements as one tag, and attributes in the order of their names.
fn normalize_xml(text: &str) -> Result<String, quick_xml::Error> {
    let mut reader = Reader::from_str(text);
    let mut writer = Writer::new(Vec::new());
    let mut unwritten: Option<BytesStart<'_>> = None;
    loop {
        let event = reader.read_event()?;
        if let Some(start) = unwritten.take() {
            if let Event::End(_) = event {
                writer.write_event(Event::Empty(start))?;
                continue;
            }
            writer.write_event(Event::Start(start))?;
        }
        match event {
            Event::Start(start) => unwritten = Some(with_sorted_attributes(&start)?),
            Event::Empty(start) => {
                writer.write_event(Event::Empty(with_sorted_attributes(&start)?))?;
            }
            Event::Eof => break,
            other => writer.write_event(other)?,
        }
    }
    let written = writer.into_inner();
    Ok(format!("{}\n", String::from_utf8_lossy(&written).trim_end()))
}

fn with_sorted_attributes<'a>(start: &BytesStart<'a>) -> Result<BytesStart<'a>, quick_xml::Error> {
    let mut attributes = start.attributes().collect::<Result<Vec<_>, _>>()?;
    attributes.sort_by_key(|attribute| attribute.key);
    let name: &str = start.name().into_inner();
    Ok(BytesStart::new(name.to_owned()).with_attributes(attributes))
}

/// Indents the JSON, which KubeVirt writes in one line, and breaks strings at their line breaks.
fn normalize_json(text: &str) -> serde_json::Result<String> {
    Ok(Json::parse(text.as_bytes())?.to_string().replace("\\n", "\\n\n    "))
}
