//! Documents: bytes that are passed on and never logged.

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

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
            .map_err(|error| bad(format!("is not JSON: {error}")))?;
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
        let bad_text = fault(b"{\"secret\": \"\xff\"}");
        assert!(bad_text.contains("line 1 column") && !bad_text.contains("secret"), "{bad_text}");
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
