//! Properties of the editor, with roxmltree as the judge.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::tree::MAX_DEPTH;
use super::{Document, Element};

#[test]
fn the_depth_of_elements_has_the_maximum_that_the_protocol_says() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&format!("| elements of a domain | nested up to {MAX_DEPTH} deep |")));
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    assert!(Document::parse(&nested(MAX_DEPTH)).is_ok());
    for depth in [MAX_DEPTH + 1, 100_000] {
        let error = Document::parse(&nested(depth)).unwrap_err().to_string();
        assert_eq!(error, "line 1, column 766: elements are nested more than 255 deep");
    }
}

#[test]
fn many_attributes_are_edited_in_time() {
    const MANY: usize = 20_000;
    let doc = Document::parse("<domain>\n <a   k0 = '0'\n/></domain>").unwrap();
    let element = doc.find("a").unwrap().unwrap();
    for number in 0..MANY {
        element.set(&format!("k{number}"), "0").unwrap();
        element.set(&format!("qemu:k{number}"), "1").unwrap();
    }
    for number in 0..MANY {
        element.set(&format!("k{number}"), format!("{number}'")).unwrap();
        let value = element.get(&format!("qemu:k{number}")).unwrap();
        assert_eq!(value.as_deref(), Some("1"));
    }
    let text = |number| match number {
        0 => "   k0 = '0&apos;'".to_owned(),
        _ => format!(" k{number}=\"{number}'\""),
    };
    let start = "<domain xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n <a";
    let all = (0..MANY).map(|number| format!("{} qemu:k{number}=\"1\"", text(number)));
    let expected = format!("{start}{}\n/></domain>", all.collect::<String>());
    assert!(doc.to_string() == expected, "it is another document");
    for number in 0..MANY {
        element.remove_attribute(&format!("qemu:k{number}")).unwrap();
        if number % 3 > 0 {
            element.remove_attribute(&format!("k{number}")).unwrap();
        }
    }
    element.set("k1", "").unwrap().append("b").unwrap();
    let left: String = (0..MANY).step_by(3).map(text).collect();
    let expected = format!("{start}{left} k1=\"\">\n  <b></b>\n </a></domain>");
    assert!(doc.to_string() == expected, "it is another document");
    assert_eq!(element.attributes().len(), MANY.div_ceil(3) + 1);
    // One that is only read.
    let doc = Document::parse(&expected).unwrap();
    let element = doc.find("a").unwrap().unwrap();
    for number in (0..MANY).step_by(3).skip(1) {
        let value = element.get(&format!("k{number}")).unwrap();
        assert_eq!(value, Some(format!("{number}'")));
    }
    assert_eq!((doc.to_string(), doc.changed()), (expected, None));
}

/// Parts of documents, whole and broken.
const PARTS: [&str; 48] = [
    "<a>",
    "</a>",
    "<b k='1'>",
    "</b>",
    "<b",
    "/>",
    ">",
    "<",
    "k='1'",
    " k=\"2\"",
    "l='<'",
    " x:k='3'",
    " xmlns:x='u'",
    " xmlns='v'",
    " xmlns:xml='u'",
    "<x:a>",
    "</x:a>",
    "<x:a:b>",
    "&amp;",
    "&#65;",
    "&#x1;",
    "&",
    ";",
    "&n;",
    "&#;",
    "&#x110000;",
    "<!--",
    "-->",
    "--",
    "<![CDATA[",
    "]]>",
    "]]",
    "<?p",
    "?>",
    "<?xml version='1.0'?>",
    "<?XML?>",
    "<!DOCTYPE a>",
    " ",
    "\n",
    "\t",
    "text",
    "é",
    "<é/>",
    "\u{1}",
    "\u{fffe}",
    "\u{feff}",
    "'",
    "=",
];

/// What roxmltree takes and XML does not, apart from references to too large numbers.
const TAKEN: [&str; 5] = [
    "a processing instruction without white space behind its name",
    "a processing instruction with a name that is not allowed",
    "\"--\" in a comment",
    "the XML declaration is broken",
    "a name is missing, or begins with a character that it must not have",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_documents_that_are_read_are_those_that_are_well_formed(
        parts in vec(select(&PARTS[..]), 0..12),
        is_wrapped in any::<bool>(),
    ) {
        let text = parts.concat();
        let text = if is_wrapped { format!("<r xmlns:x='u'>{text}</r>") } else { text };
        match (Document::parse(&text), roxmltree::Document::parse(&text)) {
            (Ok(document), Ok(judge)) => {
                prop_assert_eq!(&document.to_string(), &text);
                prop_assert!(document.changed().is_none());
                prop_assert_eq!(shape(document.root()), shape_of(judge.root_element()));
            }
            (Ok(_), Err(roxmltree::Error::UnknownNamespace(..))) | (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => prop_assert!(false, "only roxmltree refuses {text:?}: {error}"),
            (Err(error), Ok(_)) => {
                let is_known = TAKEN.iter().any(|reason| error.to_string().ends_with(reason))
                    || text.contains("&#x110000;");
                prop_assert!(is_known, "only roxmltree takes {text:?}: {error}");
            }
        }
    }
}

/// Names, attributes and texts of an element and all below it.
fn shape(element: Element<'_>) -> String {
    let mut attributes = element.attributes();
    for (name, _) in &mut attributes {
        *name = name.rsplit(':').next().unwrap_or_default().to_owned();
    }
    let children: Vec<_> = element.find_all("*").unwrap().into_iter().map(shape).collect();
    let (namespace, name, text) = (element.namespace(), element.name(), element.text());
    format!("{{{namespace}}}{name} {attributes:?} {text:?} {children:?}")
}

fn shape_of(node: roxmltree::Node<'_, '_>) -> String {
    let attributes: Vec<_> =
        node.attributes().map(|it| (it.name().to_owned(), it.value().to_owned())).collect();
    let elements = node.children().filter(roxmltree::Node::is_element);
    let children: Vec<_> = elements.map(shape_of).collect();
    let text: String =
        node.children().filter(roxmltree::Node::is_text).filter_map(|it| it.text()).collect();
    let namespace = node.tag_name().namespace().unwrap_or_default();
    format!("{{{namespace}}}{} {attributes:?} {text:?} {children:?}", node.tag_name().name())
}

const DOCUMENTS: [&str; 8] = [
    "<a>]]<b/>><c/>]<b/>]<b/>></a>",
    "<a/>",
    "<a><b/>x<b>y</b>\n</a>",
    "<a>\n  <b k='1'/>\n  <!-- c -->\n  <c><d/></c>\n</a>\n",
    "<a xmlns='u' xmlns:qemu='v' xmlns:p='w'><qemu:b p:k='1'/><b xmlns='' xmlns:p='u'><p:c/></b></a>",
    "<p:a xmlns:p='u'><p:b xmlns:p='v' p:k='1'/>\n<p:b/></p:a>",
    "<a><u:b u:k='1'><u:c/></u:b></a>",
    "<a xmlns:app='urn:other'><b><![CDATA[]]>\n <c/></b>&#10;<d/> </a>",
];

const PATHS: [&str; 16] = [
    "b",
    "c",
    "b/c",
    "*",
    "*/*",
    "b[@k='1']",
    "b[@k='1'][@k='2']",
    "qemu:b",
    "qemu:b/qemu:c[@app:k='1']",
    "app:b[@qemu:k='2'][@k='\n']",
    "d",
    "b[@xml:k='\"']",
    "other:b",
    "//",
    "b[@k=?]",
    "b[@k='\u{1}']",
];

const NAMES: [&str; 8] = ["k", "l", "qemu:k", "app:k", "xml:k", "xmlns", "u:k", "1"];
const TEXTS: [&str; 7] = ["", "1", "<&>\"'", "\r\n\t", " ", "\u{1}", "é]]>"];

/// An operation by number, on one of the elements so far.
type Step = (u8, prop::sample::Index, &'static str, &'static str, &'static str);

/// Does a step. What it returns does not matter: it must not panic.
fn edit<'d>(document: &'d Document, elements: &mut Vec<Element<'d>>, step: &Step) {
    let (operation, index, path, name, text) = step;
    let element = *index.get(elements);
    let new = match operation % 12 {
        0 => element.append(*path).ok(),
        1 => element.insert_before(*path).ok(),
        2 => element.ensure(*path).ok(),
        3 => element.find(*path).ok().flatten(),
        4 => element.find_all(*path).ok().and_then(|all| all.last().copied()),
        5 => element.parent(),
        6 => element.set(name, text).ok(),
        7 => element.set_text(text).ok(),
        8 => element.remove().err().map(|_| document.root()),
        9 => element.remove_attribute(name).err().map(|_| document.root()),
        10 => element.ensure((*path, [text])).ok(),
        _ => document.namespace("u", text).err().map(|_| document.root()),
    };
    let _ = (element.get(name), element.attributes(), element.text(), element.namespace());
    elements.extend(new);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever is done in whatever order: no panic, and what is written is well-formed and says
    /// what the editor says.
    #[test]
    fn any_sequence_of_edits_ends_with_a_well_formed_document(
        source in select(&DOCUMENTS[..]),
        steps in vec(
            (any::<u8>(), any::<prop::sample::Index>(), select(&PATHS[..]), select(&NAMES[..]), select(&TEXTS[..])),
            0..24,
        ),
    ) {
        let document = Document::parse(source).unwrap();
        document.namespace("app", "https://example.com/app").unwrap();
        let mut elements = vec![document.root()];
        for step in &steps {
            edit(&document, &mut elements, step);
        }
        let text = document.to_string();
        prop_assert_eq!(document.changed().is_some(), text != source);
        let again = Document::parse(&text);
        prop_assert!(again.is_ok(), "{text} {:?}", again.err());
        let again = again.unwrap();
        again.namespace("app", "https://example.com/app").unwrap();
        if !text.contains("u:") {
            prop_assert_eq!(shape(again.root()), shape(document.root()), "{}", &text);
            let judge = roxmltree::Document::parse(&text);
            prop_assert!(judge.is_ok(), "{text} {:?}", judge.err());
            prop_assert_eq!(shape(again.root()), shape_of(judge.unwrap().root_element()));
        }
    }
}
