//! The runner of `sdk/vectors/random_edits.py`: reads cases from stdin, one in each line, and
//! prints the documents that they end with.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "this is for tests alone"
)]

#[path = "../support/edits.rs"]
mod edits;

use std::panic::{self, AssertUnwindSafe};

use kubevirt_hook::serde_json::{self, json, Value};
use kubevirt_hook::xml::Document;

use edits::Editing;

/// Plays a case. The error says which step fails, or finds something else.
fn play(case: &Value) -> Result<String, String> {
    let document = Document::parse(case["document"].as_str().unwrap());
    let document = document.map_err(|error| format!("the document: {error}"))?;
    let mut editing = Editing::start(&document, &case["namespaces"]).map_err(|it| it.message)?;
    for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| editing.step(step)));
        let outcome = outcome.map_err(|_| "a panic, printed above".to_owned());
        let outcome = outcome.and_then(|outcome| outcome.map_err(|fault| format!("{fault:?}")));
        outcome.map_err(|why| format!("step {}: {why}", number + 1))?;
    }
    let text = document.to_string();
    let is_changed = text != case["document"].as_str().unwrap();
    if document.changed().is_some() != is_changed {
        return Err("the editor says the wrong thing about whether there is a change".to_owned());
    }
    Ok(text)
}

fn main() {
    for line in std::io::stdin().lines() {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        println!(
            "{}",
            match play(&case) {
                Ok(document) => json!({"document": document}),
                Err(error) => json!({"error": error}),
            }
        );
    }
}
