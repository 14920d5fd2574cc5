use kubevirt_hook::{Call, serde_json::json};

use super::check_rack;

fn call(rack: &str) -> Call {
    Call::builder(json!({"metadata": {"annotations": {"example.org/rack": rack}}})).build()
}

#[test]
fn a_vm_starts_in_its_rack() {
    check_rack(&call("rack1"), "rack1-node01").unwrap();
}

#[test]
fn without_the_annotation_a_vm_starts_anywhere() {
    let call = Call::builder(json!({"metadata": {}})).build();
    check_rack(&call, "rack2-node01").unwrap();
}

#[test]
fn in_another_rack_it_is_refused() {
    let error = check_rack(&call("rack1"), "rack10-node01").unwrap_err();
    assert!(error.refused().is_some());
}
