//! Exec mode: argv-style programs, run as the Go shim runs them.

use serde_json::json;
use tonic::Code;

use crate::support::{
    DOMAIN, ECHO, Shim, comment, domain_of, eventually, exists, gone, kill, script,
};

/// Returns what it was given, in a comment.
const SHOW: &str = r#"#!/bin/sh
printf '<domain><!-- {"count":%d,"first":"%s","vmi":%s,"third":"%s","name":"%s","stdin":"%s"} --></domain>' \
    "$#" "${1#--}" "$2" "${3#--}" "${0##*/}" "$(cat)"
"#;

#[tokio::test]
async fn programs_get_their_arguments_in_the_go_shims_order_and_an_empty_stdin() {
    let shim = Shim::builder()
        .program("onDefineDomain", SHOW)
        .program("preCloudInitIso", SHOW)
        .start()
        .await;
    let shown = shim.define(&json!({"a": "b c"}), DOMAIN).await.unwrap();
    assert_eq!(
        comment(&shown),
        json!({"count": 4, "first": "vmi", "vmi": {"a": "b c"}, "third": "domain",
               "name": "onDefineDomain", "stdin": ""})
    );
    let client = shim.dial().await;
    let status = client.cloud_init("v1alpha2", &json!({}), "{}", "").await.unwrap_err();
    // This script returns XML for cloud-init data as well.
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("cloudInitData is not a JSON object"), "{status:?}");
}

#[tokio::test]
async fn bytes_pass_through_untouched_both_ways() {
    let shim = Shim::builder().program("onDefineDomain", ECHO).start().await;
    for domain in [
        "\t<domain>\r\n  é \u{1f600} &lt; &#10; 'q' \"d\" \\n $HOME `id` %s\n</domain>\n\n",
        "<domain/>",
    ] {
        assert_eq!(shim.define(&json!({}), domain).await.unwrap(), domain);
    }
}

#[tokio::test]
async fn the_longest_argument_is_passed_and_one_byte_more_is_explained() {
    let shim = Shim::builder().program("onDefineDomain", ECHO).start().await;
    let longest = domain_of(131_071);
    assert_eq!(shim.define(&json!({}), &longest).await.unwrap(), longest);
    let status = shim.define(&json!({}), &domain_of(131_072)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.message(),
        "hook onDefineDomain exceeded a size limit: the argument --domain is 131072 bytes long and \
         Linux accepts at most 131071 bytes for one argument; --mode persistent has no such limit"
    );
    let vmi = json!({"a": "x".repeat(200_000)});
    let status = shim.define(&vmi, DOMAIN).await.unwrap_err();
    assert!(status.message().contains("the argument --vmi is 200008 bytes long"), "{status:?}");
    shim.still_works().await;
}

#[tokio::test]
async fn a_failed_program_is_reported_with_its_status_and_last_lines() {
    let refuses =
        "#!/bin/sh\necho 'disk vda is not allowed' >&2\necho 'ask the admin' >&2\nexit 3\n";
    let mut shim = Shim::builder().program("onDefineDomain", refuses).start().await;
    let status = shim.define(&json!({"password": "hunter2"}), DOMAIN).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        status.message(),
        "hook onDefineDomain failed: onDefineDomain exited with status 3; the last lines of its \
         stderr:\ndisk vda is not allowed\nask the admin"
    );
    let line = shim.log_line("ask the admin").await;
    assert_eq!(
        (line["hook"].as_str(), line["level"].as_str()),
        (Some("onDefineDomain"), Some("info"))
    );
    shim.log_line("call failed").await;
    shim.assert_not_logged("hunter2");
    let killed = "#!/bin/sh\nkill -9 $$\n";
    let shim = Shim::builder().program("onDefineDomain", killed).start().await;
    let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
    assert!(status.message().contains("was killed by SIGKILL"), "{status:?}");
}

#[tokio::test]
async fn lines_of_stderr_may_state_their_level() {
    let says = "#!/bin/sh\n[ \"$SIDECAR_SHIM_STDERR_LEVELS\" = 1 ] || exit 1\n\
                echo '<3>an error' >&2\necho '<7>details' >&2\necho '<4>a warning' >&2\nexit 3\n";
    for details in [false, true] {
        let level = if details { "debug" } else { "info" };
        let builder = Shim::builder().program("onDefineDomain", says);
        let mut shim = builder.args(["--log-level", level]).start().await;
        let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
        let last = "exited with status 3; the last lines of its stderr:\nan error\na warning";
        assert!(status.message().ends_with(last), "{status:?}");
        shim.log_line("call failed").await;
        let lines = shim.lines.iter().filter(|line| line["hook"] == "onDefineDomain");
        let said: Vec<_> = lines.map(|line| (&line["level"], &line["msg"])).collect();
        for (level, text) in [("error", "an error"), ("warning", "a warning"), ("debug", "details")]
        {
            let expected = details || level != "debug";
            assert_eq!(said.contains(&(&json!(level), &json!(text))), expected, "{said:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_program_is_unimplemented_and_says_why() {
    let shim = Shim::builder().start().await;
    let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("no program of that name in $PATH"), "{status:?}");
}

#[tokio::test]
async fn a_program_that_is_not_executable_is_not_offered_and_the_caller_sees_why() {
    let builder = Shim::builder();
    std::fs::write(builder.dir().join("bin/onDefineDomain"), ECHO).unwrap();
    let mut shim = builder.spawn();
    let warning = shim.log_line("is not executable").await;
    assert_eq!(warning["level"], "warning");
    shim.serving().await;
    let offered = shim.dial().await.info().await.hook_points;
    assert!(offered.iter().all(|point| point.name == "Shutdown"), "{}", offered.len());
    let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("is not executable (chmod +x"), "{status:?}");
}

#[tokio::test]
async fn for_a_program_that_cannot_run_the_caller_sees_the_cause() {
    for (text, expected) in [
        ("#!/no/such/python\n", "`#!/no/such/python`, does not exist"),
        ("#!/bin/sh\r\n", "the line ends in a carriage return"),
        ("just text\n", "nor a script that begins with `#!`"),
        ("#!/etc/passwd\n", "is not executable"),
    ] {
        let shim = Shim::builder().program("onDefineDomain", text).start().await;
        let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{text:?}");
        assert!(status.message().contains(expected), "{text:?} gives {status:?}");
        // It can be repaired while the shim runs.
        script(&shim.dir.path().join("bin"), "onDefineDomain", ECHO);
        shim.still_works().await;
    }
}

#[tokio::test]
async fn broken_output_is_detected_before_libvirt_sees_it() {
    for (text, expected) in [
        ("", "domain is empty"),
        ("echo hello", "there is text outside the element `domain` at line 1, column 1"),
        ("echo '<domain>'; echo '<a></b>'", "at line 2, column 4"),
        ("echo '<vm/>'", "its root element is `vm`, not `domain`"),
        (r"printf '<domain>\351</domain>'", "domain is not UTF-8: bad byte at offset 8"),
    ] {
        let script = format!("#!/bin/sh\n{text}\n");
        let shim = Shim::builder().program("onDefineDomain", &script).start().await;
        let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{text:?}");
        assert!(status.message().contains(expected), "{text:?} gives {status:?}");
    }
}

#[tokio::test]
async fn output_of_processes_that_outlive_the_script_is_included() {
    // As with `exec > >(sed …)` in bash, where the writer exits after the script.
    let late = "#!/bin/sh\nfifo=$(mktemp -u); mkfifo \"$fifo\"\n\
                  (cat < \"$fifo\"; printf '<!-- late -->') &\nprintf '%s' \"$4\" > \"$fifo\"\n";
    let shim = Shim::builder().program("onDefineDomain", late).start().await;
    let answer = shim.define(&json!({}), "<domain/>").await.unwrap();
    assert_eq!(answer, "<domain/><!-- late -->");
}

#[tokio::test]
async fn a_daemon_that_a_hook_starts_lives_on_and_does_not_block_the_call() {
    // It inherits stdout and stderr: the Go shim would wait for it forever.
    let starts_daemon = "#!/bin/sh\nsleep 1000 &\nprintf '<domain><!-- %s --></domain>' $!\n";
    let builder = Shim::builder().program("onDefineDomain", starts_daemon);
    let mut shim = builder.args(["--kill-grace", "100ms"]).start().await;
    let answer = shim.define(&json!({}), DOMAIN).await.unwrap();
    let pid = comment(&answer).as_u64().unwrap();
    shim.log_line("holds its stdout open").await;
    assert!(exists(pid), "an argv-style hook may start a daemon");
    kill(pid);
}

#[tokio::test]
async fn a_program_that_hangs_is_stopped_with_its_children_at_the_deadline() {
    let hangs = "#!/bin/sh\nsleep 1000 &\necho \"child $!\" >&2\nwait\n";
    let builder = Shim::builder().program("onDefineDomain", hangs);
    let mut shim = builder.args(["--call-timeout", "1s"]).start().await;
    let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("did not answer within 1.0 s"), "{status:?}");
    let line = shim.log_line("child ").await;
    let child = line["msg"].as_str().unwrap()["child ".len()..].parse().unwrap();
    eventually("the child is gone", || gone(child)).await;
}

#[tokio::test]
async fn at_most_as_many_programs_run_at_once_as_allowed() {
    let alone = "#!/bin/sh\nmkdir \"$TMPDIR/running\" || exit 1\nsleep 0.02\n\
                 rmdir \"$TMPDIR/running\"\nprintf '%s' \"$4\"\n";
    let builder = Shim::builder().program("onDefineDomain", alone).args(["--max-workers", "1"]);
    let dir = builder.dir().to_owned();
    let shim = builder.env("TMPDIR", dir).start().await;
    let mut calls = Vec::new();
    for _ in 0..6 {
        calls.push(shim.send(&json!({})).await);
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), DOMAIN);
    }
}
