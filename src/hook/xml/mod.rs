//! Checks that a text is a well-formed libvirt domain, in a stream, without copies.
//!
//! quick-xml finds the markup and matches the tags. What it leaves to its caller (one root, no text
//! around it, names, attributes, references, characters) is checked here. libvirt's parser can read
//! a document that passes; whether the domain makes sense is for libvirt to decide.
//!
//! That is the thorough scan. A quick one ([`plain`]) comes first, which most documents pass.

mod characters;
mod plain;

use std::collections::BTreeSet;
use std::fmt;

use quick_xml::Reader;
use quick_xml::errors::IllFormedError;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};

/// Maximum depth of elements: libvirt's parser rejects deeper documents.
const MAX_DEPTH: usize = 255;

/// Maximum number of attributes of one element, far more than libvirt's elements have. Their names
/// are kept while the tag is checked.
const MAX_ATTRIBUTES: usize = 1000;

/// Maximum length of a name, or of the parser's message, in an error.
const MAX_EXCERPT_CHARS: usize = 120;

/// What is wrong with a document, and where. Of the document itself, the text contains at most the
/// names of an element and an attribute.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct XmlFault {
    what: String,
    /// Line and column, both counted from 1; the column counts characters.
    at: Option<(usize, usize)>,
}

impl fmt::Display for XmlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some((line, column)) = self.at {
            write!(f, " at line {line}, column {column}")?;
        }
        Ok(())
    }
}

/// A fault and its byte offset.
struct Found(String, usize);

/// Checks that `text` is one well-formed element `domain`, with what XML allows around it.
pub(super) fn check_domain(text: &str) -> Result<(), XmlFault> {
    if text.trim_ascii().is_empty() {
        let what = "is empty; it must be the whole domain document".to_owned();
        return Err(XmlFault { what, at: None });
    }
    if plain::is_domain(text) {
        return Ok(());
    }
    let checked = characters::check(text.as_bytes()).and_then(|()| scan(text));
    checked.map_err(|Found(fault, offset)| XmlFault {
        what: format!("is not a well-formed domain: {fault}"),
        at: Some(line_and_column(text, offset)),
    })
}

/// What the scan has seen so far.
#[derive(Default)]
struct Progress {
    depth: usize,
    root: bool,
}

/// Runs the thorough scan.
fn scan(text: &str) -> Result<(), Found> {
    // The reader skips a byte order mark without counting it.
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let skipped = text.len() - body.len();
    let mut reader = Reader::from_str(body);
    reader.config_mut().enable_all_checks(true);
    let mut progress = Progress::default();
    loop {
        let start = position(reader.buffer_position());
        let event = reader.read_event().map_err(|error| {
            Found(describe(&error), skipped + position(reader.error_position()))
        })?;
        if matches!(event, Event::Eof) {
            break;
        }
        progress.check(&event, start).map_err(|fault| Found(fault, skipped + start))?;
    }
    if progress.depth > 0 {
        return Err(Found("it ends before all elements are closed".to_owned(), text.len()));
    }
    if !progress.root {
        return Err(Found("it has no element `domain`".to_owned(), text.len()));
    }
    Ok(())
}

impl Progress {
    fn check(&mut self, event: &Event<'_>, start: usize) -> Result<(), String> {
        match event {
            Event::Start(tag) => {
                self.open(tag)?;
                self.depth += 1;
            }
            Event::Empty(tag) => self.open(tag)?,
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            Event::Text(content) if self.depth == 0 && content.trim_ascii().is_empty() => {}
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if self.depth == 0 => {
                return Err("there is text outside the element `domain`".to_owned());
            }
            Event::Text(content) if content.contains("]]>") => {
                return Err("the text contains `]]>`".to_owned());
            }
            Event::GeneralRef(reference) if !is_known(reference) => {
                return Err("an unknown reference (`&…;`); write `&amp;` for `&`".to_owned());
            }
            Event::Decl(_) if start > 0 => {
                return Err("the XML declaration is not at the very beginning".to_owned());
            }
            Event::Decl(declaration) => check_declaration(declaration)?,
            Event::PI(instruction) => {
                let target = instruction.target();
                if check_name(target).is_err() || target.eq_ignore_ascii_case("xml") {
                    return Err("a processing instruction has an invalid name".to_owned());
                }
            }
            // Neither libvirt nor KubeVirt needs one, and entities can exhaust a parser.
            Event::DocType(_) => return Err("it has a document type (`<!DOCTYPE`)".to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), String> {
        let name = tag.name();
        let name: &str = name.as_ref();
        check_name(name)?;
        if self.depth == 0 {
            if self.root {
                return Err(format!("a second root element `{}`", excerpt(name)));
            }
            if name != "domain" {
                return Err(format!("its root element is `{}`, not `domain`", excerpt(name)));
            }
            self.root = true;
        }
        if self.depth == MAX_DEPTH {
            return Err(format!("its elements are nested more than {MAX_DEPTH} deep"));
        }
        check_attributes(name, tag)
    }
}

fn check_attributes(name: &str, tag: &BytesStart<'_>) -> Result<(), String> {
    if !has_space_between(tag.attributes_raw()) {
        return Err(format!("in the tag `{}`: no space between two attributes", excerpt(name)));
    }
    let mut keys = BTreeSet::new();
    // The reader's own check for duplicates compares each with each.
    for attribute in tag.attributes().with_checks(false) {
        let attribute = attribute.map_err(|error| {
            format!("in the tag `{}`: {}", excerpt(name), excerpt(&error.to_string()))
        })?;
        let key: &str = attribute.key.into_inner();
        check_name(key)?;
        if !keys.insert(key) {
            let (name, key) = (excerpt(name), excerpt(key));
            return Err(format!("in the tag `{name}`: duplicate attribute `{key}`"));
        }
        if keys.len() > MAX_ATTRIBUTES {
            return Err(format!(
                "the tag `{}` has more than {MAX_ATTRIBUTES} attributes",
                excerpt(name)
            ));
        }
        if !is_attribute_value(&attribute.value) {
            return Err(format!(
                "the value of attribute `{}` of `{}` contains a bare `<` or `&`",
                excerpt(key),
                excerpt(name)
            ));
        }
    }
    Ok(())
}

/// Whether white space follows each quoted value but the last.
fn has_space_between(attributes: &str) -> bool {
    let mut quote = None;
    let mut closed = false;
    for c in attributes.chars() {
        match quote {
            Some(open) if c == open => (quote, closed) = (None, true),
            Some(_) => {}
            None if closed && !c.is_ascii_whitespace() => return false,
            None => {
                closed = false;
                quote = Some(c).filter(|c| matches!(c, '"' | '\''));
            }
        }
    }
    true
}

/// Whether a value contains no markup and only known references.
fn is_attribute_value(value: &str) -> bool {
    let mut parts = value.split('&');
    let before = parts.next().unwrap_or_default();
    !before.contains('<')
        && parts.all(|part| {
            part.split_once(';').is_some_and(|(reference, rest)| {
                is_known(&BytesRef::new(reference)) && !rest.contains('<')
            })
        })
}

/// Whether a reference is one of XML's five entities or names a character that XML allows.
fn is_known(reference: &BytesRef<'_>) -> bool {
    if reference.is_char_ref() {
        matches!(reference.resolve_char_ref(), Ok(Some(c)) if is_xml_char(c))
    } else {
        resolve_predefined_entity(reference).is_some()
    }
}

fn is_xml_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Accepts the declarations that both libvirt and KubeVirt's Go decoder accept: version 1.0, and
/// UTF-8, as the text is.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), String> {
    let text: &str = declaration;
    let bad = |what: &str| format!("its XML declaration {what}");
    let rest = text.strip_prefix("xml").unwrap_or(text);
    if !has_space_between(rest) {
        return Err(bad("is broken"));
    }
    let tag = BytesStart::from_content(text, text.len() - rest.len());
    let mut names = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|_| bad("is broken"))?;
        let value: &str = &attribute.value;
        let key: &str = attribute.key.as_ref();
        let fits = match key {
            "version" => value == "1.0",
            "encoding" => value.eq_ignore_ascii_case("utf-8"),
            "standalone" => matches!(value, "yes" | "no"),
            _ => false,
        };
        if !fits {
            return Err(bad("must be version 1.0, with encoding UTF-8 if any"));
        }
        names.push(key.to_owned());
    }
    let order = ["version", "encoding", "standalone"];
    let in_order = names.iter().map(|name| order.iter().position(|it| it == name));
    if names.first().is_none_or(|name| name != "version") || !in_order.is_sorted() {
        return Err(bad("must begin with the version"));
    }
    Ok(())
}

/// Returns the parser's message, without anything that it may have taken from the document's text.
fn describe(error: &quick_xml::Error) -> String {
    match error {
        quick_xml::Error::IllFormed(IllFormedError::UnclosedReference) => {
            "a bare `&`; write `&amp;`".to_owned()
        }
        // The message would repeat the text between `</` and `>` as a name.
        quick_xml::Error::IllFormed(
            IllFormedError::MismatchedEndTag { found, .. } | IllFormedError::UnmatchedEndTag(found),
        ) if check_name(found).is_err() => "an end tag that matches no start tag".to_owned(),
        quick_xml::Error::Syntax(error) => excerpt(&error.to_string()),
        quick_xml::Error::IllFormed(error) => excerpt(&error.to_string()),
        _ => "broken markup".to_owned(),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|c| c.is_alphabetic() || matches!(c, '_' | ':'));
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '-' | '.') || !c.is_ascii();
    if starts && chars.all(fits) {
        return Ok(());
    }
    Err("an element or attribute has an invalid name (is there a bare `<`?)".to_owned())
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn excerpt(text: &str) -> String {
    text.chars().take(MAX_EXCERPT_CHARS).collect()
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_libvirt_accepts() {
        for good in [
            "<domain/>",
            "<?xml version='1.0'?>\n<!-- a -->\n<domain type='kvm'>\n\t<name>a&amp;b&#10;</name>\n</domain>\n",
            "<domain xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\"><qemu:commandline/></domain>",
            "<domain><description><![CDATA[a < b && c]]></description><é/></domain>",
            "<?xml version=\"1.0\" encoding='utf-8' standalone='no' ?><?pi x?><domain a=\"1\"\n\tb='&lt;&#xe9;\"'/>",
            "\u{feff}<domain>\u{1f600}</domain>",
        ] {
            assert_eq!(check_domain(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn refuses_what_would_fail_later_and_says_where() {
        for (bad, expected) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("hello", "text outside the element `domain` at line 1, column 1"),
            ("<domain>", "ends before all elements are closed at line 1, column 9"),
            ("<domain>\n  <a>\n</domain>", "at line 3, column 1"),
            ("<domain/><domain/>", "a second root element `domain` at line 1, column 10"),
            ("<domain/>trailing", "text outside the element `domain` at line 1, column 10"),
            ("\n<?xml version='1.0'?><domain/>", "not at the very beginning at line 2, column 1"),
            ("<vm/>", "its root element is `vm`, not `domain` at line 1, column 1"),
            ("<x:domain/>", "its root element is `x:domain`, not `domain`"),
            ("<!-- only -->", "it has no element `domain`"),
            ("<domain>a & b</domain>", "a bare `&`"),
            ("<domain>&secret;</domain>", "an unknown reference (`&…;`)"),
            ("<domain>&#0;</domain>", "an unknown reference"),
            ("<domain>\n<name>secret</nome></domain>", "at line 2, column 13"),
            ("<domain a='1' a='2'/>", "in the tag `domain`: duplicate attribute `a` at line 1"),
            ("<domain a=1/>", "in the tag `domain`"),
            ("<domain a='&secret'/>", "attribute `a` of `domain` contains a bare `<` or `&`"),
            ("<domain a='<'/>", "attribute `a` of `domain` contains a bare `<` or `&`"),
            ("<domain>a < b</domain>", "at line 1, column"),
            ("<domain a='1'b='2'/>", "in the tag `domain`: no space between two attributes"),
            ("<domain a='x' b='&#1;'/>", "attribute `b` of `domain` contains a bare"),
            ("<domain>&#xFFFF;</domain>", "an unknown reference"),
            (
                "<domain>\u{fffe}</domain>",
                "U+FFFE or U+FFFF, which XML does not allow, at line 1, column 9",
            ),
            ("<domain><a></ secret abc></domain>", "an end tag that matches no start tag"),
            ("<!DOCTYPE domain [<!ENTITY x 'y'>]><domain/>", "it has a document type"),
            ("<?xml version='1.0' encoding='ASCII'?><domain/>", "with encoding UTF-8 if any"),
            ("<?xml version='1.1'?><domain/>", "must be version 1.0"),
            ("<?xml?><domain/>", "must begin with the version"),
            ("<?xml encoding='utf-8' version='1.0'?><domain/>", "must begin with the version"),
            ("<?xml version='1.0'encoding='utf-8'?><domain/>", "its XML declaration is broken"),
            ("<?XML x?><domain/>", "a processing instruction has an invalid name"),
            ("<domain>]]></domain>", "the text contains `]]>`"),
            ("<domain>\u{1}</domain>", "control character 0x01 at line 1, column 9"),
            ("<domain><1/></domain>", "an invalid name"),
            ("<domain><!-- open", "comment not closed"),
        ] {
            let fault = check_domain(bad).expect_err(bad).to_string();
            assert!(fault.contains(expected), "{bad:?} gives {fault:?}");
            assert!(!fault.contains("secret"), "{bad:?} shows the document: {fault:?}");
        }
    }

    #[test]
    fn the_attributes_of_a_tag_have_a_maximum() {
        let with = |count: usize| {
            let attributes: Vec<_> = (0..count).map(|number| format!(" a{number}=''")).collect();
            format!("<domain{}/>", attributes.concat())
        };
        assert_eq!(check_domain(&with(MAX_ATTRIBUTES)), Ok(()));
        // To compare each with each would take minutes.
        for count in [MAX_ATTRIBUTES + 1, 500_000] {
            let fault = check_domain(&with(count)).expect_err("too many").to_string();
            assert!(fault.contains("`domain` has more than 1000 attributes at line 1"), "{fault}");
        }
        let twice = with(100).replace("a99", "a1");
        let fault = check_domain(&twice).expect_err("twice").to_string();
        assert!(fault.contains("duplicate attribute `a1`"), "{fault}");
    }

    #[test]
    fn the_depth_of_elements_has_a_maximum() {
        let nested = |depth: usize| {
            format!("<domain>{}{}</domain>", "<a>".repeat(depth - 1), "</a>".repeat(depth - 1))
        };
        assert_eq!(check_domain(&nested(MAX_DEPTH)), Ok(()));
        let fault = check_domain(&nested(MAX_DEPTH + 1)).expect_err("too deep").to_string();
        assert!(fault.contains("nested more than 255 deep"), "{fault}");
    }
}
