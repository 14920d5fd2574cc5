//! Characters, references and escaping.

use std::borrow::Cow;
use std::fmt::Write;

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

pub(super) fn trim_end(text: &str) -> &str {
    text.trim_end_matches([' ', '\t', '\n', '\r'])
}

/// Whether XML 1.0 allows this character. (A `char` cannot be a surrogate.)
pub(super) fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// Whether a name may begin with this character, apart from the colon.
pub(super) fn starts_name(character: char) -> bool {
    matches!(character,
        'A'..='Z' | 'a'..='z' | '_' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}'
        | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}'
        | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
        | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

/// Whether a name may have this character behind its first one, apart from the colon.
pub(super) fn continues_name(character: char) -> bool {
    starts_name(character)
        || matches!(character,
            '0'..='9' | '-' | '.' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// Reads the inside of a reference, such as `lt` or `#x41`.
pub(super) fn referred(name: &str) -> Option<char> {
    let number = match name {
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "amp" => return Some('&'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        _ => name.strip_prefix('#')?,
    };
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    // `from_str_radix` takes a sign.
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    let character = u32::from_str_radix(digits, radix).ok().and_then(char::from_u32)?;
    is_allowed(character).then_some(character)
}

/// Replaces the references in a text, and its line breaks by line feeds.
fn decode(raw: &str, out: &mut String) {
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\r']) {
        out.push_str(&rest[..at]);
        let special = &rest[at..];
        if let Some(behind) = special.strip_prefix('\r') {
            out.push('\n');
            rest = behind.strip_prefix('\n').unwrap_or(behind);
        } else {
            // The scanner has checked it.
            let end = special.find(';').unwrap_or(special.len() - 1);
            out.extend(special.get(1..end).and_then(referred));
            rest = &special[end + 1..];
        }
    }
    out.push_str(rest);
}

/// What an attribute says whose value is written like this.
pub(super) fn value_of(raw: &str) -> Cow<'_, str> {
    if !raw.contains(['&', '\t', '\n', '\r']) {
        return Cow::Borrowed(raw);
    }
    // A written line break or tab is read as a space, a reference to one as that character.
    let spaced = raw.replace("\r\n", " ").replace(['\t', '\n', '\r'], " ");
    let mut value = String::with_capacity(spaced.len());
    decode(&spaced, &mut value);
    Cow::Owned(value)
}

/// A piece of what stands between tags.
enum Piece<'t> {
    Text(&'t str),
    CData(&'t str),
    /// A comment or a processing instruction.
    Other,
}

/// Splits what stands between tags. It is well-formed.
fn pieces(mut rest: &str) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = match rest.find('<').unwrap_or(rest.len()) {
            0 => {
                let (opening, closing) = if rest.starts_with("<!--") {
                    ("<!--", "-->")
                } else if rest.starts_with("<![CDATA[") {
                    ("<![CDATA[", "]]>")
                } else {
                    ("<?", "?>")
                };
                let inside = rest.get(opening.len()..).unwrap_or_default();
                let (inside, after) = inside.split_once(closing).unwrap_or((inside, ""));
                let is_text = opening == "<![CDATA[";
                (if is_text { Piece::CData(inside) } else { Piece::Other }, after)
            }
            end => (Piece::Text(&rest[..end]), &rest[end..]),
        };
        rest = after;
        Some(piece)
    })
}

/// Appends the text that stands between two tags, without comments.
pub(super) fn push_text(raw: &str, out: &mut String) {
    for piece in pieces(raw) {
        match piece {
            Piece::Text(raw) => decode(raw, out),
            Piece::CData(raw) => out.push_str(&raw.replace("\r\n", "\n").replace('\r', "\n")),
            Piece::Other => {}
        }
    }
}

/// Whether there is neither a comment nor a processing instruction.
pub(super) fn is_text_alone(raw: &str) -> bool {
    !pieces(raw).any(|piece| matches!(piece, Piece::Other))
}

/// Writes a value as it stands between these quotes.
pub(super) fn escape_value(value: &str, quote: u8) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' if quote == b'"' => escaped.push_str("&quot;"),
            '\'' if quote == b'\'' => escaped.push_str("&apos;"),
            // As they are, a parser reads them as spaces.
            '\t' | '\n' | '\r' => {
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Writes the text of an element.
pub(super) fn escape_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // As it is, a parser reads it as a line feed.
            '\r' => escaped.push_str("&#13;"),
            _ => escaped.push(character),
        }
    }
    escaped
}
