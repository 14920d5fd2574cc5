use kubevirt_hook::{Call, serde_json::json, testing, xml::Document};

use super::{set_asset_tag, worker};

const DOMAIN: &str = r#"<domain><sysinfo type="smbios"><chassis/></sysinfo></domain>"#;

fn call(tag: &str) -> Call {
    let annotations = json!({"example.org/asset-tag": tag});
    Call::builder(json!({"metadata": {"annotations": annotations}})).build()
}

#[test]
fn the_tag_is_set() {
    let doc = Document::parse(DOMAIN).unwrap();
    set_asset_tag(&call("R&D"), &doc).unwrap();
    let tagged = r#"<chassis><entry name="asset">R&amp;D</entry></chassis>"#;
    assert_eq!(doc.to_string(), DOMAIN.replace("<chassis/>", tagged));
}

#[test]
fn on_its_own_result_nothing_changes() {
    testing::assert_idempotent(&worker(), &call("R&D"), DOMAIN);
}

#[test]
fn without_the_annotation_nothing_changes() {
    let doc = Document::parse(DOMAIN).unwrap();
    set_asset_tag(&Call::builder(json!({"metadata": {}})).build(), &doc).unwrap();
    assert_eq!(doc.changed(), None);
}

#[test]
fn a_control_character_is_refused() {
    let doc = Document::parse(DOMAIN).unwrap();
    let error = set_asset_tag(&call("a\tb"), &doc).unwrap_err();
    assert!(error.refused().is_some());
}
