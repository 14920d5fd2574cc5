//! The check of a domain and an independent parser of XML give the same verdict on any text, and the
//! fault is short.

#![no_main]

#[path = "../../tests/common/xml.rs"]
mod xml;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(fault) = xml::compare(text) {
        // At most two names, of which 120 characters are shown.
        assert!(fault.len() < 2 * 120 * 4 + 200, "{fault}");
        assert!(!fault.contains(char::is_control), "{fault:?}");
    }
});
