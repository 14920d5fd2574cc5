//! Compares the shim's verdict on a domain with that of roxmltree, which is independent of it.

use bytes::Bytes;
use sidecar_shim::hook::{Checks, HookCall};

/// The faults of what roxmltree accepts, and what the document then contains.
const STRICTER: [(&str, &str); 17] = [
    // A domain has this root, and limits.
    ("its root element is", "<"),
    ("nested more than", "<"),
    ("more than 1000 attributes", "="),
    ("where 64 others are", "xmlns:"),
    // Names of the fifth edition of XML 1.0 only, or of none.
    ("is not allowed in a name", ""),
    ("begins with U+", ""),
    // Not checked there.
    ("its XML declaration", "<?xml"),
    ("or is broken", "<?"),
    ("a processing instruction has an invalid name", "<?"),
    ("a colon has no name on either side", ":"),
    ("expected `</", "</:"),
    ("duplicate attribute `xmlns", "xmlns"),
    ("is declared with an empty namespace", "xmlns:"),
    ("is not a valid URI", "xmlns"),
    ("is reserved", "xmlns"),
    ("has an `xml:id`", "xml:id"),
    // A number that is no character.
    ("an unknown reference", "&#"),
];

/// Panics if one accepts what the other refuses, for another reason than those. Returns the shim's
/// verdict.
pub(crate) fn compare(text: &str) -> Result<(), String> {
    let domain = Bytes::from_static(b"<domain/>");
    let call = HookCall::on_define_domain(&Bytes::from_static(b"{}"), "domain", domain);
    let output = Bytes::copy_from_slice(text.as_bytes());
    let ours = call.and_then(|call| call.check(output, Checks::WellFormed));
    match (&ours, roxmltree::Document::parse(text)) {
        (Ok(_), Err(fault)) => panic!("only roxmltree refuses it ({fault}): {text:?}"),
        (Err(fault), Ok(_)) => {
            let fault = fault.to_string();
            let is_stricter =
                STRICTER.iter().any(|(reason, part)| fault.contains(reason) && text.contains(part));
            assert!(is_stricter, "only the shim refuses it ({fault}): {text:?}");
        }
        _ => {}
    }
    ours.map(|_| ()).map_err(|fault| fault.to_string())
}
