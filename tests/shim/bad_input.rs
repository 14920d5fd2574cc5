//! Invalid requests and invalid answers: a clear status, and the next call works.

use serde_json::json;
use tonic::Code;

use crate::support::{DOMAIN, ECHO, Shim};

#[tokio::test]
async fn invalid_documents_are_refused_in_both_modes() {
    let exec = Shim::builder().program("onDefineDomain", ECHO).start().await;
    let persistent = Shim::persistent("").start().await;
    for shim in [&exec, &persistent] {
        for (vmi, domain, expected) in [
            (&b"not json"[..], DOMAIN.as_bytes(), "vmi is not a JSON object: it begins with `n`"),
            (b"", DOMAIN.as_bytes(), "vmi is empty"),
            (b"[1]", DOMAIN.as_bytes(), "vmi is not a JSON object: it begins with `[`"),
            (
                b"{\"a\":secret}",
                DOMAIN.as_bytes(),
                "vmi is not JSON: expected value at line 1 column 6",
            ),
            (b"{} {}", DOMAIN.as_bytes(), "vmi is not JSON: trailing characters"),
            (
                b"{\"a\":\"\xff\"}",
                DOMAIN.as_bytes(),
                "vmi is not JSON in UTF-8: bad byte at offset 6",
            ),
            (b"{}", b"<domain>\xe9</domain>", "domainXML is not UTF-8: bad byte at offset 8"),
            (b"{}", b"<domain>\0</domain>", "domainXML contains a NUL character at offset 8"),
        ] {
            let client = shim.dial().await;
            let answer = client.define("v1alpha2", vmi.to_vec(), domain.to_vec()).await;
            let status = answer.expect_err(expected);
            assert_eq!(status.code(), Code::InvalidArgument, "{expected}");
            assert!(status.message().contains(expected), "{status:?}");
            assert!(!status.message().contains("secret"), "{status:?}");
            shim.still_works().await;
        }
    }
}

#[tokio::test]
async fn a_request_over_the_frame_limit_is_refused_with_the_limit() {
    for args in ["", "--attachments"] {
        let shim = Shim::persistent(args).start().await;
        let client = shim.dial().await;
        let big = format!("<domain>{}</domain>", "x".repeat(16_777_216));
        let status = client.define("v1alpha3", "{}", big).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(
            status
                .message()
                .contains("a frame of the worker protocol holds at most 16777215 bytes"),
            "{status:?}"
        );
        shim.still_works().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_for_kubevirt_is_an_error_that_says_so() {
    let shim = Shim::persistent("--attachments").start().await;
    let client = shim.dial().await;
    let body = "x".repeat(4_194_304);
    let domain = format!("<domain>{body}</domain>");
    let status = client.define("v1alpha3", "{}", domain).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("KubeVirt accepts at most 4194304 bytes"), "{status:?}");
    shim.still_works().await;
}

#[tokio::test]
async fn cloud_init_data_is_checked_both_ways() {
    let shim = Shim::persistent("").start().await;
    let call = async |vmi: serde_json::Value, data: &'static str| {
        shim.dial().await.cloud_init("v1alpha3", &vmi, data, "").await.unwrap_err()
    };
    let status = call(json!({}), "").await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("cloudInitData is empty"), "{status:?}");
    for (value, expected) in [
        (json!([1]), "cloudInitData is not a JSON object"),
        (json!("secret"), "cloudInitData is not a JSON object"),
        (
            json!({"UserData": {"password": "secret"}}),
            "cloudInitData has an object in UserData, where KubeVirt reads a string",
        ),
    ] {
        let status = call(json!({"do": "answer", "value": value}), "{}").await;
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert!(status.message().contains(expected), "{status:?}");
        assert!(!status.message().contains("secret"), "{status:?}");
    }
    shim.still_works().await;
}

#[tokio::test]
async fn a_hook_that_the_worker_has_not_declared_is_unimplemented() {
    let shim = Shim::persistent("--hooks preCloudInitIso").start().await;
    let status = shim.fails(&json!({})).await;
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("the worker declares preCloudInitIso"), "{status:?}");
}

#[tokio::test]
async fn long_stderr_still_fits_a_status() {
    let lines: Vec<_> = (0..50).map(|number| format!("{number} {}", "é".repeat(400))).collect();
    let shim = Shim::persistent("").start().await;
    let status = shim.fails(&json!({"do": "exit", "status": 1, "stderr": lines})).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("exited with status 1"), "{status:?}");
    assert!(status.message().contains("\n[…]\n"), "{status:?}");
    assert!(status.message().len() <= 6400);
}
