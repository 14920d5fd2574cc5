//! Persistent mode: the worker protocol, as a caller and as a worker see it.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{DOMAIN, Shim, comment, domain_of, exists, gone};

#[tokio::test]
async fn documents_of_every_size_come_back_unchanged() {
    for args in ["", "--attachments"] {
        let shim = Shim::persistent(args).start().await;
        for bytes in [8_000, 131_071, 131_072, 1_000_000, 4_000_000] {
            let domain = domain_of(bytes);
            let answer = shim.define(&json!({}), &domain).await.unwrap();
            assert!(answer == domain, "{bytes} bytes came back as {}", answer.len());
            let vmi = json!({"do": "unchanged", "filler": "x".repeat(bytes)});
            assert!(shim.define(&vmi, &domain).await.unwrap() == domain);
        }
    }
}

#[tokio::test]
async fn white_space_and_unicode_pass_through() {
    let domain = "<?xml version='1.0'?>\r\n\n<domain>\t é \u{1f600} \u{2028} &#10; \\u0041 \"'\n</domain>\n\n";
    for args in ["", "--attachments"] {
        let shim = Shim::persistent(args).start().await;
        assert_eq!(shim.define(&json!({}), domain).await.unwrap(), domain);
        assert_eq!(shim.define(&json!({"do": "unchanged"}), domain).await.unwrap(), domain);
    }
}

#[tokio::test]
async fn a_worker_is_reused_and_its_request_ids_increase_by_one() {
    let shim = Shim::persistent("").start().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap()));
    }
    assert!(seen.iter().all(|about| about["pid"] == seen[0]["pid"]), "{seen:?}");
    let ids: Vec<_> = seen.iter().map(|about| about["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [2, 3, 4]);
}

#[tokio::test]
async fn a_call_contains_the_vmi_as_it_came_and_the_time_left() {
    let shim = Shim::persistent("").args(["--call-timeout", "5s"]).start().await;
    let vmi = r#" {"do": "params", "metadata": {"name": "vm1"}, "n": 1e3, "u": "\u00e9"} "#;
    let answer = shim.dial().await.define("v1alpha3", vmi, DOMAIN).await.unwrap();
    let params = comment(&answer);
    assert_eq!(params["vmi"], serde_json::from_str::<Value>(vmi).unwrap());
    assert_eq!(params["invocation"]["attempt"], 1);
    let left = params["invocation"]["deadlineMs"].as_u64().unwrap();
    assert!((1..=5000).contains(&left), "{left}");
}

#[tokio::test]
async fn errors_of_the_worker_become_statuses() {
    let shim = Shim::persistent("").start().await;
    for (code, expected, text) in [
        (-32000, Code::FailedPrecondition, "hook onDefineDomain refused: disk vda is not allowed"),
        (-32602, Code::InvalidArgument, "cannot use these documents: disk vda is not allowed"),
        (-32601, Code::Unimplemented, "disk vda is not allowed"),
        (-32603, Code::Internal, "hook onDefineDomain failed: disk vda is not allowed"),
        (-1, Code::Internal, "disk vda is not allowed (error -1)"),
    ] {
        let error = json!({"code": code, "message": "disk vda is not allowed"});
        let status = shim.fails(&json!({"do": "error", "error": error})).await;
        assert_eq!(status.code(), expected, "{code}");
        assert!(status.message().contains(text), "{code} gives {status:?}");
    }
    assert_same_worker(&shim, 7).await;
}

/// Asserts that the worker is still the first one: then its next call has this id.
async fn assert_same_worker(shim: &Shim, next_id: u64) {
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    assert_eq!(about["id"], next_id, "the worker was replaced");
}

#[tokio::test]
async fn an_invalid_result_is_explained_and_the_worker_is_kept() {
    let shim = Shim::persistent("").start().await;
    let cases = [
        (json!({}), "neither the field \"domain\" nor \"unchanged\":true"),
        (json!({"unchanged": false}), "neither the field \"domain\""),
        (json!({"unchanged": true, "domain": "<domain/>"}), "must have exactly one of"),
        (json!({"domain": 5}), "has the wrong"),
        (json!("secret"), "has the wrong"),
        (json!({"domain": ""}), "domain is empty"),
        (json!({"domain": "<domain>"}), "ends before all elements are closed at line 1, column 9"),
        (json!({"domain": "<vm>secret</vm>"}), "its root element is `vm`"),
    ];
    let count = cases.len() as u64;
    for (value, expected) in cases {
        let status = shim.fails(&json!({"do": "result", "value": value})).await;
        assert_eq!(status.code(), Code::Internal, "{value}");
        assert!(status.message().contains(expected), "{value} gives {status:?}");
        assert!(!status.message().contains("secret"), "{value} gives {status:?}");
    }
    assert_same_worker(&shim, count + 2).await;
}

#[tokio::test]
async fn the_exit_of_a_worker_is_explained_and_it_is_replaced() {
    let mut shim = Shim::persistent("").start().await;
    let vmi = json!({"do": "exit", "status": 3, "stderr": ["Traceback", "KeyError: 'spec'"]});
    let status = shim.fails(&vmi).await;
    assert_eq!(status.code(), Code::Internal);
    assert!(
        status.message().ends_with(
            "worker.py exited with status 3; the last lines of its stderr:\nTraceback\n\
             KeyError: 'spec'"
        ),
        "{status:?}"
    );
    shim.still_works().await;
    let status = shim.fails(&json!({"do": "kill"})).await;
    assert!(status.message().contains("was killed by SIGKILL"), "{status:?}");
    shim.still_works().await;
    shim.log_line("worker lost").await;
}

#[tokio::test]
async fn a_call_whose_worker_exits_is_retried_once() {
    let mut shim = Shim::persistent("").args(["--max-workers", "1"]).start().await;
    let answer = shim.define(&json!({"do": "exit at first"}), DOMAIN).await.unwrap();
    assert_eq!(comment(&answer)["attempt"], 2);
    shim.log_line("worker lost").await;
    shim.fails(&json!({"do": "exit", "status": 3})).await;
    shim.still_works().await;
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    assert_eq!(shim.count("worker lost"), 3, "one for the first call, two for the second");
}

#[tokio::test]
async fn an_answer_is_accepted_even_if_the_worker_exits_after_it() {
    let shim = Shim::persistent("").start().await;
    for _ in 0..5 {
        let answer = shim.define(&json!({"do": "answer and exit"}), DOMAIN).await;
        assert_eq!(answer.unwrap(), DOMAIN);
    }
}

#[tokio::test]
async fn breaking_the_protocol_is_explained_and_the_worker_is_replaced() {
    let frame = |text: &str| {
        let bytes = text.as_bytes();
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        hex(&length) + &hex(bytes)
    };
    let shim = Shim::persistent("").start().await;
    for (vmi, expected) in [
        (json!({"do": "wrong id"}), "a response to request 1002, which is not open"),
        (json!({"do": "raw", "hex": "00000000"}), "a frame of length 0"),
        (json!({"do": "raw", "hex": "0000000973", "exit": true}), "inside a frame: 5 of 13 bytes"),
        (json!({"do": "raw", "hex": frame("secret")}), "a message is not JSON"),
        (json!({"do": "raw", "hex": frame("[\"secret\"]")}), "has the wrong"),
        (
            json!({"do": "raw", "hex": frame("{\"id\":2,\"result\":{}}")}),
            "without \"jsonrpc\":\"2.0\"",
        ),
        (
            json!({"do": "raw", "hex": frame("{\"jsonrpc\":\"2.0\",\"id\":2}")}),
            "either \"result\" or \"error\"",
        ),
        (
            json!({"do": "raw", "hex": frame("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{},\"attachments\":[\"secret\"]}")}),
            "an attachment whose name is not one of domain, vmi, cloudInitData",
        ),
        (json!({"do": "flood", "bytes": 70_000}), "more than 65536 bytes of stray output"),
    ] {
        let status = shim.fails(&vmi).await;
        assert_eq!(status.code(), Code::Internal, "{vmi}");
        let message = status.message();
        assert!(
            message.contains("broke the worker protocol") && message.contains(expected),
            "{vmi} gives {message}"
        );
        assert!(!message.contains("secret"), "{vmi} gives {message}");
        shim.still_works().await;
    }
}

#[tokio::test]
async fn a_worker_that_answers_twice_is_replaced_and_no_call_fails() {
    let mut shim = Shim::persistent("").start().await;
    for _ in 0..3 {
        assert_eq!(shim.define(&json!({"do": "twice"}), DOMAIN).await.unwrap(), DOMAIN);
        shim.log_line("hook worker failed").await;
    }
}

#[tokio::test]
async fn text_on_stdout_is_skipped_and_logged_without_documents() {
    let mut shim = Shim::persistent("--start print").start().await;
    let vmi = json!({"do": "print", "text": "the domain is <domain>secret</domain>\n"});
    assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), DOMAIN);
    let is_skip = |line: &&Value| line["msg"].as_str().is_some_and(|it| it.starts_with("skipped"));
    let line = shim.lines.iter().find(is_skip).unwrap();
    assert_eq!((line["bytes"].as_u64(), line["lines"].as_u64()), (Some(21), Some(1)), "{line}");
    let line = shim.log_line("skipped text").await;
    assert_eq!((line["bytes"].as_u64(), line["lines"].as_u64()), (Some(38), Some(1)), "{line}");
    shim.assert_not_logged("secret");
}

#[tokio::test]
async fn log_notifications_become_log_lines() {
    let mut shim = Shim::persistent("").args(["--log-level", "debug"]).start().await;
    let lines: Vec<_> = ["debug", "info", "warning", "error", "shout"]
        .iter()
        .map(|level| json!({"level": level, "message": format!("a line of level {level}")}))
        .collect();
    shim.define(&json!({"do": "log", "lines": lines}), DOMAIN).await.unwrap();
    for (said, level) in [
        ("debug", "debug"),
        ("info", "info"),
        ("warning", "warning"),
        ("error", "error"),
        ("shout", "info"),
    ] {
        let line = shim.log_line(&format!("a line of level {said}")).await;
        assert_eq!(line["level"], level);
        assert_eq!(
            (line["hook"].as_str(), line["call"].as_u64()),
            (Some("onDefineDomain"), Some(1))
        );
    }
}

#[tokio::test]
async fn log_lines_have_the_hooks_own_fields() {
    let fields = json!({"disk": "vda\u{1b}", "level": "error", "pid": 1, "ok": true});
    let lines =
        [json!({"message": "with fields", "fields": fields}), json!({"message": "without"})];
    let vmi = json!({"do": "log", "lines": lines});
    let mut shim = Shim::persistent("").start().await;
    shim.define(&vmi, DOMAIN).await.unwrap();
    let line = shim.log_line("with fields").await;
    let logged = json!({"disk": "vda\\u{1b}", "level": "error", "pid": 1, "ok": true});
    assert_eq!((&line["fields"], &line["level"]), (&logged, &json!("info")), "{line}");
    assert_eq!(shim.log_line("without").await.get("fields"), None);

    let mut shim = Shim::persistent("").args(["--log-format", "text"]).start().await;
    shim.define(&vmi, DOMAIN).await.unwrap();
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    let text = shim.lines.iter().filter_map(Value::as_str).find(|it| it.contains("with fields"));
    let text = text.unwrap();
    assert!(text.contains(r#" disk="vda\\u{1b}""#) && text.contains(" ok=true"), "{text}");
}

#[tokio::test]
async fn a_worker_learns_the_log_level_and_says_what_it_is() {
    for level in ["debug", "info"] {
        let mut shim = Shim::persistent("").args(["--log-level", level]).start().await;
        shim.define(&json!({"do": "log level"}), DOMAIN).await.unwrap();
        shim.log_line(&format!("asked for {level}")).await;
        if level == "debug" {
            shim.assert_logged("the worker is ready");
            let ready = shim.lines.iter().find(|it| it["msg"] == "the worker is ready").unwrap();
            let said = (&ready["program"], &ready["sdk"]);
            assert_eq!(said, (&json!("fixture 1\\u{1b}"), &json!("none")));
        }
    }
}

#[tokio::test]
async fn stderr_is_drained_regardless_of_its_contents() {
    let mut shim = Shim::persistent("").start().await;
    // One line of 1 MB, without a line break before the next call.
    let vmi = json!({"do": "stderr", "text": "0123456789", "times": 100_000});
    shim.define(&vmi, DOMAIN).await.unwrap();
    let vmi = json!({"do": "stderr", "text": "\nlast line\n"});
    shim.define(&vmi, DOMAIN).await.unwrap();
    let line = shim.log_line("0123456789").await;
    let text = line["msg"].as_str().unwrap();
    assert!(text.ends_with("[991842 more bytes]") && text.len() <= 8192, "{}", text.len());
    let line = shim.log_line("last line").await;
    assert_eq!((&line["hook"], &line["call"]), (&json!("onDefineDomain"), &json!(2)), "{line}");
    assert!(line["worker"].as_str().unwrap().contains("worker.py"), "{line}");
}

#[tokio::test]
async fn a_request_from_a_worker_gets_an_error() {
    let shim = Shim::persistent("").start().await;
    let reply = comment(&shim.define(&json!({"do": "ask"}), DOMAIN).await.unwrap());
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!("q-1"), &json!(-32601)));
}

#[tokio::test]
async fn as_many_calls_run_at_once_as_there_are_workers() {
    let shim = Shim::persistent("").args(["--max-workers", "3"]).start().await;
    assert_eq!(processes_of(&shim, 3).await, 3, "three workers for three calls");
}

#[tokio::test]
async fn one_worker_that_declares_concurrency_runs_calls_at_once() {
    let shim = Shim::persistent("--concurrency 3").start().await;
    assert_eq!(processes_of(&shim, 3).await, 1, "one worker for three calls");
}

/// Puts calls in flight at the same time, and returns the number of processes that ran them.
async fn processes_of(shim: &Shim, calls: usize) -> usize {
    let mut in_flight = Vec::new();
    for _ in 0..calls {
        in_flight.push(shim.call_in_flight().await);
    }
    let mut pids = BTreeSet::new();
    for call in in_flight {
        pids.insert(comment(&call.finish().await.unwrap()).as_u64().unwrap());
    }
    pids.len()
}

#[tokio::test]
async fn a_call_beyond_the_queue_is_refused_at_once() {
    let args = ["--max-workers", "1", "--queue-limit", "0"];
    let shim = Shim::persistent("").args(args).start().await;
    shim.still_works().await;
    let busy = shim.call_in_flight().await;
    let status = shim.fails(&json!({})).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("--queue-limit"), "{status:?}");
    busy.finish().await.unwrap();
    shim.still_works().await;
}

#[tokio::test]
async fn a_worker_that_never_stops_sending_requests_is_stopped() {
    let shim = Shim::persistent("").start().await;
    let status = shim.fails(&json!({"do": "keep asking"})).await;
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("it sends requests and does not read"), "{status:?}");
    shim.still_works().await;
}

#[tokio::test]
async fn a_worker_that_closes_its_stdin_is_detected_before_the_deadline() {
    let mut shim = Shim::persistent("--start close-stdin").start().await;
    let status = shim.fails(&json!({})).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("3 workers in a row stopped before they"), "{status:?}");
    shim.log_line("it closed its stdin").await;
}

#[tokio::test]
async fn a_log_line_or_message_that_cannot_be_decoded_fails_nothing_else() {
    let mut shim = Shim::persistent("").start().await;
    // A byte that is not UTF-8, as Python's JSON encoder writes it.
    let frame = |json: &str| {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        let bytes = length.iter().chain(json.as_bytes());
        bytes.map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let log = r#"{"jsonrpc":"2.0","method":"$/log","params":{"message":"secret \udc80"}}"#;
    let error = r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"secret \udc80"}}"#;
    let status = shim.fails(&json!({"do": "raw", "hex": frame(log) + &frame(error)})).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().ends_with("(a message that cannot be read)"), "{status:?}");
    let line = shim.log_line("a log line is not JSON in Unicode: it has half of a surrogate").await;
    assert_eq!(line["level"], "warning");
    shim.assert_not_logged("secret");
}

#[tokio::test]
async fn a_very_long_message_is_truncated() {
    let mut shim = Shim::persistent("").start().await;
    let error = json!({"code": -32000, "message": "long ".repeat(100_000)});
    let status = shim.fails(&json!({"do": "error", "error": error})).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().len() <= 6 * 1024 && status.message().ends_with("[…]"));
    let line = shim.log_line("call failed").await;
    let text = line["msg"].as_str().unwrap();
    assert!(text.len() < 10_000 && text.ends_with("[…]"), "{text}");
}

#[tokio::test]
async fn a_long_message_keeps_its_first_and_its_last_lines() {
    let mut shim = Shim::persistent("").start().await;
    let trace: String = (0..100).map(|n| format!("{n:0900}\n")).collect();
    let message = format!("KeyError\n{trace}KeyError: 'vda'");
    let error = json!({"code": -32603, "message": message});
    let status = shim.fails(&json!({"do": "error", "error": error})).await;
    let line = shim.log_line("call failed").await;
    for text in [status.message(), line["msg"].as_str().unwrap()] {
        assert!(text.contains("failed: KeyError\n[…]\n"), "{text}");
        assert!(text.ends_with("0099\nKeyError: 'vda' (error -32603)"), "{text}");
    }
}

#[tokio::test]
async fn an_error_contains_no_lines_of_earlier_calls() {
    let mut shim = Shim::persistent("").start().await;
    shim.define(&json!({"do": "stderr", "text": "about another VM\n"}), DOMAIN).await.unwrap();
    shim.log_line("about another VM").await;
    let status = shim.hangs().await;
    assert!(!status.message().contains("another VM"), "{status:?}");
    assert!(status.message().ends_with("hanging"), "{status:?}");
}

#[tokio::test]
async fn a_worker_that_hangs_is_stopped_at_the_deadline_and_replaced() {
    let args = ["--max-workers", "1", "--kill-grace", "100ms"];
    let mut shim = Shim::persistent("").args(args).start().await;
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    let status = shim.hangs().await;
    // Before the caller's own deadline, after which it would not see an explanation.
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("did not answer within 0.9 s"), "{status:?}");
    assert!(status.message().ends_with("stderr:\nhanging"), "{status:?}");
    shim.log_line("worker lost").await;
    assert!(!exists(about["pid"].as_u64().unwrap()), "it is reaped");
    let next = shim.dial().await;
    let about_next = next.define("v1alpha3", json!({"do": "about"}).to_string(), DOMAIN).await;
    assert_ne!(comment(&about_next.unwrap())["pid"], about["pid"]);
}

#[tokio::test]
async fn the_shims_own_limit_applies_if_it_is_shorter() {
    for (limit, expected) in [
        ("700ms", "did not answer within 0.7 s"),
        ("1us", "was not called: no time was left when the request had arrived; the shim replies"),
    ] {
        let args = ["--call-timeout", limit, "--kill-grace", "100ms"];
        let shim = Shim::persistent("").args(args).start().await;
        let status = shim.fails(&json!({"do": "hang"})).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(status.message().contains(expected), "{status:?}");
        let names_it = status.message().contains("--call-timeout");
        assert_eq!(names_it, limit == "1us", "{status:?}");
    }
}

#[tokio::test]
async fn a_process_that_a_dead_worker_leaves_behind_delays_nothing() {
    let mut shim = Shim::persistent("").start().await;
    let status = shim.fails(&json!({"do": "orphan", "status": 4})).await;
    assert!(status.message().contains("exited with status 4"), "{status:?}");
    shim.still_works().await;
    let line = shim.log_line("orphan ").await;
    let orphan: u64 = line["msg"].as_str().unwrap()["orphan ".len()..].parse().unwrap();
    assert!(gone(orphan), "its process group was killed");
}

#[tokio::test]
async fn workers_are_stopped_by_closing_their_stdin() {
    let mut shim = Shim::persistent("").start().await;
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    shim.signal(Signal::SIGTERM);
    shim.log_line("end of file").await;
    assert_eq!(shim.exited().await.code(), Some(0));
    assert!(!exists(about["pid"].as_u64().unwrap()));
}
