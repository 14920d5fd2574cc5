//! Edits documents as `sdk/vectors/xml.json` says.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test may panic")]

#[path = "support/edits.rs"]
mod edits;

use std::path::Path;

use kubevirt_hook::serde_json::{self, Value};
use kubevirt_hook::xml::Document;
use kubevirt_hook::InvalidParams;

use edits::Editing;

/// Returns a text, which may be a list of its lines.
fn text(value: &Value) -> String {
    match value {
        Value::Array(lines) => {
            lines.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
        }
        text => text.as_str().unwrap().to_owned(),
    }
}

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/xml.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    vectors["cases"].as_array().unwrap().clone()
}

/// Plays a case. The error says what is wrong.
fn play(case: &Value) -> Result<(), String> {
    let before = text(&case["document"]);
    let document = match Document::parse(&before) {
        Err(error) if case["error"] == "document" => {
            let says = case["says"].as_str().unwrap_or_default();
            let is_right = error.to_string().contains(says);
            return if is_right { Ok(()) } else { Err(format!("{error}, without {says:?}")) };
        }
        Err(error) => return Err(format!("it is not read: {error}")),
        Ok(_) if case["error"] == "document" => return Err("it is read".to_owned()),
        Ok(document) => document,
    };
    let mut editing = Editing::start(&document, &case["namespaces"]).unwrap();
    for step in case["steps"].as_array().into_iter().flatten() {
        let untouched = document.to_string();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| editing.step(step)));
        let outcome = outcome.map_err(|_| format!("{step}"))?;
        match outcome {
            Ok(()) if step["error"].is_null() => {}
            Ok(()) => return Err(format!("{step} does not fail")),
            Err(fault) => {
                if step["error"] != fault.kind {
                    return Err(format!("{step} fails: {fault:?}"));
                }
                let says = step["says"].as_str().unwrap_or_default();
                if !fault.message.contains(says) {
                    return Err(format!("{step}: {says} is not in {}", fault.message));
                }
                if document.to_string() != untouched {
                    return Err(format!("{step} fails and changes something"));
                }
            }
        }
    }
    let (after, changed) = (document.to_string(), document.changed());
    if case["expect"] == "unchanged" {
        if after != before || changed.is_some() {
            return Err(format!("{after:?} is a change"));
        }
    } else if after != text(&case["expect"]) || changed.as_ref() != Some(&after) {
        return Err(format!("{after}\n{after:?}"));
    }
    Ok(())
}

#[test]
fn every_document_is_edited_as_the_page_says() {
    let cases = cases();
    assert!(cases.len() >= 180, "there are only {} cases", cases.len());
    let faults: Vec<_> = cases
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case["about"], play(case).err()?)))
        .collect();
    assert!(faults.is_empty(), "{} cases:\n{}", faults.len(), faults.join("\n\n"));
}

#[test]
fn of_a_document_that_cannot_be_read_an_error_tells_the_place_alone() {
    let error = Document::parse("<domain>\n\t<os>\n\té</secret>\n</domain>").unwrap_err();
    assert_eq!((error.line(), error.column()), (3, 3));
    let params = InvalidParams::from(error);
    assert_eq!(
        params.to_string(),
        "XML document: line 3, column 3: an end tag that does not match its start tag"
    );
}
