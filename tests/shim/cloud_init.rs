//! Cloud-init data that hooks return: what KubeVirt cannot decode is refused by its true reason, in
//! both modes.

use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::support::Shim;

const SENT: &str = r##"{"DataSource":"noCloud","NoCloudMetaData":{"instance-id":"i"},
"ConfigDriveMetaData":null,"UserData":"#cloud-config\n","NetworkData":"","DevicesData":null,
"VolumeName":"v"}"##;

/// Prints, byte for byte, the file that the VMI names: the VMI is the script's second argument.
const PRINT: &str = "#!/bin/sh\nfile=${2#*\\\"file\\\":\\\"}\nexec cat \"${file%%\\\"*}\"\n";

/// Answers, and what the refusal says of them.
const REFUSED: &[(&[u8], &str)] = &[
    (
        // An untyped language turned null into a string.
        br#"{"DataSource":"noCloud","NoCloudMetaData":{"instance-id":"i"},
"ConfigDriveMetaData":"null","UserData":"s3cr3t","NetworkData":"","DevicesData":"null"}"#,
        "cloudInitData has a string in ConfigDriveMetaData, where KubeVirt reads an object or null",
    ),
    (
        br#"{"UserData":"s3cr3t","ConfigDriveMetaData":{"devices":[{"numaNode":"s3cr3t"}]}}"#,
        "cloudInitData has a string in ConfigDriveMetaData.devices[0].numaNode, where KubeVirt \
         reads a whole number",
    ),
    (
        br#"{"UserData":{"password":"s3cr3t"}}"#,
        "cloudInitData has an object in UserData, where KubeVirt reads a string",
    ),
    (b"{}", "cloudInitData has no field that KubeVirt reads"),
    (br#"{"s3cr3t":1}"#, "cloudInitData has no field that KubeVirt reads"),
    (br#"{"DataSource":"noCloud"}"#, "cloudInitData has no UserData, although the request has"),
    (br#"{"DataSource":"s3cr3t","UserData":null}"#, "has no UserData, although the request has"),
    (br#"{"UserData":"s3cr3t \ud83d"}"#, "half of a surrogate pair in a string"),
    (b"[]", "cloudInitData is not a JSON object: it begins with `[`"),
];

/// Answers that KubeVirt decodes.
const TAKEN: &[&str] = &[
    r#"{"UserData":""}"#,
    r#"{"userdata":"u","DataSource":null,"Other":7,"ConfigDriveMetaData":null}"#,
    r#"{"UserData":"u","ConfigDriveMetaData":{"devices":[{"numaNode":1,"tags":null}]}}"#,
];

/// Lets a script print an answer.
async fn printed(shim: &Shim, answer: &[u8]) -> Result<[String; 2], Status> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("answer");
    std::fs::write(&file, answer).unwrap();
    shim.dial().await.cloud_init("v1alpha2", &json!({"file": file}), SENT, "").await
}

/// Returns a VMI that lets a worker send a message, and exit.
fn frame(message: &[u8]) -> Value {
    let length = u32::try_from(message.len()).unwrap();
    let frame = [&length.to_be_bytes()[..], message].concat();
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"do": "raw", "hex": hex, "exit": true})
}

/// Lets a worker send a frame that holds an answer.
async fn framed(shim: &Shim, answer: &[u8]) -> Result<[String; 2], Status> {
    let message =
        [&br#"{"jsonrpc":"2.0","id":2,"result":{"cloudInitData":"#[..], answer, b"}}"].concat();
    shim.dial().await.cloud_init("v1alpha3", &frame(&message), SENT, "").await
}

#[track_caller]
fn assert_refused(answer: Result<[String; 2], Status>, expected: &str) {
    let status = answer.expect_err(expected);
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains(expected), "{expected}: {status:?}");
    assert!(!status.message().contains("s3cr3t"), "{status:?}");
}

#[tokio::test]
async fn what_kubevirt_cannot_decode_is_refused_in_exec_mode() {
    let shim = Shim::builder().program("preCloudInitIso", PRINT).start().await;
    for (answer, expected) in REFUSED {
        assert_refused(printed(&shim, answer).await, expected);
    }
    let latin1 = b"{\"UserData\":\"\xe9\"}";
    assert_refused(
        printed(&shim, latin1).await,
        "cloudInitData is not JSON in UTF-8: bad byte at offset 13",
    );
    for answer in TAKEN {
        assert_eq!(printed(&shim, answer.as_bytes()).await.unwrap()[0], *answer);
    }
    let [data, source] = printed(&shim, SENT.as_bytes()).await.unwrap();
    assert_eq!(data, SENT);
    assert_eq!(source, r##"{"userData":"#cloud-config\n"}"##);
}

#[tokio::test]
async fn what_kubevirt_cannot_decode_is_refused_in_persistent_mode() {
    let shim = Shim::persistent("").start().await;
    for (answer, expected) in REFUSED {
        assert_refused(framed(&shim, answer).await, expected);
    }
    let latin1 = b"{\"UserData\":\"\xe9\"}";
    assert_refused(
        framed(&shim, latin1).await,
        "a message is not JSON in UTF-8: bad byte at offset",
    );
    for answer in TAKEN {
        let value: Value = serde_json::from_str(answer).unwrap();
        let vmi = json!({"do": "answer", "value": value.clone()});
        let [data, _] = shim.dial().await.cloud_init("v1alpha3", &vmi, SENT, "").await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), value);
    }
}

#[tokio::test]
async fn a_domain_with_half_of_a_surrogate_pair_is_refused_by_that_reason() {
    let shim = Shim::persistent("").start().await;
    let message =
        br#"{"jsonrpc":"2.0","id":2,"result":{"domain":"<domain>s3cr3t \ud83d</domain>"}}"#;
    let status = shim.fails(&frame(message)).await;
    assert!(status.message().contains("half of a surrogate pair"), "{status:?}");
    assert!(!status.message().contains("s3cr3t"), "{status:?}");
}
