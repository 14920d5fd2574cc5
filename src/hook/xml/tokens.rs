//! The tokens of the grammar: names, references, characters, white space. Each advances the scan,
//! or fails where the scan is.

use memchr::{memchr, memmem};

use super::characters::{self, describe_bad};
use super::names::{self, MAX_NAME_BYTES};
use super::scan::{Result, Scan, fail};

impl<'a> Scan<'a> {
    /// Skips a quoted text and returns it.
    pub(super) fn quoted(&mut self) -> Option<&'a [u8]> {
        let [quote @ (b'"' | b'\''), rest @ ..] = self.rest else { return None };
        let length = memchr(*quote, rest)?;
        self.rest = &rest[length + 1..];
        Some(&rest[..length])
    }

    /// Accepts `open`, any characters, and the first `close` behind it.
    pub(super) fn enclosed(&mut self, open: &[u8], close: &[u8], without_end: &str) -> Result<()> {
        let inside = &self.rest[open.len()..];
        let Some(length) = memmem::find(inside, close) else { return self.fail(without_end) };
        if let Some(at) = characters::find_bad(&inside[..length]) {
            self.rest = &inside[at..];
            return self.fail(&describe_bad(self.rest));
        }
        self.rest = &inside[length + close.len()..];
        Ok(())
    }

    pub(super) fn reference(&mut self) -> Result<()> {
        if let Some((_, rest)) = characters::reference(self.rest) {
            self.rest = rest;
            return Ok(());
        }
        // It may be an entity's name or a number.
        let name = self.rest[1..].iter().take_while(|byte| is(**byte, IN_NAME) || **byte == b'#');
        let what = match self.rest.get(name.count() + 1) {
            Some(b';') => "an unknown reference (`&…;`); write `&amp;` for `&`",
            _ => "a bare `&`; write `&amp;`",
        };
        self.fail(what)
    }

    /// Accepts a character that begins as those do that XML does not allow.
    pub(super) fn character(&mut self) -> Result<()> {
        if characters::is_bad(self.rest) {
            return self.fail(&describe_bad(self.rest));
        }
        self.rest = &self.rest[1..];
        Ok(())
    }

    /// Accepts a name with one colon at most, and not at an end.
    #[expect(clippy::inline_always, reason = "it saves 4 % of the scan's instructions")]
    #[inline(always)]
    pub(super) fn name(&mut self) -> Result<&'a [u8]> {
        let all = self.rest;
        let rest = self.run(IN_NAME);
        let name = &all[..all.len() - rest.len()];
        match (all, rest) {
            ([first, ..], [next, ..])
                if is(*first, BEGINS_NAME)
                    && is(*next, ENDS_NAME)
                    && name.len() <= MAX_NAME_BYTES =>
            {
                Ok(name)
            }
            _ => self.other_name(all),
        }
    }

    /// Accepts a name with a prefix, or with characters beyond ASCII. `all` begins with it.
    fn other_name(&mut self, all: &'a [u8]) -> Result<&'a [u8]> {
        self.rest = all;
        self.name_part()?;
        if self.accept(b":") {
            self.has_prefixes = true;
            self.name_part()?;
        }
        if let [b':', ..] = self.rest {
            return self.fail("a name has more than one colon");
        }
        let name = &all[..all.len() - self.rest.len()];
        if name.len() > MAX_NAME_BYTES {
            return self.fail(&format!("a name is longer than {MAX_NAME_BYTES} bytes"));
        }
        Ok(name)
    }

    /// Accepts a name without a colon, or the part of one on either side of it.
    pub(super) fn name_part(&mut self) -> Result<&'a [u8]> {
        let all = self.rest;
        for (at, c) in self.text[self.position()..].char_indices() {
            self.rest = &all[at..];
            let code = u32::from(c);
            match c {
                '\0'..='\x7f' if is(all[at], if at == 0 { BEGINS_NAME } else { IN_NAME }) => {}
                '\0'..='\x7f' if at == 0 => {
                    let is_at_colon = c == ':' || self.text[..self.position()].ends_with(':');
                    return self.fail(if is_at_colon {
                        "a colon has no name on either side"
                    } else {
                        "an element or attribute has an invalid name (is there a bare `<`?)"
                    });
                }
                '\0'..='\x7f' => return Ok(&all[..at]),
                _ if names::may_begin(c) || (at > 0 && names::may_follow(c)) => {}
                _ if names::may_follow(c) => {
                    let what =
                        format!("a name, or its part behind a colon, begins with U+{code:04X}");
                    return self.fail(&what);
                }
                _ => {
                    return self.fail(&format!(
                        "U+{code:04X} is not allowed in a name (was the tag copied from a web page?)"
                    ));
                }
            }
        }
        self.rest = &[];
        self.fail("it ends inside a tag")
    }

    /// Skips bytes of a class. Returns the rest, which begins with another byte, if any.
    pub(super) fn run(&mut self, class: u8) -> &'a [u8] {
        let other = self.rest.iter().position(|byte| !is(*byte, class));
        self.rest = &self.rest[other.unwrap_or(self.rest.len())..];
        self.rest
    }

    /// Skips white space. Returns whether there was any.
    pub(super) fn skip_space(&mut self) -> bool {
        let before = self.rest.len();
        self.run(SPACE).len() < before
    }

    /// Skips these bytes, if they come next.
    pub(super) fn accept(&mut self, bytes: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(bytes);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    pub(super) fn position(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    /// Returns the offset of a part of the text.
    pub(super) fn offset(&self, part: &[u8]) -> usize {
        part.as_ptr().addr() - self.text.as_ptr().addr()
    }

    /// Fails where the scan is.
    pub(super) fn fail<T>(&self, what: &str) -> Result<T> {
        fail(self.position(), what.to_owned())
    }
}

/// Classes of bytes. The first three may be part of a name, a value or text without further checks.
const IN_NAME: u8 = 1;
pub(super) const IN_VALUE: u8 = 2;
pub(super) const IN_TEXT: u8 = 4;
const BEGINS_NAME: u8 = 8;
/// Behind the bytes of a name: the name ends there, and has no prefix.
const ENDS_NAME: u8 = 16;
const SPACE: u8 = 32;

/// The classes of every byte.
static CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = u8::MAX;
    loop {
        table[byte as usize] = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => BEGINS_NAME | IN_NAME | IN_VALUE | IN_TEXT,
            b'0'..=b'9' | b'-' | b'.' => IN_NAME | IN_VALUE | IN_TEXT,
            b':' | 0x80..=0xee | 0xf0..=0xff => IN_VALUE | IN_TEXT,
            b'"' | b'\'' => IN_TEXT | ENDS_NAME,
            b']' => IN_VALUE | ENDS_NAME,
            b'<' | b'&' => ENDS_NAME,
            b' ' | b'\t' | b'\n' | b'\r' => SPACE | IN_VALUE | IN_TEXT | ENDS_NAME,
            0xef => 0,
            _ if characters::may_be_bad(byte) => ENDS_NAME,
            _ => IN_VALUE | IN_TEXT | ENDS_NAME,
        };
        if byte == 0 {
            break table;
        }
        byte -= 1;
    }
};

fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}
