//! The characters of a document. XML allows no control characters other than tab, line feed and
//! carriage return, and neither U+FFFE nor U+FFFF.

use super::Found;

/// Finds the first character in UTF-8 text that XML does not allow.
pub(super) fn check(bytes: &[u8]) -> Result<(), Found> {
    let mut candidates = bytes.iter().enumerate().filter(|(_, byte)| may_be_bad(**byte));
    let Some((at, byte)) = candidates.find(|(at, _)| is_bad(&bytes[*at..])) else { return Ok(()) };
    let what = match byte {
        0xef => "U+FFFE or U+FFFF, which XML does not allow,".to_owned(),
        control => format!("control character {control:#04x}"),
    };
    Err(Found(what, at))
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
