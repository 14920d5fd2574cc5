//! Characters, and references to them. XML allows no control characters other than tab, line feed
//! and carriage return, and neither U+FFFE nor U+FFFF.

/// Returns the offset of the first character in UTF-8 text that XML does not allow.
pub(super) fn find_bad(bytes: &[u8]) -> Option<usize> {
    let mut candidates = bytes.iter().enumerate().filter(|(_, byte)| may_be_bad(**byte));
    candidates.find(|(at, _)| is_bad(&bytes[*at..])).map(|(at, _)| at)
}

/// Whether UTF-8 text begins with such a character.
pub(super) fn is_bad(text: &[u8]) -> bool {
    match text {
        // U+FFFE and U+FFFF.
        [0xef, rest @ ..] => matches!(rest, [0xbf, 0xbe | 0xbf, ..]),
        [byte, ..] => may_be_bad(*byte),
        [] => false,
    }
}

/// Whether such a character begins with this byte.
pub(super) const fn may_be_bad(byte: u8) -> bool {
    matches!(byte, 0..=8 | 0xb | 0xc | 0xe..=0x1f | 0xef)
}

/// Describes the character that UTF-8 text begins with, which XML does not allow.
pub(super) fn describe_bad(text: &[u8]) -> String {
    match text.first() {
        Some(0xef) => "U+FFFE or U+FFFF, which XML does not allow,".to_owned(),
        control => format!("control character {:#04x}", control.copied().unwrap_or_default()),
    }
}

/// Reads a reference that UTF-8 text begins with: `&lt;`, `&#60;`, `&#x3c;`. Returns the character
/// and the rest, or `None` if it is none of XML's five entities and no character that XML allows.
pub(super) fn reference(text: &[u8]) -> Option<(char, &[u8])> {
    let [b'&', rest @ ..] = text else { return None };
    let [b'#', digits @ ..] = rest else {
        let entities = [("lt;", '<'), ("gt;", '>'), ("amp;", '&'), ("quot;", '"'), ("apos;", '\'')];
        return entities
            .iter()
            .find_map(|(name, c)| rest.strip_prefix(name.as_bytes()).map(|rest| (*c, rest)));
    };
    let (radix, digits) = match digits {
        [b'x', digits @ ..] => (16, digits),
        digits => (10, digits),
    };
    let (mut code, mut rest, mut read) = (0_u32, digits, false);
    while let [byte, after @ ..] = rest {
        let Some(digit) = char::from(*byte).to_digit(radix) else { break };
        code = code.saturating_mul(radix).saturating_add(digit);
        (rest, read) = (after, true);
    }
    let [b';', rest @ ..] = rest else { return None };
    let c = char::from_u32(code).filter(|_| read)?;
    let is_allowed = !is_bad(c.encode_utf8(&mut [0; 4]).as_bytes());
    is_allowed.then_some((c, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_bad_character_wherever_it_stands() {
        for bad in ["\u{1}", "\u{1f}", "\u{ffff}"] {
            for before in 0..20 {
                let text = format!("{}{bad}\u{fffd}\n\u{e9}", "\t~".repeat(before));
                assert_eq!(find_bad(text.as_bytes()), Some(2 * before), "{text:?}");
            }
        }
        for byte in 0..=0x1f_u8 {
            let text = format!("1234567{}", char::from(byte));
            let is_white = matches!(byte, b'\t' | b'\n' | b'\r');
            assert_eq!(find_bad(text.as_bytes()).is_none(), is_white, "{text:?}");
        }
        for good in ["\t\n\r ~\u{7f}", "\u{80}\u{fffd}\u{feff}\u{ff0c}\u{1f600}"] {
            assert_eq!(find_bad(good.repeat(9).as_bytes()), None, "{good:?}");
        }
    }

    #[test]
    fn reads_the_five_entities_and_numbers() {
        for (text, expected) in [
            ("&lt;", '<'),
            ("&apos;", '\''),
            ("&#60;", '<'),
            ("&#x3c;", '<'),
            ("&#x3C;", '<'),
            ("&#000000000000000000000000000065;", 'A'),
            ("&#x10FFFF;", '\u{10ffff}'),
            ("&#9;", '\t'),
        ] {
            assert_eq!(reference(format!("{text};x").as_bytes()), Some((expected, &b";x"[..])));
        }
        for bad in [
            "",
            "x",
            "&",
            "&;",
            "&lt",
            "&LT;",
            "&x;",
            "&#;",
            "&#x;",
            "&#X41;",
            "&#+65;",
            "&#65",
            "&#a;",
            "&#xg;",
            "&#0;",
            "&#1;",
            "&#xFFFF;",
            "&#xD800;",
            "&#x110000;",
            "&#4294967361;",
            "&#99999999999999999999999999;",
        ] {
            assert_eq!(reference(bad.as_bytes()), None, "{bad}");
        }
    }
}
