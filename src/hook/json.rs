//! A quick scan of JSON: it accepts what documents of KubeVirt consist of, and leaves everything
//! else to the thorough parser, which also says what is wrong. A VMI is read in each call.
//!
//! The scan accepts no text that the parser rejects: tests compare the two. It leaves fractions,
//! exponents and surrogate pairs to the parser, which are rare in a VMI.

/// Bytes that are looked at in one step.
const STEP: usize = size_of::<u64>();

/// The number whose bytes are all 1.
const ONES: u64 = u64::MAX / 255;

/// The highest bit of each byte.
const HIGH_BITS: u64 = ONES << 7;

/// A place in a JSON text. Each method takes something from there on, and returns `None` for what
/// is unknown to the scan.
pub(super) struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

/// What an object has next.
pub(super) enum Member<'a> {
    /// A member with this name, as it is written.
    Named(&'a [u8]),
    End,
}

/// Whether `json` is the text of one JSON object that is nested at most `depth` deep. `false` may
/// mean anything.
pub(super) fn is_plain_object(json: &[u8], depth: usize) -> bool {
    let mut scan = Scan::new(json);
    let is_object = scan.json.trim_ascii_start().first() == Some(&b'{');
    is_object
        && scan.value(depth).is_some()
        && scan.byte().is_none()
        && std::str::from_utf8(json).is_ok()
}

impl<'a> Scan<'a> {
    pub(super) fn new(json: &'a [u8]) -> Self {
        Self { json, at: 0 }
    }

    /// Takes white space and the byte behind it, which is `None` at the end.
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        loop {
            let byte = *self.json.get(self.at)?;
            self.at += 1;
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
        }
    }

    /// Takes the beginning of an object.
    pub(super) fn open(&mut self) -> Option<()> {
        (self.byte()? == b'{').then_some(())
    }

    /// Takes the name of an object's next member, up to the colon, or the object's end. `is_first`
    /// is true at the beginning of an object.
    #[inline]
    pub(super) fn member(&mut self, is_first: &mut bool) -> Option<Member<'a>> {
        let quote = match (self.byte()?, std::mem::take(is_first)) {
            (b'}', _) => return Some(Member::End),
            (b',', false) => self.byte()?,
            (byte, true) => byte,
            _ => return None,
        };
        let name = if quote == b'"' { self.rest_of_string()? } else { return None };
        (self.byte()? == b':').then_some(Member::Named(name))
    }

    /// Takes a string, and returns it as it is written.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        if self.byte()? == b'"' { self.rest_of_string() } else { None }
    }

    /// Takes a value that is nested at most `depth` deep.
    pub(super) fn value(&mut self, depth: usize) -> Option<()> {
        match self.byte()? {
            b'"' => self.rest_of_string().map(drop),
            b'{' => {
                let depth = depth.checked_sub(1)?;
                let mut is_first = true;
                while let Member::Named(_) = self.member(&mut is_first)? {
                    self.value(depth)?;
                }
                Some(())
            }
            b'[' => self.rest_of_array(depth.checked_sub(1)?),
            b't' => self.rest_of_word(b"rue"),
            b'f' => self.rest_of_word(b"alse"),
            b'n' => self.rest_of_word(b"ull"),
            first => self.rest_of_integer(first),
        }
    }

    fn rest_of_array(&mut self, depth: usize) -> Option<()> {
        let before = self.at;
        if self.byte()? == b']' {
            return Some(());
        }
        self.at = before;
        loop {
            self.value(depth)?;
            match self.byte()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn rest_of_word(&mut self, rest: &[u8]) -> Option<()> {
        self.json[self.at..].starts_with(rest).then(|| self.at += rest.len())
    }

    fn rest_of_integer(&mut self, first: u8) -> Option<()> {
        let digit = if first == b'-' { self.byte_now()? } else { first };
        if !digit.is_ascii_digit() {
            return None;
        }
        let begin = self.at;
        while self.json.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        let has_more = matches!(self.json.get(self.at), Some(b'.' | b'e' | b'E'));
        // No number begins with `00`.
        (!has_more && (digit != b'0' || self.at == begin)).then_some(())
    }

    fn byte_now(&mut self) -> Option<u8> {
        let byte = *self.json.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Takes a string whose first quote was taken.
    #[inline]
    fn rest_of_string(&mut self) -> Option<&'a [u8]> {
        let rest = self.json.get(self.at..)?;
        let length = plain_bytes(rest);
        if rest.get(length) == Some(&b'"') {
            self.at += length + 1;
            return rest.get(..length);
        }
        self.rest_of_string_with_escapes()
    }

    #[cold]
    fn rest_of_string_with_escapes(&mut self) -> Option<&'a [u8]> {
        let begin = self.at;
        loop {
            self.at += plain_bytes(self.json.get(self.at..)?);
            match self.byte_now()? {
                b'"' => return self.json.get(begin..self.at - 1),
                b'\\' => match self.byte_now()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => self.rest_of_code()?,
                    _ => return None,
                },
                // A control character.
                _ => return None,
            }
        }
    }

    /// Takes the four digits of a character that needs no second code. Go writes `<`, `>` and `&`
    /// so.
    fn rest_of_code(&mut self) -> Option<()> {
        let digits = self.json[self.at..].first_chunk::<4>()?;
        self.at += digits.len();
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        let is_surrogate =
            matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
        (is_hex && !is_surrogate).then_some(())
    }
}

/// Returns the number of bytes before the first quote, backslash or control character.
#[inline]
fn plain_bytes(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(step) = text[at..].first_chunk::<STEP>() {
        // The first byte is the lowest one.
        let step = u64::from_le_bytes(*step);
        let is_zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
        let quotes = is_zero(step ^ (ONES * u64::from(b'"')));
        let backslashes = is_zero(step ^ (ONES * u64::from(b'\\')));
        let controls = step.wrapping_sub(ONES * 0x20) & !step;
        // A borrow may mark a byte behind the first one that is meant, never one before it.
        let found = (quotes | backslashes | controls) & HIGH_BITS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += STEP;
    }
    at + plain_bytes_at_end(&text[at..])
}

#[cold]
fn plain_bytes_at_end(text: &[u8]) -> usize {
    let special = text.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    special.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    const VMI: &str = r#"{"kind":"VirtualMachineInstance","apiVersion":"kubevirt.io/v1","metadata":{
        "name":"vm","namespace":"ns","uid":"5d0c2b7e-91f4","generation":9,"labels":{"app":"s"},
        "annotations":{"a/b":"[{\"image\":\"r/i:1.0\",\"x\":\"\u003c\u0026\"}]"}},
        "spec":{"domain":{"cpu":{"cores":2,"sockets":1},"devices":{"disks":[{"disk":{"bus":"virtio"},
        "name":"root"},{"name":"cloud"}],"interfaces":[],"rng":{}},"ioThreads":null},"x":[true,-1]},
        "status":{"active":{},"phase":"Scheduled","é":false}}"#;

    fn parser_accepts(json: &[u8]) -> bool {
        serde_json::from_slice::<&RawValue>(json).is_ok()
    }

    #[test]
    fn ordinary_objects_are_accepted() {
        let all = r#" {"a" : [ ], "b":[1, -2 ,0,{}], "c\"\\\/\b\f\n\r\t":"é\"", "d":[[[]]],
            "e":true,"f":false,"g":null,"h":-0,"i":"","j":"\u003c\uD7ff\ue000" } "#;
        for json in [VMI, all, "{}"] {
            assert!(is_plain_object(json.as_bytes(), 100), "{json}");
            assert!(parser_accepts(json.as_bytes()), "{json}");
        }
    }

    #[test]
    fn what_is_no_object_or_has_a_fault_is_left_to_the_parser() {
        let faults = [
            "",
            " ",
            "{",
            "}",
            "[]",
            "7",
            "{}{}",
            "{} x",
            "{,}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":}",
            "{\"a\":[1,]}",
            "{\"a\":[,1]}",
            "{\"a\":[1 2]}",
            "{\"a\":01}",
            "{\"a\":-}",
            "{\"a\":- 1}",
            "{\"a\":+1}",
            "{\"a\":tru}",
            "{\"a\":nul",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\\u12",
            "{\"a\":\"\\",
            "{\"a\":\"",
            "{\"a\":\"\n\"}",
            "{a:1}",
            "{\"a\":1",
            "{\"a\":\"01234567\n\"}",
            "\u{feff}{}",
            "{\"a\":\u{c}1}",
        ];
        for json in faults {
            assert!(!is_plain_object(json.as_bytes(), 100), "{json}");
        }
        // Valid, and rare.
        for json in ["{\"a\":1.5}", "{\"a\":1e9}", "{\"a\":\"\\ud83d\\ude00\"}"] {
            assert!(!is_plain_object(json.as_bytes(), 100) && parser_accepts(json.as_bytes()));
        }
        assert!(!is_plain_object(b"{\"a\":\"\xff\"}", 100));
    }

    #[test]
    fn the_depth_is_limited() {
        let nested =
            |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(is_plain_object(nested(100).as_bytes(), 100));
        assert!(!is_plain_object(nested(101).as_bytes(), 100));
        assert!(!is_plain_object("{\"a\":".repeat(100_000).as_bytes(), 100));
    }

    #[test]
    fn the_first_special_byte_is_found_at_each_place() {
        for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
            for length in 0..40 {
                for filler in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
                    let mut text = vec![filler; length];
                    text.push(special);
                    text.extend([b'"', filler, 0, special].repeat(3));
                    assert_eq!(plain_bytes(&text), length, "{special} behind {filler}");
                    assert_eq!(plain_bytes(&text[..length]), length);
                }
            }
        }
    }

    proptest! {
        /// Texts that are nearly JSON: pieces of it in any order.
        #[test]
        fn what_the_scan_accepts_the_parser_accepts(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("{"), Just("}"), Just("["), Just("]"), Just(":"), Just(","), Just("\""),
                    Just("\\"), Just("\"a\""), Just("\"a\":"), Just("0"), Just("-"), Just("12"),
                    Just("true"), Just("null"), Just(" "), Just("\n"), Just("é"), Just("."),
                    Just("{}"), Just("[]"), Just("\"\\n\""), Just("\u{1}"),
                ],
                0..12,
            )
        ) {
            let json = format!("{{{}}}", pieces.concat());
            if is_plain_object(json.as_bytes(), 100) {
                prop_assert!(parser_accepts(json.as_bytes()), "{}", json);
            }
        }

        /// A valid text with one byte changed.
        #[test]
        fn a_changed_byte_is_accepted_only_if_the_parser_accepts_it(at in 0_usize..1000, byte: u8) {
            let mut json = VMI.as_bytes().to_vec();
            let at = at % json.len();
            json[at] = byte;
            if is_plain_object(&json, 100) {
                prop_assert!(parser_accepts(&json));
            }
        }
    }
}
