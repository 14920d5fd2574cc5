//! Parts in cloud-init user data: every vector of `sdk/vectors/cloud-init.json`. `.ci/cloud-init`
//! lets cloud-init itself read their results.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use kubevirt_hook::cloud_init::{InvalidPart, Part};
use kubevirt_hook::Refused;
use serde_json::Value;

/// A text, or the list of its lines.
fn text(value: &Value) -> String {
    match value.as_array() {
        Some(lines) => lines.iter().map(|it| it.as_str().unwrap()).collect::<Vec<_>>().join("\n"),
        None => value.as_str().unwrap().to_owned(),
    }
}

fn put(user_data: &str, parts: &[Value]) -> Result<String, Box<dyn std::error::Error>> {
    let mut user_data = user_data.to_owned();
    for part in parts {
        let new = Part::new(text(&part["name"]), text(&part["content"]))?;
        let new = if part["replace"] == true { new.replacing() } else { new };
        user_data = new.put(&user_data)?;
    }
    Ok(user_data)
}

#[test]
fn every_vector() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/cloud-init.json");
    let vectors: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() > 80, "there are only {} cases", cases.len());
    for case in cases {
        let (about, parts) = (&case["about"], case["parts"].as_array().unwrap());
        let result = put(&text(&case["user_data"]), parts);
        if let Some(error) = case["error"].as_str() {
            let found = result.expect_err(case["about"].as_str().unwrap());
            assert_eq!(found.to_string(), text(&case["says"]), "{about}");
            assert_eq!(found.is::<Refused>(), error == "refused", "{about}");
            assert_eq!(found.is::<InvalidPart>(), error == "part", "{about}");
        } else {
            let result = result.unwrap();
            assert_eq!(result, text(&case["expect"]), "{about}");
            assert_eq!(put(&result, parts).unwrap(), result, "{about}, the second time");
        }
    }
}

#[test]
fn many_boundaries_in_the_user_data_take_no_more_time_than_others() {
    // A search of the whole text for each number would take minutes.
    let mut user_data = "#!".to_owned();
    for number in 0..60_000 {
        write!(user_data, "==sidecar-shim-{number}==").unwrap();
    }
    let user_data = Part::new("a", "#!").unwrap().put(&user_data).unwrap();
    assert!(user_data.lines().next().unwrap().ends_with("-60000==\""));
}
