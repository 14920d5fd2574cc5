use kubevirt_hook::{
    Call, Result,
    serde_json::{Value, json},
};

use super::set_timezone;

fn set(timezone: &str, data: &Value) -> Result<Option<Value>> {
    let annotations = json!({"example.org/timezone": timezone});
    let call = Call::builder(json!({"metadata": {"annotations": annotations}})).build();
    set_timezone(&call, data.clone())
}

fn data() -> Value {
    json!({"DataSource": "noCloud", "UserData": "#cloud-config\nhostname: vm1\n"})
}

#[test]
fn the_time_zone_is_added_and_stays() {
    let once = set("Europe/Lisbon", &data()).unwrap().unwrap();
    let user_data = once["UserData"].as_str().unwrap();
    for line in ["hostname: vm1\n", "timezone: \"Europe/Lisbon\"\n"] {
        assert!(user_data.contains(line), "{user_data}");
    }
    assert_eq!(set("Europe/Lisbon", &once).unwrap(), Some(once));
}

#[test]
fn without_the_annotation_nothing_changes() {
    let call = Call::builder(json!({"metadata": {}})).build();
    assert_eq!(set_timezone(&call, data()).unwrap(), None);
}

#[test]
fn what_is_not_a_name_is_refused() {
    let error = set("\"\nruncmd", &data()).unwrap_err();
    assert!(error.refused().is_some());
}
