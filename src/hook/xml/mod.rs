//! Checks that a text is a well-formed libvirt domain, in one pass, without copies.
//!
//! # Theory of operation
//!
//! After the shim, two parsers read a domain: KubeVirt decodes it with Go's `encoding/xml`, and
//! libvirt parses it with libxml2. What they refuse fails late, and without a word of the hook. So
//! this module accepts only what *both* accept. Whether the domain makes sense is for libvirt to
//! decide. `.ci/xml` compares the verdicts on 100,000 mutated domains: none may be accepted here
//! and refused there. (libxml2 also refuses texts and values of more than 10 MB; replies to
//! KubeVirt are shorter.)
//!
//! There is one scanner, [`scan`]. Once there were two: a quick one for plain documents, and a
//! thorough one for the rest. Both would have had to follow namespaces. `bench/NOTES.md` has
//! what that costs.
//!
//! What both parsers accept and this module refuses, each for a reason:
//! - a root element other than `domain`: libvirt reads only `domain` as one;
//! - a document type: neither libvirt nor KubeVirt needs one, and entities can exhaust a parser;
//! - elements that are nested 256 deep: the protocol's limit is one less than libxml2's;
//! - more than 1000 attributes of an element, or 64 prefixes at one place: they are compared;
//! - a name whose part behind the colon begins with a digit beyond ASCII, or the like;
//! - `xmlns:xml` twice in a tag: an attribute stands there once;
//! - `xml:id`: libxml2 demands that its values are unique, which needs a table of all;
//! - a namespace with a user name or an address in brackets, or longer than 2000 bytes.
//!
//! Between the two parsers, the stricter one counts: libxml2 for all that concerns namespaces,
//! duplicate attributes, text outside the root and the depth of elements, Go for the characters of
//! names and for the XML declaration.
//!
//! # Prefixes without a declaration
//!
//! libvirt accepts `<qemu:commandline>` without a declaration of `qemu`, and ignores it: the hook's
//! work would be lost. So such a prefix is refused, unless the document that the hook was called
//! with uses it without a declaration, too: KubeVirt drops the declarations on the root, and keeps
//! `<metadata><app:x/>` as it is. That document is only read if there is such a prefix.

mod characters;
mod names;
mod namespaces;
mod scan;
mod tokens;

use std::fmt;

use self::namespaces::Undeclared;
use self::scan::{Fault, show};

/// The namespaces that libvirt reads in KubeVirt's domains, by their usual prefix.
const NAMESPACES: [(&str, &str); 1] = [("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")];

/// What is wrong with a document, and where.
///
/// Of the document itself, the text contains at most the names of an element and an attribute, or a
/// prefix, shortened. They are shown only if their tag is complete: behind a bare `<`,
/// the document's text would look like a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct XmlFault(String);

impl fmt::Display for XmlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks that `text` is one well-formed element `domain`, with what XML allows around it. Prefixes
/// that `request` does not declare either are passed on.
pub(super) fn check_domain<'a>(
    text: &str,
    request: impl FnOnce() -> &'a str,
) -> Result<(), XmlFault> {
    if text.trim_ascii().is_empty() {
        return Err(XmlFault("is empty; it must be the whole domain document".to_owned()));
    }
    let undeclared = scan::domain(text).map_err(|fault| {
        let Fault { what, at } = *fault;
        let (line, column) = line_and_column(text, at);
        XmlFault(format!("is not a well-formed domain: {what} at line {line}, column {column}"))
    })?;
    if undeclared.is_empty() {
        return Ok(());
    }
    let passed_on = scan::undeclared_in(request(), undeclared.iter().map(|it| it.prefix).collect());
    match undeclared.iter().find(|it| !passed_on.contains(&it.prefix)) {
        None => Ok(()),
        Some(missing) => Err(undeclared_fault(text, missing)),
    }
}

/// Says which declaration is missing.
fn undeclared_fault(text: &str, missing: &Undeclared<'_>) -> XmlFault {
    let prefix = show(missing.prefix);
    let (line, _) = line_and_column(text, missing.at);
    let advice = match NAMESPACES.iter().find(|(known, _)| *known == prefix) {
        Some((_, uri)) => format!("add xmlns:{prefix}=\"{uri}\" to <domain>"),
        None => format!("add xmlns:{prefix}=\"…\" with its namespace to the element"),
    };
    XmlFault(format!(
        "is not a well-formed domain: prefix \"{prefix}\" is not declared at line {line}: {advice}"
    ))
}

/// Returns the line and the column of an offset, both counted from 1. The column counts characters.
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

#[cfg(test)]
mod tests {
    use super::namespaces::MAX_PREFIXES;
    use super::scan::{MAX_ATTRIBUTES, MAX_DEPTH};
    use super::*;

    fn check(text: &str) -> Result<(), XmlFault> {
        check_domain(text, || "<domain/>")
    }

    fn fault(text: &str) -> String {
        check(text).expect_err(text).to_string()
    }

    #[test]
    fn accepts_what_libvirt_and_kubevirt_accept() {
        for good in [
            "<domain/>",
            " <domain a='1' b=\"&lt;'\"\n>\n<x y = '2\u{ff0c}' />a&amp;b&#xe9;[1]\u{e9}\u{fffd}</domain >\n",
            "<?xml version='1.0'?>\n<!-- a -->\n<domain type='kvm'>\n\t<name>a&amp;b&#10;</name>\n</domain>\n",
            "<domain xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\"><qemu:commandline/></domain>",
            "<domain><description><![CDATA[a < b && c]]]]></description><é/><é·٣:名 xmlns:é·٣='urn:a'/></domain>",
            "<?xml version=\"1.0\" encoding='utf-8' standalone='no' ?><?pi x??><domain a=\"1\"\n\tb='&lt;&#xe9;\"'/>",
            "<?xml  version = '1.0'\n?><domain/><!----><?xmlfoo?>",
            "\u{feff}<domain>\u{1f600}]] ></domain>",
            "<domain xml:lang='de' a='>' b=']]>' c='\t'/>",
            // One attribute without a namespace, one with.
            "<domain xmlns='urn:a' xmlns:p='urn:a' p:x='' x=''/>",
            include_str!("../../../tests/fixtures/domains/libvirt.xml"),
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn refuses_what_would_fail_later_and_says_where() {
        for (bad, expected) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("hello", "text outside the element `domain` at line 1, column 1"),
            ("<domain>", "ends before all elements are closed at line 1, column 9"),
            ("<domain>\n  <a>\n</domain>", "expected `</a>` at line 3, column 1"),
            ("<domain/><domain/>", "a second root element `domain` at line 1, column 10"),
            ("<domain/>trailing", "text outside the element `domain` at line 1, column 10"),
            ("<domain/>\n&#32;", "text outside the element `domain` at line 2, column 1"),
            ("<domain/><![CDATA[]]>", "text outside the element `domain` at line 1, column 10"),
            ("</domain>", "an end tag that matches no start tag at line 1, column 1"),
            (
                "\n<?xml version='1.0'?><domain/>",
                "not at the very beginning, or is broken at line 2",
            ),
            ("<domain><?xml version='1.0'?></domain>", "not at the very beginning"),
            ("\u{feff}\u{feff}<domain/>", "text outside the element `domain` at line 1, column 2"),
            ("<vm/>", "its root element is `vm`, not `domain` at line 1, column 1"),
            ("<x:domain/>", "its root element is `x:domain`, not `domain`"),
            ("<!-- only -->", "it has no element `domain`"),
            ("<domain>a & b</domain>", "a bare `&`; write `&amp;` at line 1, column 11"),
            ("<domain>&secret;</domain>", "an unknown reference (`&…;`)"),
            ("<domain>&#0;</domain>", "an unknown reference"),
            ("<domain>&#xFFFF;</domain>", "an unknown reference"),
            ("<domain>\n<name>secret</nome></domain>", "`</name>` at line 2, column 13"),
            ("<domain><a></ secret abc></domain>", "expected `</a>` at line 1, column 12"),
            ("<domain><a></a", "expected `</a>`"),
            ("<domain a='1' a='2'/>", "in the tag `domain`: duplicate attribute `a` at line 1"),
            ("<domain a=1/>", "the value of an attribute is not in quotes at line 1, column 11"),
            ("<domain a=“1”/>", "the value of an attribute is not in quotes"),
            ("<domain secret/>", "an attribute has no value (is there a bare `<`?)"),
            ("<domain a='&secret'/>", "a bare `&`; write `&amp;` at line 1, column 12"),
            ("<domain a='x' b='&#1;'/>", "an unknown reference"),
            ("<domain secret='<'/>", "contains a bare `<` (write `&lt;`), or its closing quote"),
            (
                "<domain>a < b</domain>",
                "an invalid name (is there a bare `<`?) at line 1, column 12",
            ),
            ("<domain>a <secret b</domain>", "an attribute has no value (is there a bare `<`?)"),
            ("<domain>a <secret</domain>", "a tag lacks its `>`"),
            ("<domain a='1'b='2'/>", "no space between two attributes at line 1, column 14"),
            ("<domain a='1", "it ends inside the value of an attribute at line 1, column 13"),
            ("<domain ", "it ends inside a tag"),
            ("<domain / >", "an invalid name"),
            ("<", "it ends inside a tag at line 1, column 2"),
            ("<domain><na", "it ends inside a tag at line 1, column 12"),
            (
                "<domain>\u{fffe}</domain>",
                "U+FFFE or U+FFFF, which XML does not allow, at line 1, column 9",
            ),
            ("<domain a='\u{ffff}'/>", "U+FFFE or U+FFFF"),
            ("<domain>é\u{1}</domain>", "control character 0x01 at line 1, column 10"),
            ("<domain a='\u{1f}'/>", "control character 0x1f"),
            ("<domain><!-- \u{2} --></domain>", "control character 0x02 at line 1, column 14"),
            ("<domain/><?a \u{b}?>", "control character 0x0b"),
            ("<domain><![CDATA[\u{c}]]></domain>", "control character 0x0c"),
            ("<!DOCTYPE domain [<!ENTITY x 'y'>]><domain/>", "it has a document type"),
            ("<domain><!secret></domain>", "broken markup behind `<!`"),
            ("<?xml version='1.0' encoding='ASCII'?><domain/>", "with encoding UTF-8 if any"),
            ("<?xml version='1.0' encoding='UTF8'?><domain/>", "with encoding UTF-8 if any"),
            ("<?xml version='1.0' encoding=''?><domain/>", "with encoding UTF-8 if any"),
            ("<?xml version='1.1'?><domain/>", "must be version 1.0"),
            ("<?xml version?><domain/>", "must be version 1.0"),
            ("<?xml?><domain/>", "must begin with the version"),
            ("<?xml encoding='utf-8' version='1.0'?><domain/>", "must begin with the version"),
            ("<?xml version='1.0'encoding='utf-8'?><domain/>", "must begin with the version"),
            ("<?xml version='1.0' standalone='yes' encoding='utf-8'?><domain/>", "is broken"),
            ("<?xml version='1.0' ? ><domain/>", "its XML declaration is broken"),
            (
                "<?XML x?><domain/>",
                "the XML declaration is not at the very beginning, or is broken",
            ),
            ("<?a:b?><domain/>", "a processing instruction has an invalid name"),
            ("<?a??><domain/>", "a processing instruction has an invalid name"),
            ("<?a b><domain/>", "a processing instruction has no end"),
            ("<domain>]]></domain>", "the text contains `]]>` at line 1, column 9"),
            ("<domain><1/></domain>", "an invalid name"),
            ("<domain><!-- open", "a comment has no end at line 1, column 9"),
            ("<domain><!-- a -- b --></domain>", "a comment contains `--`"),
            ("<domain><!-- a ---></domain>", "a comment contains `--`"),
            ("<!--><domain/>", "a comment has no end"),
            ("<domain><![CDATA[open", "a CDATA section has no end"),
        ] {
            let fault = fault(bad);
            assert!(fault.contains(expected), "{bad:?} gives {fault:?}");
            assert!(!fault.contains("secret"), "{bad:?} shows the document: {fault:?}");
        }
    }

    #[test]
    fn names_are_those_of_both_parsers_with_one_colon_at_most() {
        for (character, code) in [
            ('\u{a0}', "U+00A0"),
            ('\u{ad}', "U+00AD"),
            ('\u{200b}', "U+200B"),
            ('\u{201c}', "U+201C"),
            ('\u{feff}', "U+FEFF"),
            ('😀', "U+1F600"),
        ] {
            for bad in [
                "<domain><a_b/></domain>",
                "<domain><_/></domain>",
                "<domain a_='1'/>",
                "<domain _a='1'/>",
            ] {
                let fault = fault(&bad.replace('_', &character.to_string()));
                let expected = format!(
                    "{code} is not allowed in a name (was the tag copied from a web page?) at line 1"
                );
                assert!(fault.contains(&expected), "{bad}: {fault}");
            }
        }
        for (bad, expected) in [
            ("<domain><a:b:c/></domain>", "a name has more than one colon at line 1, column 13"),
            ("<domain><a::b/></domain>", "a colon has no name on either side"),
            ("<domain><:a/></domain>", "a colon has no name on either side"),
            ("<domain><a:/></domain>", "a colon has no name on either side"),
            ("<domain><:/></domain>", "a colon has no name on either side"),
            ("<domain><a:1/></domain>", "a colon has no name on either side"),
            ("<domain :a=''/>", "a colon has no name on either side"),
            ("<domain xmlns:=''/>", "a colon has no name on either side"),
            ("<domain><·/></domain>", "a name, or its part behind a colon, begins with U+00B7"),
            ("<domain><a:٣/></domain>", "begins with U+0663"),
        ] {
            let fault = fault(bad);
            assert!(fault.contains(expected), "{bad:?} gives {fault:?}");
        }
        let long = |bytes: usize| format!("<domain><{}/></domain>", "é".repeat(bytes / 2));
        assert_eq!(check(&long(names::MAX_NAME_BYTES)), Ok(()));
        assert!(
            fault(&long(names::MAX_NAME_BYTES + 2)).contains("a name is longer than 50000 bytes")
        );
        // An error shows 120 characters of it.
        let shown = fault(&format!("<{}/>", "é".repeat(1000)));
        assert!(shown.contains(&format!("`{}`", "é".repeat(120))), "{shown}");
    }

    #[test]
    fn a_prefix_that_is_not_declared_is_refused_with_the_declaration_that_it_needs() {
        const QEMU: &str = "prefix \"qemu\" is not declared at line 3: add \
                            xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\" to <domain>";
        for (bad, expected) in [
            ("<domain>\n\n<qemu:commandline/></domain>", QEMU),
            ("<domain>\n<a\nqemu:b=''/></domain>", QEMU),
            // Declared elsewhere.
            ("<domain>\n<a xmlns:qemu='urn:a'/>\n<qemu:b/></domain>", QEMU),
            ("<domain>\n<a xmlns:qemu='urn:a'></a>\n<qemu:b/></domain>", QEMU),
            (
                "<domain><app:x/></domain>",
                "prefix \"app\" is not declared at line 1: add xmlns:app=\"…\" with its namespace \
                 to the element",
            ),
            ("<domain><xmlns:a/></domain>", "prefix \"xmlns\" is not declared"),
        ] {
            let fault = fault(bad);
            assert!(fault.ends_with(expected) || fault.contains(expected), "{bad:?}: {fault}");
        }
        for good in [
            "<domain><qemu:a xmlns:qemu='urn:a'><qemu:b qemu:c=''/></qemu:a></domain>",
            "<domain qemu:c='' xmlns:qemu='urn:a'/>",
            "<domain xml:space='preserve' xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let many: Vec<_> = (0..=MAX_PREFIXES).map(|number| format!("<p{number}:a/>")).collect();
        let fault = fault(&format!("<domain>{}</domain>", many.concat()));
        assert!(fault.contains("more than 64 prefixes are not declared"), "{fault}");
    }

    #[test]
    fn a_prefix_that_the_request_does_not_declare_is_passed_on() {
        let answer = "<domain><metadata><app:x b:y=''/></metadata><!-- new --></domain>";
        for (request, missing) in [
            ("<domain><metadata><app:x b:y=''/></metadata></domain>", None),
            // Found also if the request is broken behind it, or has another root.
            ("<domain><b:z/><app:y/>", None),
            ("<vm><a b:z=''/></vm>", Some("app")),
            ("<domain><app:x/></domain>", Some("b")),
            ("<domain xmlns:app='urn:a'><app:x b:y=''/></domain>", Some("app")),
        ] {
            let result = check_domain(answer, || request).map_err(|fault| fault.to_string());
            match missing {
                None => assert_eq!(result, Ok(()), "{request}"),
                Some(prefix) => {
                    let expected = format!("prefix \"{prefix}\" is not declared at line 1");
                    assert!(
                        result.clone().unwrap_err().contains(&expected),
                        "{request}: {result:?}"
                    );
                }
            }
        }
        let unread = || -> &str { panic!("the request was read without need") };
        for text in ["<domain/>", "<domain", "<domain xmlns:a='urn:a'><a:b/></domain>"] {
            let _ = check_domain(text, unread);
        }
    }

    #[test]
    fn declarations_and_duplicates_follow_the_rules_of_namespaces() {
        for (bad, expected) in [
            ("xmlns:p=''", "in the tag `domain`: `xmlns:p` is declared with an empty namespace"),
            ("xmlns:p='a b'", "`xmlns:p` is declared with a namespace that is not a valid URI"),
            ("xmlns='%'", "`xmlns` is declared with a namespace that is not a valid URI"),
            ("xmlns:xmlns='urn:a'", "`xmlns:xmlns` is reserved"),
            ("xmlns:xml='urn:a'", "reserved"),
            ("xmlns:p='http://www.w3.org/XML/1998/namespace'", "reserved"),
            ("xmlns='http://www.w3.org/2000/xmlns/'", "reserved"),
            ("xmlns:p='urn:a' xmlns:p='urn:b'", "duplicate attribute `xmlns:p`"),
            (
                "p:x='' xmlns:p='urn:a' xmlns:q='urn:&#97;' q:x=''",
                "in the tag `domain`: duplicate attribute `x`, by two prefixes of one namespace",
            ),
            ("xml:id='a'", "`domain` has an `xml:id`"),
        ] {
            let fault = fault(&format!("<domain {bad}/>"));
            assert!(fault.contains(expected), "{bad}: {fault}");
        }
        let declare = |count: usize| {
            let all: Vec<_> =
                (0..count).map(|number| format!(" xmlns:p{number}='urn:a'")).collect();
            format!("<domain><a{0}/><b{0}></b></domain>", all.concat())
        };
        assert_eq!(check(&declare(MAX_PREFIXES)), Ok(()));
        assert!(fault(&declare(MAX_PREFIXES + 1)).contains("is declared where 64 others are"));
    }

    #[test]
    fn the_attributes_of_a_tag_have_a_maximum() {
        let with = |count: usize| {
            let attributes: Vec<_> = (0..count).map(|number| format!(" a{number}=''")).collect();
            format!("<domain{}/>", attributes.concat())
        };
        assert_eq!(check(&with(MAX_ATTRIBUTES)), Ok(()));
        // To compare each with each would take minutes.
        for count in [MAX_ATTRIBUTES + 1, 500_000] {
            let fault = fault(&with(count));
            assert!(fault.contains("a tag has more than 1000 attributes at line 1"), "{fault}");
        }
        for (count, twice) in [(10, "a9"), (16, "a15"), (17, "a16"), (100, "a99")] {
            let text = with(count);
            assert_eq!(check(&text), Ok(()));
            let fault = fault(&text.replace(&format!(" {twice}="), " a1="));
            assert!(fault.contains("duplicate attribute `a1`"), "{fault}");
        }
    }

    #[test]
    fn the_depth_of_elements_has_a_maximum() {
        let nested = |depth: usize| {
            format!("<domain>{}{}</domain>", "<a>".repeat(depth - 1), "</a>".repeat(depth - 1))
        };
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        let fault = fault(&nested(MAX_DEPTH + 1));
        assert!(fault.contains("nested more than 255 deep"), "{fault}");
    }

    #[test]
    fn the_page_of_failures_quotes_the_faults_as_they_are() {
        let page = include_str!("../../../docs/failures.md");
        let (_, section) = page.split_once("### Rejected domains").unwrap();
        let table = section.lines().skip_while(|line| !line.starts_with("| `"));
        let first_cells = table.take_while(|line| line.starts_with("| `"));
        let texts: Vec<_> = first_cells
            .flat_map(|line| line[2..].split(" | ").next().unwrap().split("`, `"))
            .collect();
        assert!(texts.len() > 10, "{texts:?}");
        let faults = [
            "<domain><qemu:a/></domain>",
            "<domain><a\u{a0}/></domain>",
            "<domain><a:b:c/></domain>",
            "<domain><:a/></domain>",
            "<domain a='' a=''/>",
            "<domain xmlns:a=''/>",
            "<domain>&</domain>",
            "<domain>&nbsp;</domain>",
            "<domain> < </domain>",
            "<vm/>",
            "<domain>",
            "<domain></a>",
            "<!DOCTYPE domain>",
            "<?xml?>",
        ]
        .map(|text| fault(text).replace('`', ""));
        for text in texts {
            let parts: Vec<_> = text.trim_matches('`').split('…').collect();
            let fits = |fault: &String| {
                let mut rest = fault.strip_prefix("is not a well-formed domain: ").unwrap();
                parts.iter().all(|part| match rest.split_once(part) {
                    Some((_, after)) => {
                        rest = after;
                        true
                    }
                    None => false,
                })
            };
            assert!(faults.iter().any(fits), "no fault is as the page says: {text}");
        }
    }
}
