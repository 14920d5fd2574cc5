//! The characters of a document. XML has no place for control characters other than tab, line feed and
//! carriage return, nor for two that are none.

use std::ops::Range;

use super::Found;

/// Bytes that are looked at together.
const WORD_BYTES: usize = 8;

/// Finds the first such character in UTF-8 text.
pub(super) fn check(bytes: &[u8]) -> Result<(), Found> {
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk() {
        if !is_plain_ascii(*word) {
            check_bytes(bytes, at..at + WORD_BYTES)?;
        }
        at += WORD_BYTES;
    }
    check_bytes(bytes, at..bytes.len())
}

/// Whether all bytes of a word are ASCII that XML takes. They are compared at once: with a top bit
/// that ASCII leaves free, no sum reaches into the byte beside it.
fn is_plain_ascii(word: [u8; WORD_BYTES]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = EACH * 0x80;
    let word = u64::from_ne_bytes(word);
    if word & TOP != 0 {
        return false;
    }
    let printable = word + EACH * (0x80 - 0x20);
    let is_not = |byte: u8| (word ^ (EACH * u64::from(byte))) + EACH * 0x7f;
    let space = !(is_not(b'\t') & is_not(b'\n') & is_not(b'\r'));
    (printable | space) & TOP == TOP
}

fn check_bytes(bytes: &[u8], mut range: Range<usize>) -> Result<(), Found> {
    let Some(at) = range.find(|at| is_bad(&bytes[*at..])) else { return Ok(()) };
    let what = match bytes[at] {
        0xef => "U+FFFE or U+FFFF, which are no characters".to_owned(),
        control => format!("control character {control:#04x}"),
    };
    Err(Found(what, at))
}

/// Whether text begins with such a character.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_bad_character_wherever_it_stands() {
        for bad in ["\u{1}", "\u{1f}", "\u{ffff}"] {
            for before in 0..20 {
                let text = format!("{}{bad}\u{fffd}\n\u{e9}", "\t~".repeat(before));
                let Err(Found(_, at)) = check(text.as_bytes()) else { panic!("{text:?}") };
                assert_eq!(at, 2 * before);
            }
        }
        for byte in 0..=0x1f_u8 {
            let text = format!("1234567{}", char::from(byte));
            let is_white = matches!(byte, b'\t' | b'\n' | b'\r');
            assert_eq!(check(text.as_bytes()).is_ok(), is_white, "{text:?}");
        }
        for good in ["\t\n\r ~\u{7f}", "\u{80}\u{fffd}\u{feff}\u{ff0c}\u{1f600}"] {
            assert!(check(good.repeat(9).as_bytes()).is_ok(), "{good:?}");
        }
    }
}
