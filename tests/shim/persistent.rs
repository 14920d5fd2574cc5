//! Persistent mode: the worker protocol, seen from a caller and from a worker.

use serde_json::{Value, json};
use tonic::Code;

use crate::support::{DOMAIN, Meeting, Shim, comment, domain_of, exists, worker};

#[tokio::test]
async fn documents_of_every_size_come_back_as_they_went() {
    for args in ["", "--attachments"] {
        let shim = Shim::persistent(args, &[]).await;
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
        let shim = Shim::persistent(args, &[]).await;
        assert_eq!(shim.define(&json!({}), domain).await.unwrap(), domain);
        assert_eq!(shim.define(&json!({"do": "unchanged"}), domain).await.unwrap(), domain);
    }
}

#[tokio::test]
async fn a_worker_is_kept_and_its_ids_rise_by_one() {
    let shim = Shim::persistent("", &[]).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap()));
    }
    assert!(seen.iter().all(|about| about["pid"] == seen[0]["pid"]), "{seen:?}");
    let ids: Vec<_> = seen.iter().map(|about| about["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [2, 3, 4]);
}

#[tokio::test]
async fn a_call_carries_the_vmi_as_it_came_and_the_time_left() {
    let shim = Shim::persistent("", &["--call-timeout", "5s"]).await;
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
    let shim = Shim::persistent("", &[]).await;
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

/// The worker is the first one, if its next call has this id.
async fn assert_same_worker(shim: &Shim, next_id: u64) {
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    assert_eq!(about["id"], next_id, "the worker was replaced");
}

#[tokio::test]
async fn an_unusable_result_is_told_and_the_worker_kept() {
    let shim = Shim::persistent("", &[]).await;
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
async fn a_worker_that_dies_is_told_and_replaced() {
    let mut shim = Shim::persistent("", &[]).await;
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
async fn a_call_whose_worker_dies_is_tried_once_more() {
    let mut shim = Shim::persistent("", &["--max-workers", "1"]).await;
    let answer = shim.define(&json!({"do": "exit at first"}), DOMAIN).await.unwrap();
    assert_eq!(comment(&answer)["attempt"], 2);
    shim.log_line("worker lost").await;
    let lost = |shim: &Shim| shim.log_text().matches("worker lost").count();
    shim.fails(&json!({"do": "exit", "status": 3})).await;
    shim.still_works().await;
    shim.signal(nix::sys::signal::Signal::SIGTERM);
    shim.ended().await;
    assert_eq!(lost(&shim), 3, "one for the first call, two for the second");
}

#[tokio::test]
async fn an_answer_counts_even_if_the_worker_exits_behind_it() {
    let shim = Shim::persistent("", &[]).await;
    for _ in 0..5 {
        let answer = shim.define(&json!({"do": "answer and exit"}), DOMAIN).await;
        assert_eq!(answer.unwrap(), DOMAIN);
    }
}

#[tokio::test]
async fn breaking_the_protocol_is_explained_and_the_worker_replaced() {
    let frame = |text: &str| {
        let bytes = text.as_bytes();
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        hex(&length) + &hex(bytes)
    };
    let shim = Shim::persistent("", &[]).await;
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
async fn answering_twice_costs_the_worker_and_no_call() {
    let mut shim = Shim::persistent("", &[]).await;
    for _ in 0..3 {
        assert_eq!(shim.define(&json!({"do": "twice"}), DOMAIN).await.unwrap(), DOMAIN);
        shim.log_line("hook worker failed").await;
    }
}

#[tokio::test]
async fn text_on_standard_output_is_skipped_and_logged_without_documents() {
    let mut shim = Shim::persistent("--start print", &[]).await;
    let vmi = json!({"do": "print", "text": "the domain is <domain>secret</domain>\n"});
    assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), DOMAIN);
    let is_skip = |line: &&Value| line["msg"].as_str().is_some_and(|it| it.starts_with("skipped"));
    let line = shim.lines.iter().find(is_skip).unwrap();
    assert_eq!(
        (line["bytes"].as_u64(), line["text"].as_str()),
        (Some(21), Some("\"Hello, I am a worker\\n\""))
    );
    let line = shim.log_line("skipped text").await;
    assert_eq!(
        (line["bytes"].as_u64(), line["text"].as_str()),
        (Some(38), Some("\"the domain is \""))
    );
    assert!(!shim.log_text().contains("secret"));
}

#[tokio::test]
async fn log_notifications_become_log_lines() {
    let mut shim = Shim::persistent("", &["--log-level", "debug"]).await;
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
            (Some("onDefineDomain"), Some(2))
        );
    }
}

#[tokio::test]
async fn standard_error_is_drained_whatever_stands_in_it() {
    let mut shim = Shim::persistent("", &[]).await;
    // One line of 1 MB, then a last one without an end.
    let vmi = json!({"do": "stderr", "text": "0123456789", "times": 100_000});
    shim.define(&vmi, DOMAIN).await.unwrap();
    let vmi = json!({"do": "stderr", "text": "\nlast line\n"});
    shim.define(&vmi, DOMAIN).await.unwrap();
    let line = shim.log_line("0123456789").await;
    let text = line["msg"].as_str().unwrap();
    assert!(text.ends_with("[991808 more bytes]") && text.len() < 9000, "{}", text.len());
    let line = shim.log_line("last line").await;
    assert_eq!((&line["hook"], &line["call"]), (&json!("onDefineDomain"), &json!(3)), "{line}");
    assert!(line["worker"].as_str().unwrap().contains("worker.py"), "{line}");
}

#[tokio::test]
async fn a_request_from_a_worker_gets_an_error() {
    let shim = Shim::persistent("", &[]).await;
    let reply = comment(&shim.define(&json!({"do": "ask"}), DOMAIN).await.unwrap());
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!("q-1"), &json!(-32601)));
}

#[tokio::test]
async fn calls_run_at_once_up_to_the_number_of_workers() {
    let shim = Shim::persistent("", &["--max-workers", "3"]).await;
    assert_eq!(meet(&shim, 3).await, 3, "three workers for three calls");
}

#[tokio::test]
async fn one_worker_that_declares_concurrency_runs_calls_at_once() {
    let shim = Shim::persistent("--concurrency 3", &[]).await;
    assert_eq!(meet(&shim, 3).await, 1, "one worker for three calls");
}

/// Starts calls that end only when all of them run, and returns how many processes ran them.
async fn meet(shim: &Shim, count: usize) -> usize {
    let meetings: Vec<_> = (0..count)
        .map(|number| Meeting::new(shim.dir.path().join(format!("fifo-{number}"))))
        .collect();
    let mut calls = Vec::new();
    for meeting in &meetings {
        let vmi = json!({"do": "meet", "path": meeting.0}).to_string();
        let client = shim.dial().await;
        calls.push(tokio::spawn(async move { client.define("v1alpha3", vmi, DOMAIN).await }));
    }
    let mut joined = Vec::new();
    for meeting in &meetings {
        joined.push(meeting.joined().await);
    }
    drop(joined);
    let mut pids = std::collections::BTreeSet::new();
    for call in calls {
        pids.insert(comment(&call.await.unwrap().unwrap()).as_u64().unwrap());
    }
    pids.len()
}

#[tokio::test]
async fn a_call_beyond_the_queue_is_refused_at_once() {
    let args = ["--max-workers", "1", "--queue-limit", "0"];
    let shim = Shim::persistent("", &args).await;
    shim.still_works().await;
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    let (client, vmi) = (shim.dial().await, json!({"do": "meet", "path": meeting.0}).to_string());
    let busy = tokio::spawn(async move { client.define("v1alpha3", vmi, DOMAIN).await });
    let joined = meeting.joined().await;
    let status = shim.fails(&json!({})).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("--queue-limit"), "{status:?}");
    drop(joined);
    busy.await.unwrap().unwrap();
    shim.still_works().await;
}

#[tokio::test]
async fn a_worker_that_asks_on_and_on_is_ended() {
    let shim = Shim::persistent("", &[]).await;
    let status = shim.fails(&json!({"do": "ask on"})).await;
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("it sends requests and does not read"), "{status:?}");
    shim.still_works().await;
}

#[tokio::test]
async fn a_worker_that_closes_its_standard_input_is_found_out_before_the_deadline() {
    let shim = Shim::persistent("--start deaf", &[]).await;
    let status = shim.fails(&json!({})).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("closed its stdin"), "{status:?}");
}

#[tokio::test]
async fn a_log_line_or_message_that_cannot_be_read_costs_nothing_but_itself() {
    let mut shim = Shim::persistent("", &[]).await;
    // What Python makes of a byte that is no text.
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
    let line = shim.log_line("a log line is not JSON").await;
    assert_eq!(line["level"], "warning");
    assert!(!shim.log_text().contains("secret"));
}

#[tokio::test]
async fn a_message_without_end_is_cut() {
    let mut shim = Shim::persistent("", &[]).await;
    let error = json!({"code": -32000, "message": "long ".repeat(100_000)});
    let status = shim.fails(&json!({"do": "error", "error": error})).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().len() < 4096);
    let line = shim.log_line("call failed").await;
    assert!(line["msg"].as_str().unwrap().len() < 10_000);
}

#[tokio::test]
async fn an_error_holds_no_lines_of_earlier_calls() {
    let mut shim = Shim::persistent("", &[]).await;
    shim.define(&json!({"do": "stderr", "text": "about another VM\n"}), DOMAIN).await.unwrap();
    shim.log_line("about another VM").await;
    let status = shim.hangs().await;
    assert!(!status.message().contains("another VM"), "{status:?}");
    assert!(status.message().ends_with("hanging"), "{status:?}");
}

#[tokio::test]
async fn a_worker_that_hangs_is_ended_at_the_deadline_and_replaced() {
    let args = ["--max-workers", "1", "--kill-grace", "100ms"];
    let mut shim = Shim::persistent("", &args).await;
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    let status = shim.hangs().await;
    // Before the caller itself gives up, which would leave it without a word of explanation.
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
async fn the_shims_own_limit_counts_where_it_is_shorter() {
    let shim = Shim::persistent("", &["--call-timeout", "700ms", "--kill-grace", "100ms"]).await;
    let status = shim.fails(&json!({"do": "hang"})).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("did not answer within 0.7 s"), "{status:?}");
}

#[tokio::test]
async fn a_process_that_a_dead_worker_leaves_behind_holds_nothing_up() {
    let mut shim = Shim::persistent("", &[]).await;
    let status = shim.fails(&json!({"do": "orphan", "status": 4})).await;
    assert!(status.message().contains("exited with status 4"), "{status:?}");
    shim.still_works().await;
    let line = shim.log_line("orphan ").await;
    let orphan: u64 = line["msg"].as_str().unwrap()["orphan ".len()..].parse().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{orphan}/stat"));
    assert!(stat.is_err() || stat.unwrap().contains(") Z "), "its group was ended with it");
}

#[tokio::test]
async fn a_worker_that_does_not_come_up_ends_the_shim_and_says_how() {
    for (args, more, expected) in [
        ("--start exit", "60s", "exited with status 7 before it answered initialize"),
        ("--start hang", "300ms", "did not answer initialize within 300ms (--start-timeout)"),
        ("--start garbage", "60s", "broke the worker protocol: a message is not JSON"),
        ("--start old", "60s", "it speaks protocol versions [7, 8], and this shim speaks [1]"),
        ("--start newer", "60s", "it chose protocol version 2, and this shim speaks 1"),
        ("--hooks ''", "60s", "it declares no hooks"),
        ("--hooks '../sh'", "60s", "a hook whose name is not a lower-case letter"),
        ("--concurrency 0", "60s", "a concurrency of 0"),
        (
            "--start array",
            "60s",
            "the value of capabilities that it declares is JSON, but has the wrong",
        ),
    ] {
        let worker = worker(args);
        let args = [
            "--mode",
            "persistent",
            "--worker",
            &worker,
            "--start-timeout",
            more,
            "--kill-grace",
            "1s",
        ];
        let mut shim = Shim::spawn(&args, |_, _| {});
        assert_eq!(shim.ended().await.code(), Some(1), "{worker}");
        let text = shim.log_text();
        assert!(text.contains("cannot start hook worker: /") && text.contains(expected), "{text}");
        assert!(shim.sockets().is_empty());
    }
}

#[tokio::test]
async fn a_start_failure_shows_what_the_worker_said() {
    let worker = worker("--start exit");
    let mut shim = Shim::spawn(&["--mode", "persistent", "--worker", &worker], |_, _| {});
    shim.ended().await;
    assert!(shim.log_text().contains("no configuration file"), "{}", shim.log_text());
    for (worker, expected) in [
        (
            "no-such-program",
            "cannot run no-such-program: there is no program of that name in $PATH",
        ),
        ("/no/such/program", "cannot run /no/such/program"),
        ("/etc/passwd", "/etc/passwd: it is not executable"),
        ("true", "exited with status 0 before it answered initialize"),
        ("'open quote", "a quote is not closed"),
        (" ", "--worker is empty"),
    ] {
        let mut shim = Shim::spawn(&["--mode", "persistent", "--worker", worker], |_, _| {});
        assert_eq!(shim.ended().await.code(), Some(1), "{worker}");
        assert!(shim.log_text().contains(expected), "{worker} gives {}", shim.log_text());
    }
}

#[tokio::test]
async fn without_any_worker_it_says_how_to_name_one() {
    let mut shim = Shim::spawn(&["--mode", "persistent"], |command, _| {
        command.env("PATH", "/nonexistent");
    });
    assert_eq!(shim.ended().await.code(), Some(1));
    assert!(shim.log_text().contains("--worker 'python3 /hooks/h.py'"), "{}", shim.log_text());
    let mut shim = Shim::spawn(&["--worker", "true"], |_, _| {});
    assert_eq!(shim.ended().await.code(), Some(1));
    assert!(shim.log_text().contains("a worker needs --mode persistent"), "{}", shim.log_text());
}

#[tokio::test]
async fn workers_are_told_to_stop_by_end_of_file() {
    let mut shim = Shim::persistent("", &[]).await;
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    shim.signal(nix::sys::signal::Signal::SIGTERM);
    shim.log_line("end of file").await;
    assert_eq!(shim.ended().await.code(), Some(0));
    assert!(!exists(about["pid"].as_u64().unwrap()));
}
