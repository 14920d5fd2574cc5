//! The characters of a document. XML has no place for control characters other than tab, line feed and
//! carriage return, nor for two that are none.

use super::Found;

/// Bytes that are looked at together.
const WORD_BYTES: usize = 8;

/// Finds the first such character.
pub(super) fn check(text: &str) -> Result<(), Found> {
    let bytes = text.as_bytes();
    let is_bad = |at: usize| match bytes[at] {
        byte if is_control(byte) => true,
        // How U+FFFE and U+FFFF begin.
        0xef => {
            bytes[at..].starts_with(b"\xef\xbf\xbe") || bytes[at..].starts_with(b"\xef\xbf\xbf")
        }
        _ => false,
    };
    let (words, _) = bytes.as_chunks::<WORD_BYTES>();
    let last = (words.len() * WORD_BYTES)..bytes.len();
    let suspects = words.iter().enumerate().filter(|(_, word)| !is_printable_ascii(**word));
    let suspects = suspects.flat_map(|(index, _)| index * WORD_BYTES..(index + 1) * WORD_BYTES);
    let Some(at) = suspects.chain(last).find(|at| is_bad(*at)) else { return Ok(()) };
    let what = match bytes[at] {
        0xef => "U+FFFE or U+FFFF, which are no characters".to_owned(),
        control => format!("control character {control:#04x}"),
    };
    Err(Found(what, at))
}

/// Whether a word holds neither control characters nor anything beyond ASCII: all its bytes are
/// compared at once.
fn is_printable_ascii(word: [u8; WORD_BYTES]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_ne_bytes(word);
    // Taking the first printable one away borrows the top bit where a byte is below it.
    (word.wrapping_sub(EACH * 0x20) | word) & (EACH * 0x80) == 0
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_bad_character_wherever_it_stands() {
        for bad in ["\u{1}", "\u{1f}", "\u{ffff}"] {
            for before in 0..20 {
                let text = format!("{}{bad}\u{fffd}\n\u{e9}", "\t~".repeat(before));
                let Err(Found(_, at)) = check(&text) else { panic!("{text:?}") };
                assert_eq!(at, 2 * before);
            }
        }
        for good in ["\t\n\r ~\u{7f}", "\u{80}\u{fffd}\u{feff}\u{ff0c}\u{1f600}"] {
            assert!(check(&good.repeat(9)).is_ok(), "{good:?}");
        }
    }
}
