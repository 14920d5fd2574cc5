//! Exec mode: argv-style programs, as the Go shim runs them.

use serde_json::json;
use tonic::Code;

use crate::support::{DOMAIN, Shim, domain_of, exists};

/// Prints what it was given, so that a test can look at it.
const SHOW: &str = r#"#!/bin/sh
printf '<domain><!-- {"count":%d,"first":"%s","vmi":%s,"third":"%s","name":"%s","stdin":"%s"} --></domain>' \
    "$#" "${1#--}" "$2" "${3#--}" "${0##*/}" "$(cat)"
"#;

const ECHO: &str = "#!/bin/sh\nprintf '%s' \"$4\"\n";

#[tokio::test]
async fn programs_get_their_arguments_in_the_go_shims_order_and_no_input() {
    let shim = Shim::exec(&[("onDefineDomain", SHOW), ("preCloudInitIso", SHOW)], &[]).await;
    let shown = shim.define(&json!({"a": "b c"}), DOMAIN).await.unwrap();
    let shown = crate::support::comment(&shown);
    assert_eq!(
        shown,
        json!({"count": 4, "first": "vmi", "vmi": {"a": "b c"}, "third": "domain",
               "name": "onDefineDomain", "stdin": ""})
    );
    let client = shim.dial().await;
    let status = client.cloud_init("v1alpha2", &json!({}), "{}", "").await.unwrap_err();
    // This script answers XML to everything, which is told; what it was called with is not.
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("cloudInitData is not a JSON object"), "{status:?}");
}

#[tokio::test]
async fn bytes_pass_through_untouched_both_ways() {
    let shim = Shim::exec(&[("onDefineDomain", ECHO)], &[]).await;
    for domain in [
        "\t<domain>\r\n  é \u{1f600} &lt; &#10; 'q' \"d\" \\n $HOME `id` %s\n</domain>\n\n",
        "<domain/>",
    ] {
        assert_eq!(shim.define(&json!({}), domain).await.unwrap(), domain);
    }
}

#[tokio::test]
async fn the_longest_argument_is_served_and_one_byte_more_is_explained() {
    let shim = Shim::exec(&[("onDefineDomain", ECHO)], &[]).await;
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
async fn a_failed_program_is_told_by_status_and_last_lines() {
    let script =
        "#!/bin/sh\necho 'disk vda is not allowed' >&2\necho 'ask the admin' >&2\nexit 3\n";
    let mut shim = Shim::exec(&[("onDefineDomain", script)], &[]).await;
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
    assert!(!shim.log_text().contains("hunter2"));
    let killed = "#!/bin/sh\nkill -9 $$\n";
    let shim = Shim::exec(&[("onDefineDomain", killed)], &[]).await;
    let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
    assert!(status.message().contains("was killed by SIGKILL"), "{status:?}");
}

#[tokio::test]
async fn a_missing_program_is_unimplemented_and_says_why() {
    let shim = Shim::exec(&[], &[]).await;
    let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("no program of that name in $PATH"), "{status:?}");
}

#[tokio::test]
async fn a_program_that_is_not_executable_is_not_offered_and_says_so() {
    let mut shim = Shim::spawn(&[], |command, dir| {
        std::fs::write(dir.join("bin/onDefineDomain"), ECHO).unwrap();
        command.env("PATH", crate::support::path_with(&dir.join("bin")));
    });
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
async fn programs_that_cannot_be_run_name_the_cause() {
    for (text, expected) in [
        ("#!/no/such/python\n", "`#!/no/such/python`, does not exist"),
        ("#!/bin/sh\r\n", "the line ends in a carriage return"),
        ("just text\n", "nor a script that begins with `#!`"),
        ("#!/etc/passwd\n", "is not executable"),
    ] {
        let shim = Shim::exec(&[("onDefineDomain", text)], &[]).await;
        let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{text:?}");
        assert!(status.message().contains(expected), "{text:?} gives {status:?}");
        // It can be mended while the shim runs.
        crate::support::script(&shim.dir.path().join("bin"), "onDefineDomain", ECHO);
        shim.still_works().await;
    }
}

#[tokio::test]
async fn broken_output_is_found_here_and_not_by_libvirt() {
    for (text, expected) in [
        ("", "domain is empty"),
        ("echo hello", "there is text outside the element `domain` at line 1, column 1"),
        ("echo '<domain>'; echo '<a></b>'", "at line 2, column 4"),
        ("echo '<vm/>'", "its root element is `vm`, not `domain`"),
        (r"printf '<domain>\351</domain>'", "domain is not UTF-8: bad byte at offset 8"),
    ] {
        let script = format!("#!/bin/sh\n{text}\n");
        let shim = Shim::exec(&[("onDefineDomain", &script)], &[]).await;
        let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{text:?}");
        assert!(status.message().contains(expected), "{text:?} gives {status:?}");
    }
}

#[tokio::test]
async fn output_of_processes_that_outlive_the_script_is_waited_for() {
    // What `exec > >(sed …)` does in bash: the writer ends after the script has.
    let script = "#!/bin/sh\nfifo=$(mktemp -u); mkfifo \"$fifo\"\n\
                  (cat < \"$fifo\"; printf '<!-- late -->') &\nprintf '%s' \"$4\" > \"$fifo\"\n";
    let shim = Shim::exec(&[("onDefineDomain", script)], &[]).await;
    let answer = shim.define(&json!({}), "<domain/>").await.unwrap();
    assert_eq!(answer, "<domain/><!-- late -->");
}

#[tokio::test]
async fn a_daemon_that_a_hook_leaves_behind_lives_and_delays_nobody_for_ever() {
    // It holds standard output and standard error: the Go shim would wait for it for ever.
    let script = "#!/bin/sh\nsleep 1000 &\nprintf '<domain><!-- %s --></domain>' $!\n";
    let mut shim = Shim::exec(&[("onDefineDomain", script)], &["--kill-grace", "100ms"]).await;
    let answer = shim.define(&json!({}), DOMAIN).await.unwrap();
    let pid = crate::support::comment(&answer).as_u64().unwrap();
    shim.log_line("holds its stdout open").await;
    assert!(exists(pid), "an argv-style hook may start a daemon");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    #[expect(clippy::disallowed_methods, reason = "the daemon is the test's to end")]
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_its_children_at_the_deadline() {
    let script = "#!/bin/sh\nsleep 1000 &\necho \"child $!\" >&2\nwait\n";
    let mut shim = Shim::exec(&[("onDefineDomain", script)], &["--call-timeout", "2s"]).await;
    let status = shim.define(&json!({}), DOMAIN).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("did not answer within 2.0 s"), "{status:?}");
    let line = shim.log_line("child ").await;
    let child = line["msg"].as_str().unwrap()["child ".len()..].parse().unwrap();
    gone(child).await;
}

/// Waits until a process is gone, or is only waiting to be reaped by someone else.
async fn gone(pid: u64) {
    let is_alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
    };
    let waiting = async {
        while is_alive() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(crate::support::LIMIT, waiting).await.expect("the process is still there");
}

#[tokio::test]
async fn no_more_programs_run_at_once_than_allowed() {
    let script = "#!/bin/sh\nmkdir \"$TMPDIR/running\" || exit 1\nsleep 0.02\n\
                  rmdir \"$TMPDIR/running\"\nprintf '%s' \"$4\"\n";
    let dir = tempfile::tempdir().unwrap();
    let mut shim = Shim::spawn(&["--max-workers", "1"], |command, at| {
        crate::support::script(&at.join("bin"), "onDefineDomain", script);
        command.env("PATH", crate::support::path_with(&at.join("bin"))).env("TMPDIR", dir.path());
    });
    shim.serving().await;
    let vmi = json!({});
    let calls = (0..6).map(|_| shim.define(&vmi, DOMAIN));
    for answer in futures(calls).await {
        assert_eq!(answer.unwrap(), DOMAIN);
    }
}

async fn futures<F: Future>(calls: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut calls: Vec<_> = calls.map(Box::pin).map(Some).collect();
    let mut answers: Vec<Option<F::Output>> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (call, answer) in calls.iter_mut().zip(&mut answers) {
            if let Some(future) = call
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *answer = Some(output);
                *call = None;
            }
        }
        if calls.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}
