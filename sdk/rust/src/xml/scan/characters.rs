//! Characters, names and values: the lower half of the scanner.

use std::ops::Range;

use super::{Fault, Scanner};
use crate::xml::text::{continues_name, is_allowed, is_space, referred, starts_name};

/// Bytes that mean nothing else than themselves in texts, values and comments.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut control = 0;
    while control < b' ' {
        plain[control as usize] = false;
        control += 1;
    }
    // U+FFFE and U+FFFF begin with the last one.
    let special = *b"<&]'\"\xef";
    let mut at = 0;
    while at < special.len() {
        plain[special[at] as usize] = false;
        at += 1;
    }
    plain
};

/// Bytes that a name may have behind its first one, apart from the colon.
const ASCII_NAME: [bool; 256] = {
    let mut name = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        name[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        byte += 1;
    }
    name
};

impl<'s> Scanner<'s> {
    pub(super) fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn take(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    /// Skips white space. Returns whether there is any.
    pub(super) fn space(&mut self) -> bool {
        let start = self.at;
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
        self.at > start
    }

    /// Skips a text with its references.
    pub(super) fn characters(&mut self) -> Result<(), Fault> {
        loop {
            self.plain();
            match self.peek() {
                None | Some(b'<') => return Ok(()),
                Some(b'&') => self.reference()?,
                Some(b']') if self.rest().starts_with("]]>") => return Err("\"]]>\" in a text"),
                Some(byte) => self.character(byte)?,
            }
        }
    }

    /// Skips bytes that are ordinary everywhere. Most are.
    pub(super) fn plain(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(rest.len());
    }

    /// Skips one byte of a character that XML allows.
    pub(super) fn character(&mut self, byte: u8) -> Result<(), Fault> {
        const NOT_ALLOWED: Fault = "a character that XML does not allow";
        if byte < b' ' && !is_space(byte) {
            return Err(NOT_ALLOWED);
        }
        // U+FFFE and U+FFFF begin with this byte.
        if byte == 0xef && self.rest().starts_with(|c| !is_allowed(c)) {
            return Err(NOT_ALLOWED);
        }
        self.at += 1;
        Ok(())
    }

    pub(super) fn reference(&mut self) -> Result<(), Fault> {
        // The longest are numbers, which may have zeros in front.
        let name = self.rest()[1..].split_once(';').map(|(name, _)| name);
        match name.filter(|name| referred(name).is_some()) {
            Some(name) => self.at += name.len() + 2,
            None => return Err("\"&\" that begins no reference to a character"),
        }
        Ok(())
    }

    /// Skips allowed characters until behind this.
    pub(super) fn until(&mut self, end: &str, missing: Fault) -> Result<(), Fault> {
        let length = self.rest().find(end).ok_or(missing)?;
        let stop = self.at + length;
        while self.at < stop {
            self.plain();
            if let Some(byte) = self.peek().filter(|_| self.at < stop) {
                self.character(byte)?;
            }
        }
        self.at = stop + end.len();
        Ok(())
    }

    pub(super) fn name(&mut self) -> Result<&'s str, Fault> {
        let (start, mut colon) = (self.at, None);
        loop {
            let (part, bytes) = (self.at, self.text.as_bytes());
            // Most names are ASCII.
            while bytes.get(self.at).is_some_and(|byte| ASCII_NAME[usize::from(*byte)]) {
                self.at += 1;
            }
            if bytes.get(self.at).is_some_and(|byte| !byte.is_ascii()) {
                self.at += self.rest().find(|c| !continues_name(c)).unwrap_or(self.rest().len());
            }
            let starts = match bytes.get(part) {
                Some(first) if first.is_ascii() => first.is_ascii_alphabetic() || *first == b'_',
                _ => self.text[part..self.at].starts_with(starts_name),
            };
            if !starts {
                return Err("a name is missing, or begins with a character that it must not have");
            }
            if !self.take(":") {
                return Ok(&self.text[start..self.at]);
            }
            if colon.replace(part).is_some() {
                return Err("a name with two colons");
            }
        }
    }

    pub(super) fn equals(&mut self) -> Result<(), Fault> {
        self.space();
        if !self.take("=") {
            return Err("\"=\" is missing behind the name of an attribute");
        }
        self.space();
        Ok(())
    }

    /// Reads a value and returns the range between its quotes.
    pub(super) fn quoted(&mut self) -> Result<Range<usize>, Fault> {
        let Some(quote @ (b'"' | b'\'')) = self.peek() else {
            return Err("the value of an attribute is not in quotes");
        };
        self.at += 1;
        let start = self.at;
        loop {
            self.plain();
            match self.peek() {
                None => return Err("the value of an attribute has no end"),
                Some(b'<') => return Err("\"<\" in the value of an attribute"),
                Some(b'&') => self.reference()?,
                Some(byte) if byte == quote => break,
                Some(byte) => self.character(byte)?,
            }
        }
        self.at += 1;
        Ok(start..self.at - 1)
    }
}
