//! Stray output: bytes on a worker's stdout that are not a frame. They may be a document, so they
//! are described and never quoted. What they look like names the mistake: most of these bytes come
//! from a `print`, or from a worker that frames its messages as another protocol does.

use std::fmt;

/// Number of a run's first bytes that are kept to find out what it looks like: a few header lines,
/// or the first members of a message.
const KEPT_BYTES: usize = 256;

/// Number of bytes behind a run that are looked at: the shortest frame has as many. A length in
/// little-endian order and UTF-16 contain zero bytes, which look like the beginning of a frame.
pub(super) const BYTES_BEHIND: usize = 5;

/// Bytes of a length in the wrong order that are in front of its first zero.
const MAX_LENGTH_BYTES: usize = 3;

/// A run of bytes between frames: its length, and what it looks like.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Stray {
    /// Length of the run.
    pub bytes: usize,
    newlines: usize,
    ends_line: bool,
    beginning: Vec<u8>,
    /// At most [`BYTES_BEHIND`] bytes.
    behind: Vec<u8>,
}

/// What bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    LittleEndian,
    Utf16,
    ByteOrderMark,
    ContentLength,
    JsonLines,
    Json,
    Xml,
    Text,
    Binary,
}

impl Stray {
    pub(super) fn add(&mut self, more: &[u8]) {
        let Some(last) = more.last() else { return };
        let remaining = KEPT_BYTES - self.beginning.len();
        self.beginning.extend_from_slice(&more[..more.len().min(remaining)]);
        self.newlines += memchr::memchr_iter(b'\n', more).count();
        self.ends_line = *last == b'\n';
        self.bytes += more.len();
    }

    /// Notes what stands behind the run.
    pub(super) fn end(&mut self, behind: &[u8]) {
        self.behind = behind[..behind.len().min(BYTES_BEHIND)].to_vec();
    }

    /// Adds a later run.
    pub fn absorb(&mut self, later: &Self) {
        if self.bytes == 0 {
            self.clone_from(later);
        } else if later.bytes > 0 {
            self.bytes += later.bytes;
            self.newlines += later.newlines;
            self.ends_line = later.ends_line;
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether it contains the end of a line.
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.newlines > 0
    }

    /// Returns the number of lines, an unfinished one included.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.newlines + usize::from(self.bytes > 0 && !self.ends_line)
    }

    /// Returns the first bytes. They may be a document: they must not get into a log or a status,
    /// only in front of the author of the hook.
    #[must_use]
    pub fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    fn looks(&self) -> Looks {
        if self.bytes <= MAX_LENGTH_BYTES {
            let start = [&self.beginning[..], &self.behind].concat();
            if let [a, b, c, 0, b'{' | b'[', ..] = start[..]
                && [a, b, c] != [0; 3]
            {
                return Looks::LittleEndian;
            }
            if is_utf16(&start) {
                return Looks::Utf16;
            }
        }
        if self.beginning == *b"\xef\xbb\xbf" {
            return Looks::ByteOrderMark;
        }
        looks_like_text(&self.beginning)
    }

    /// Returns what the bytes look like, as a noun.
    #[must_use]
    pub fn looks_like(&self) -> &'static str {
        self.looks().noun()
    }

    /// Returns what the author of the worker should do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        self.looks().advice()
    }
}

/// Whether bytes are the beginning of ASCII text in UTF-16.
fn is_utf16(start: &[u8]) -> bool {
    match *start {
        [0xff, 0xfe, _, 0, ..] | [0xfe, 0xff, 0, ..] => true,
        [a, 0, b, 0, c, 0, ..] | [0, a, 0, b, 0, c, ..] => ![a, b, c].contains(&0),
        _ => false,
    }
}

fn looks_like_text(bytes: &[u8]) -> Looks {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    let mut lines = bytes.split(|&byte| byte == b'\n');
    // A print may come before the first message.
    let message = lines.find_map(|line| {
        let json = line.first() == Some(&b'{') && contains(line, b"\"jsonrpc\"");
        let header = starts_with_ignoring_case(line, b"content-length:");
        header.then_some(Looks::ContentLength).or(json.then_some(Looks::JsonLines))
    });
    if let Some(looks) = message {
        return if looks == Looks::JsonLines { json(bytes) } else { looks };
    }
    match bytes.iter().find(|byte| !is_blank(byte)) {
        Some(b'{' | b'[') => json(bytes),
        Some(b'<') => Looks::Xml,
        _ if is_text(bytes) => Looks::Text,
        _ => Looks::Binary,
    }
}

fn json(bytes: &[u8]) -> Looks {
    // Without the end of a line, or with a line for each member, it is one value.
    if bytes.trim_ascii_start().starts_with(b"{\n") || !bytes.contains(&b'\n') {
        Looks::Json
    } else {
        Looks::JsonLines
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(bytes, what).is_some()
}

fn starts_with_ignoring_case(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether bytes are printable UTF-8. The last character may be cut.
fn is_text(bytes: &[u8]) -> bool {
    let (text, rest) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, 0),
        Err(error) => {
            let text = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            (text, error.error_len().unwrap_or(0))
        }
    };
    // Colours begin with ESC.
    rest == 0 && !text.chars().any(|c| c.is_control() && !c.is_whitespace() && c != '\u{1b}')
}

impl Looks {
    fn noun(self) -> &'static str {
        match self {
            Self::LittleEndian => "a length in little-endian order",
            Self::Utf16 => "UTF-16",
            Self::ByteOrderMark => "a byte order mark",
            Self::ContentLength => "a `Content-Length` header (the framing of LSP)",
            Self::JsonLines => "lines of JSON without a length (newline-delimited JSON)",
            Self::Json => "JSON without a length",
            Self::Xml => "an XML document",
            Self::Text => "text",
            Self::Binary => "binary data",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::LittleEndian => "write the length of each message in big-endian order",
            Self::Utf16 => "write messages in UTF-8",
            Self::ByteOrderMark => "write messages without a byte order mark",
            Self::ContentLength | Self::JsonLines | Self::Json => {
                "write the length of each message before it, as 4 bytes in big-endian order, \
                 instead of a header or a newline"
            }
            Self::Xml => {
                "a worker returns a document in a message; a program that prints it runs with \
                 --mode exec"
            }
            Self::Text | Self::Binary => {
                "print to stderr, use an SDK, or run the hook with --mode exec"
            }
        }
    }
}

/// Describes the run: "62 bytes in 1 line, which look like text".
impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, lines) = (self.bytes, self.lines());
        let (bytes_end, lines_end) = (plural(bytes), plural(lines));
        let looks = if bytes == 1 { "looks" } else { "look" };
        let noun = self.looks_like();
        write!(f, "{bytes} byte{bytes_end} in {lines} line{lines_end}, which {looks} like {noun}")
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The same as `Display`: nothing of the bytes may get into a log by accident.
impl fmt::Debug for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stray({self})")
    }
}

/// Describes the beginning of a frame whose rest has not arrived.
pub(super) fn half_frame(start: &[u8], want: Option<usize>) -> String {
    let have = start.len();
    if let [a, b, c, 0, b'{', ..] = *start
        && u32::from_le_bytes([a, b, c, 0]) as usize <= have
    {
        return format!("{}: {}", Looks::LittleEndian.noun(), Looks::LittleEndian.advice());
    }
    if is_utf16(start) {
        return format!("what looks like {}: {}", Looks::Utf16.noun(), Looks::Utf16.advice());
    }
    match want {
        Some(want) => format!("half a frame, {have} of {want} bytes"),
        None => format!("half of a frame's length, {have} of 4 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stray(text: &[u8]) -> Stray {
        let mut stray = Stray::default();
        stray.add(text);
        stray
    }

    #[test]
    fn a_run_is_described_by_its_length_and_its_lines() {
        for (text, expected) in [
            (&b"x"[..], "1 byte in 1 line, which looks like text"),
            (b"one\n", "4 bytes in 1 line, which look like text"),
            (b"one\ntwo", "7 bytes in 2 lines, which look like text"),
            (b"\n\n", "2 bytes in 2 lines, which look like text"),
        ] {
            assert_eq!(stray(text).to_string(), expected);
        }
        let mut sum = stray(b"one\n");
        sum.absorb(&stray(b"two"));
        sum.absorb(&Stray::default());
        assert_eq!((sum.bytes, sum.lines()), (7, 2));
    }

    #[test]
    fn a_run_looks_like_the_mistake_that_was_made() {
        let message = br#"{"jsonrpc":"2.0","id":1,"result":{"unchanged":true}}"#;
        let line = [&message[..], b"\n"].concat();
        let header = [&b"Content-Length: 53\r\n\r\n"[..], message].concat();
        for (text, expected) in [
            (&line[..], Looks::JsonLines),
            (&[b"starting\n", &line[..]].concat(), Looks::JsonLines),
            (message, Looks::Json),
            (b"{\n  \"UserData\": \"#cloud-config\"\n}\n", Looks::Json),
            (b"{\"UserData\":\"#cloud-config\"}\n", Looks::JsonLines),
            (&header, Looks::ContentLength),
            (b"content-length:2\r\n\r\n{}", Looks::ContentLength),
            (b"<?xml version=\"1.0\"?>\n<domain/>", Looks::Xml),
            (b"\n <domain>\n</domain>\n", Looks::Xml),
            (b"waiting for the licence server\n", Looks::Text),
            ("Grüße\n\t\u{1b}[31mred".as_bytes(), Looks::Text),
            (&"é".as_bytes()[..1], Looks::Text),
            (b"\xef\xbb\xbf", Looks::ByteOrderMark),
            (b"\x1f\x8b\x08\xff\xff", Looks::Binary),
            (b"a\x07\x01", Looks::Binary),
        ] {
            assert_eq!(stray(text).looks(), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn zero_bytes_in_a_wrong_length_or_in_utf_16_are_recognized() {
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let message = "{\"jsonrpc\":\"2.0\"}";
        for (stream, expected) in [
            ([&17_u32.to_le_bytes()[..], message.as_bytes()].concat(), Looks::LittleEndian),
            ([&300_u32.to_le_bytes()[..], message.as_bytes()].concat(), Looks::LittleEndian),
            ([&70_001_u32.to_le_bytes()[..], message.as_bytes()].concat(), Looks::LittleEndian),
            (utf16(message), Looks::Utf16),
            ([&b"\xff\xfe"[..], &utf16(message)].concat(), Looks::Utf16),
            (b"x\0\0\0\x02{}".to_vec(), Looks::Text),
            (b"x\0\0\0\x02[]".to_vec(), Looks::Text),
        ] {
            let zero = stream.iter().position(|&byte| byte == 0).unwrap();
            let mut stray = stray(&stream[..zero]);
            stray.end(&stream[zero..]);
            assert_eq!(stray.looks(), expected, "{}", stream.escape_ascii());
        }
        // These begin with a zero byte, so they look like a frame.
        let little = [&256_u32.to_le_bytes()[..], b"{", &[b' '; 255]].concat();
        let described = half_frame(&little, Some(65_540));
        assert!(described.contains("little-endian"), "{described}");
        let big = b"\0{\0\"\0j\0s";
        assert!(half_frame(big, Some(8_061_000)).contains("UTF-16"));
        assert_eq!(half_frame(b"\0\0\0\x09{\"a", Some(13)), "half a frame, 7 of 13 bytes");
        assert_eq!(half_frame(b"\0\0", None), "half of a frame's length, 2 of 4 bytes");
    }

    #[test]
    fn nothing_of_a_run_is_shown() {
        for text in ["s3cr3t", "{\"s3cr3t\":\"s3cr3t\"}\n", "<s3cr3t>", "Content-Length: s3cr3t"] {
            let stray = stray(text.as_bytes());
            let shown = format!("{stray} {stray:?} {} {}", stray.looks_like(), stray.advice());
            assert!(!shown.contains("s3cr3t"), "{shown}");
            assert_eq!(stray.beginning(), text.as_bytes());
        }
        assert_eq!(stray(&vec![b'x'; 70_000]).beginning().len(), KEPT_BYTES);
    }
}
