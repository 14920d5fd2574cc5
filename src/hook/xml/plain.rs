//! The quick way through an ordinary document: elements, attributes, text, references, comments.
//!
//! What this takes is well-formed. It takes less than XML allows and explains nothing: a document
//! that it does not take is for the thorough scan to judge, and to find words for. Almost every
//! answer of a hook passes here, at a twelfth of the thorough scan's cost.

use memchr::{memchr, memchr3, memmem};
use quick_xml::events::BytesRef;

use super::{MAX_DEPTH, is_known};

/// The longest reference that is looked at, `&` and `;` not counted: `&#x0010ffff;` has ten.
const MAX_REFERENCE_BYTES: usize = 16;

/// Whether a text is certainly one well-formed element `domain`. Its characters have been checked.
pub(super) fn is_domain(text: &str) -> bool {
    Scan { text, at: 0 }.document().is_some()
}

struct Scan<'a> {
    text: &'a str,
    /// How far it has come. What stands before is taken.
    at: usize,
}

/// How a start tag ends.
#[derive(PartialEq, Eq)]
enum Tag {
    Opens,
    IsEmpty,
}

impl<'a> Scan<'a> {
    /// The whole document. `None`, here and below, is for whatever is not certain.
    fn document(&mut self) -> Option<()> {
        let mut open: Vec<&[u8]> = Vec::new();
        let mut attributes: Vec<&[u8]> = Vec::new();
        self.skip_space();
        loop {
            self.expect(b'<')?;
            match self.peek()? {
                b'/' => {
                    self.at += 1;
                    self.expect_all(open.pop()?)?;
                    self.skip_space();
                    self.expect(b'>')?;
                }
                b'!' if !open.is_empty() => self.comment()?,
                _ => {
                    let name = self.name()?;
                    if (open.is_empty() && name != b"domain") || open.len() >= MAX_DEPTH {
                        return None;
                    }
                    if self.attributes(&mut attributes)? == Tag::Opens {
                        open.push(name);
                    }
                }
            }
            if open.is_empty() {
                // The root has ended.
                self.skip_space();
                return (self.at == self.text.len()).then_some(());
            }
            self.content()?;
        }
    }

    /// Text and references up to the next tag.
    fn content(&mut self) -> Option<()> {
        loop {
            self.at += memchr3(b'<', b'&', b']', self.rest())?;
            match self.peek()? {
                b'<' => return Some(()),
                b'&' => self.reference()?,
                _ if self.rest().starts_with(b"]]>") => return None,
                _ => self.at += 1,
            }
        }
    }

    /// Attributes up to the end of a start tag. `names` is room for theirs.
    fn attributes(&mut self, names: &mut Vec<&'a [u8]>) -> Option<Tag> {
        names.clear();
        loop {
            let before = self.at;
            self.skip_space();
            match self.peek()? {
                b'>' => {
                    self.at += 1;
                    return Some(Tag::Opens);
                }
                b'/' => {
                    self.at += 1;
                    self.expect(b'>')?;
                    return Some(Tag::IsEmpty);
                }
                _ if self.at == before => return None,
                _ => {}
            }
            let name = self.name()?;
            if names.contains(&name) {
                return None;
            }
            names.push(name);
            self.skip_space();
            self.expect(b'=')?;
            self.skip_space();
            self.value()?;
        }
    }

    /// A quoted value.
    fn value(&mut self) -> Option<()> {
        let quote = self.peek().filter(|quote| matches!(quote, b'"' | b'\''))?;
        self.at += 1;
        loop {
            self.at += memchr3(quote, b'<', b'&', self.rest())?;
            match self.peek()? {
                b'<' => return None,
                b'&' => self.reference()?,
                _ => {
                    self.at += 1;
                    return Some(());
                }
            }
        }
    }

    fn reference(&mut self) -> Option<()> {
        let inside = &self.rest()[1..];
        let length = memchr(b';', &inside[..inside.len().min(MAX_REFERENCE_BYTES)])?;
        let start = self.at + 1;
        let reference = self.text.get(start..start + length)?;
        self.at = start + length + 1;
        is_known(&BytesRef::new(reference)).then_some(())
    }

    fn comment(&mut self) -> Option<()> {
        let inside = self.rest().strip_prefix(b"!--")?;
        let length = memmem::find(inside, b"--")?;
        self.at += b"!--".len() + length + b"--".len();
        self.expect(b'>')
    }

    /// A name of ASCII characters.
    fn name(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !IN_NAME[usize::from(*byte)])?;
        let first = *rest.first()?;
        if length == 0 || first.is_ascii_digit() || matches!(first, b'-' | b'.') {
            return None;
        }
        self.at += length;
        Some(&rest[..length])
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len());
    }

    fn expect_all(&mut self, bytes: &[u8]) -> Option<()> {
        self.rest().starts_with(bytes).then(|| self.at += bytes.len())
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Which bytes a name may hold.
static IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 0x80 {
        table[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-' | b'.');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::scan;
    use super::*;

    const SAMPLE: &str = include_str!("../../commands/call/samples/domain.xml");

    /// Ordinary documents that the quick way has to take, or it is none.
    const PLAIN: [&str; 4] = [
        "<domain/>",
        " <domain a='1' b:c=\"&lt;'\"\n>\n<x y = '2' />a&amp;b&#xe9;[1]\u{e9}</domain >\n",
        "<domain><!-- a - b --><a></a><a.b-c_d/></domain>",
        "<domain xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\"><qemu:arg/></domain>",
    ];

    #[test]
    fn takes_ordinary_documents() {
        for plain in PLAIN.into_iter().chain([SAMPLE]) {
            assert!(is_domain(plain), "{plain}");
            assert!(scan(plain).is_ok(), "{plain}");
        }
    }

    #[test]
    fn leaves_the_rest_to_the_thorough_scan() {
        for other in [
            "",
            "x",
            "<domain>",
            "<domain",
            "</domain>",
            "<vm/>",
            "<domain/><domain/>",
            "<domain/>x",
            "<!-- alone -->",
            "<domain a='1'b='2'/>",
            "<domain a='1' a='2'/>",
            "<domain a='<'/>",
            "<domain a='&x;'/>",
            "<domain a=1/>",
            "<domain a/>",
            "<domain>&</domain>",
            "<domain>&#0;</domain>",
            "<domain>]]></domain>",
            "<domain><1/></domain>",
            "<domain><a></b></domain>",
            "<domain><a></a",
            "<domain / >",
            "<domain><!-- a -- b --></domain>",
            "<domain><!-- a</domain>",
            "<domain><![CDATA[x]]></domain>",
            "<?xml version='1.0'?><domain/>",
            "<!DOCTYPE domain><domain/>",
        ] {
            assert!(!is_domain(other), "{other}");
        }
    }

    /// Pieces that documents consist of, whole and broken.
    const PIECES: [&str; 33] = [
        "<domain>",
        "</domain>",
        "<domain/>",
        "<a>",
        "</a>",
        "<a/>",
        "<a ",
        "<",
        "</",
        ">",
        "/>",
        "/",
        "x='1'",
        " x='1'",
        " y=\"2\"",
        " x",
        "=",
        "'",
        "\"",
        " ",
        "\n",
        "text",
        "&amp;",
        "&#65;",
        "&",
        ";",
        "]]>",
        "]",
        "<!-- c -->",
        "<!--",
        "--",
        "<![CDATA[x]]>",
        "\u{e9}",
    ];

    proptest! {
        // Nothing is written beside the sources when a case fails: the case is printed.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_it_takes_is_well_formed(pieces in prop::collection::vec(select(&PIECES[..]), 0..12)) {
            let text = pieces.concat();
            for text in [format!("<domain>{text}</domain>"), format!("<domain{text}/>"), text] {
                prop_assert!(!is_domain(&text) || scan(&text).is_ok(), "{text:?}");
            }
        }

        #[test]
        fn a_byte_changed_in_an_ordinary_document_is_judged_as_the_thorough_scan_does(
            which in select(&PLAIN[..]), at: Index, to in select(&b" <>/=&;'\"-!x1]\n"[..])
        ) {
            let mut bytes = which.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(!is_domain(&text) || scan(&text).is_ok(), "{text:?}");
            }
        }
    }
}
