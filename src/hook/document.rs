//! Documents: bytes that are passed on and never logged.

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::json;

/// Maximum depth of objects and arrays in each other. KubeVirt's types have up to 20. Parsers give
/// up between 128 (`serde_json`) and 10,000 (Go), and some of them exhaust the stack before that.
pub(super) const MAX_JSON_DEPTH: usize = 100;

/// A document (VMI, domain, cloud-init data): UTF-8 text that the shim validates and passes on.
///
/// `Debug` prints only its length, so that no log and no error contains its text by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Document(Bytes);

/// Why a document is invalid: its name in the API, and the fault.
#[derive(Debug, thiserror::Error)]
#[error("{name} {fault}")]
pub struct BadDocument {
    name: &'static str,
    fault: String,
}

impl BadDocument {
    pub(crate) fn new(name: &'static str, fault: String) -> Self {
        Self { name, fault }
    }
}

impl Document {
    /// Accepts bytes that were validated already, or that are passed on unread.
    pub(super) fn unchecked(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Accepts UTF-8 text without NUL characters.
    pub(super) fn text(name: &'static str, bytes: Bytes) -> Result<Self, BadDocument> {
        read_text(name, &bytes)?;
        Ok(Self(bytes))
    }

    /// Accepts the text of one JSON object, white space around it included.
    pub(super) fn json_object(name: &'static str, bytes: &Bytes) -> Result<Self, BadDocument> {
        if json::is_plain_object(bytes, MAX_JSON_DEPTH) {
            return Ok(Self(bytes.clone()));
        }
        let bad = |fault| BadDocument::new(name, fault);
        // Not left to the parser, whose error for a wrong type quotes the value.
        match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => return Err(bad("is empty; it must be a JSON object".to_owned())),
            Some(b'{') => {}
            Some(&byte) if byte.is_ascii_graphic() => {
                let shown = char::from(byte);
                return Err(bad(format!("is not a JSON object: it begins with `{shown}`")));
            }
            Some(byte) => {
                return Err(bad(format!("is not a JSON object: it begins with byte {byte:#04x}")));
            }
        }
        serde_json::from_slice::<&RawValue>(bytes)
            .map_err(|error| bad(json_fault(bytes, &error)))?;
        if is_too_deep(bytes) {
            return Err(bad(format!("is nested more than {MAX_JSON_DEPTH} deep")));
        }
        Ok(Self(bytes.clone()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        // Text was validated when it was accepted. To do it again is one scan, on no hot path.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Validates UTF-8 text without NUL characters, which neither XML nor an argument can contain.
pub(super) fn read_text<'a>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str, BadDocument> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        BadDocument::new(name, format!("is not UTF-8: bad byte at offset {at}"))
    })?;
    match memchr::memchr(0, bytes) {
        Some(at) => Err(BadDocument::new(name, format!("contains a NUL character at offset {at}"))),
        None => Ok(text),
    }
}

/// Returns why bytes cannot be parsed. The parser's own text does not name the cause for bytes that
/// are not UTF-8, and for half of a surrogate pair (`"\ud800"`, which is JSON by its grammar).
pub(crate) fn json_fault(bytes: &[u8], error: &serde_json::Error) -> String {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    /// The beginnings of the parser's texts for halves of surrogate pairs.
    const HALVES: [&str; 3] =
        ["lone leading surrogate", "unexpected end of hex escape", "invalid unicode code point"];
    if let Err(error) = std::str::from_utf8(bytes) {
        return format!("is not JSON in UTF-8: bad byte at offset {}", error.valid_up_to());
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return "is not JSON: it begins with a byte order mark".to_owned();
    }
    let text = error.to_string();
    if text.starts_with("trailing characters") {
        return format!("is not JSON: {text}, behind the first value");
    }
    // The same texts are for an escape that is cut short, which the grammar rejects.
    if HALVES.iter().any(|half| text.starts_with(half))
        && serde_json::from_slice::<&RawValue>(bytes).is_ok()
    {
        let (line, column) = (error.line(), error.column());
        return format!(
            "is not JSON in Unicode: it has half of a surrogate pair in a string, at line {line} \
             column {column}"
        );
    }
    format!("is not JSON: {error}")
}

/// Whether valid JSON has too many objects and arrays in each other.
fn is_too_deep(json: &[u8]) -> bool {
    // Most documents have fewer of them in all.
    if memchr::memchr2_iter(b'{', b'[', json).take(MAX_JSON_DEPTH + 1).count() <= MAX_JSON_DEPTH {
        return false;
    }
    let (mut depth, mut rest) = (0_usize, json);
    // Strings are skipped: most bytes are in them.
    while let Some(at) = memchr::memchr(b'"', rest) {
        let (before, quoted) = rest.split_at(at + 1);
        if !nest(&mut depth, before) {
            return true;
        }
        rest = after_string(quoted);
    }
    !nest(&mut depth, rest)
}

/// Follows the brackets of text without strings. Returns whether they are nested as they may be.
fn nest(depth: &mut usize, text: &[u8]) -> bool {
    for byte in text {
        match byte {
            b'{' | b'[' => *depth += 1,
            b'}' | b']' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        if *depth > MAX_JSON_DEPTH {
            return false;
        }
    }
    true
}

/// Returns what follows a string whose opening quote was read.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        let skipped = if rest[at] == b'"' { 1 } else { 2 };
        let (_, behind) = rest.split_at((at + skipped).min(rest.len()));
        if skipped == 1 {
            return behind;
        }
        rest = behind;
    }
    &[]
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_objects_stay_as_they_came() {
        let document = Document::json_object("vmi", &Bytes::from_static(b" {\"a\": 1}\n")).unwrap();
        assert_eq!(document.as_str(), " {\"a\": 1}\n");
    }

    #[test]
    fn faults_say_where_and_never_what() {
        let fault = |bytes: &'static [u8]| {
            Document::json_object("vmi", &Bytes::from_static(bytes)).unwrap_err().to_string()
        };
        assert_eq!(fault(b""), "vmi is empty; it must be a JSON object");
        assert_eq!(fault(b"\"secret\""), "vmi is not a JSON object: it begins with `\"`");
        assert_eq!(fault(b"\xff"), "vmi is not a JSON object: it begins with byte 0xff");
        let broken = fault(b"{\"secret\": secret}");
        assert!(broken.ends_with("at line 1 column 12") && !broken.contains("secret"), "{broken}");
        assert_eq!(
            fault(b"{\"secret\": \"\xff\"}"),
            "vmi is not JSON in UTF-8: bad byte at offset 12"
        );
        let cut_short = fault(b"{\"secret\": \"\\ud8\"}");
        assert!(cut_short.starts_with("vmi is not JSON: "), "{cut_short}");
    }

    #[test]
    fn the_depth_of_json_has_a_maximum() {
        let check = |json: String| {
            Document::json_object("vmi", &json.into()).map(|_| ()).map_err(|bad| bad.to_string())
        };
        let too_deep = Err("vmi is nested more than 100 deep".to_owned());
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(format!("{{\"a\":{},\"b\":{}}}", nested(99), nested(99))), Ok(()));
        assert_eq!(check(format!("{{\"a\":1,\"b\":{}}}", nested(100))), too_deep);
        assert_eq!(check(format!("{}{}", "{\"a\":".repeat(99), "{}") + &"}".repeat(99)), Ok(()));
        assert_eq!(
            check(format!("{}{}", "{\"a\":".repeat(100), "{}") + &"}".repeat(100)),
            too_deep
        );
        assert_eq!(check(format!("{{\"a\":{}}}", nested(1_000_000))), too_deep);
        // Brackets in strings do not count, whatever their quotes look like.
        let brackets = "[{".repeat(100);
        assert_eq!(
            check(format!(r#"{{"{brackets}":"\"{brackets}\\","b":"\\\"{brackets}"}}"#)),
            Ok(())
        );
        let behind = nested(100);
        assert_eq!(check(format!(r#"{{"a\\":"\\\\","b":{behind}}}"#)), too_deep);
    }

    #[test]
    fn text_is_utf8_without_nul() {
        let fault = |bytes: &'static [u8]| {
            Document::text("domainXML", Bytes::from_static(bytes)).unwrap_err().to_string()
        };
        assert_eq!(fault(b"<a>\xe9</a>"), "domainXML is not UTF-8: bad byte at offset 3");
        assert_eq!(fault(b"<a>\0</a>"), "domainXML contains a NUL character at offset 3");
    }
}
