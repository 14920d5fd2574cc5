//! The surroundings of what a hook changes: where a marker shows whether the hook keeps what is
//! beside its changes.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// A tag or text of a document, and its offset.
struct Token {
    at: usize,
    what: What,
}

#[derive(PartialEq, Eq)]
enum What {
    /// A start tag: its name and attributes, in their order.
    Start(String),
    /// An end tag. That of an element without content has no place in front of it.
    End {
        has_place: bool,
    },
    Text(String),
}

/// Returns offsets in a domain at the end of the elements in which the hook made its first and its
/// last change.
pub(super) fn of_changes(sent: &str, result: &str) -> Vec<usize> {
    let (Some(sent), Some(result)) = (tokens(sent), tokens(result)) else { return Vec::new() };
    let same = |one: &Token, other: &Token| match (&one.what, &other.what) {
        (What::End { .. }, What::End { .. }) => true,
        (one, other) => one == other,
    };
    let first = sent.iter().zip(&result).take_while(|(one, other)| same(one, other)).count();
    let pairs = sent.iter().rev().zip(result.iter().rev());
    let behind = pairs.take_while(|(one, other)| same(one, other)).count();
    if first == sent.len().max(result.len()) {
        return Vec::new();
    }
    let last = sent.len() - behind.min(sent.len() - first);
    let mut places: Vec<usize> =
        [first, last].into_iter().filter_map(|index| end_of_parent(&sent, index)).collect();
    places.dedup();
    places
}

/// Returns the offset of the end tag of the element around a token, if other elements may be there.
fn end_of_parent(tokens: &[Token], index: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut is_text_alone = true;
    for (at, token) in tokens.iter().enumerate().skip(index) {
        match &token.what {
            What::Start(_) => {
                depth += 1;
                is_text_alone = false;
            }
            What::End { .. } if depth > 0 => depth -= 1,
            What::End { has_place } => {
                // An element with text, such as a name, has no others in it.
                let has_text = matches!(tokens.get(at.checked_sub(1)?)?.what, What::Text(_));
                if (has_text && is_text_alone && holds_text_alone(tokens, at)) || !has_place {
                    return end_of_parent(tokens, at + 1);
                }
                return Some(token.at);
            }
            What::Text(_) => {}
        }
    }
    None
}

/// Whether the element with this end tag has text and no elements in it.
fn holds_text_alone(tokens: &[Token], end: usize) -> bool {
    let [.., start, text, _] = &tokens[..=end] else { return false };
    matches!((&start.what, &text.what), (What::Start(_), What::Text(_)))
}

/// Splits a document. White space between tags counts as nothing, and so do comments.
fn tokens(xml: &str) -> Option<Vec<Token>> {
    let body = xml.strip_prefix('\u{feff}').unwrap_or(xml);
    let skipped = xml.len() - body.len();
    let mut reader = Reader::from_str(body);
    let mut tokens: Vec<Token> = Vec::new();
    loop {
        let at = skipped + usize::try_from(reader.buffer_position()).ok()?;
        let what = match reader.read_event().ok()? {
            Event::Start(tag) => What::Start(start(&tag)?),
            Event::Empty(tag) => {
                tokens.push(Token { at, what: What::Start(start(&tag)?) });
                What::End { has_place: false }
            }
            Event::End(_) => What::End { has_place: true },
            Event::Text(text) if text.trim().is_empty() => continue,
            Event::Text(text) => What::Text(text.to_string()),
            Event::CData(text) => What::Text(text.to_string()),
            Event::GeneralRef(reference) => What::Text(reference.to_string()),
            Event::Eof => return Some(tokens),
            _ => continue,
        };
        match (tokens.last_mut().map(|last| &mut last.what), what) {
            (Some(What::Text(text)), What::Text(more)) => text.push_str(&more),
            (_, what) => tokens.push(Token { at, what }),
        }
    }
}

fn start(tag: &BytesStart<'_>) -> Option<String> {
    let mut attributes: Vec<_> = tag.attributes().collect::<Result<_, _>>().ok()?;
    attributes.sort_by_key(|attribute| attribute.key);
    let attributes = attributes.iter().map(|it| format!(" {}={}", it.key.into_inner(), it.value));
    let name: &str = tag.name().into_inner();
    Some(attributes.fold(name.to_owned(), |tag, attribute| tag + &attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_at_the_end_of_the_changed_elements() {
        for (sent, result, expected) in [
            ("<d><b></b><c/></d>", "<d><b><e/></b><c/></d>", &["</b><c/></d>"][..]),
            ("<d><b>x</b><c></c></d>", "<d><b>y</b><c></c></d>", &["</d>"]),
            ("<d><b/><c></c></d>", "<d><b><e/></b><c></c></d>", &["</d>"]),
            ("<d>\n <b a='1'/>\n</d>", "<d><b a='2'></b></d>", &["</d>"]),
            (
                "<d><b><x/></b><c/><e><y/></e></d>",
                "<d><b><x/><n/></b><c/><e><y/><n/></e></d>",
                &["</b><c/><e><y/></e></d>", "</e></d>"],
            ),
            ("<d><b/></d>", "<d>\n<b></b>\n</d>", &[]),
            ("<d", "<d/>", &[]),
        ] {
            let places: Vec<_> = of_changes(sent, result).iter().map(|at| &sent[*at..]).collect();
            assert_eq!(places, expected, "{sent} -> {result}");
        }
    }
}
