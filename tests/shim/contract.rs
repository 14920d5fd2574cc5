//! What KubeVirt relies on, whatever runs the hooks.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Client, DOMAIN, Meeting, Shim, comment, script, worker};

/// An argv-style hook that answers with the domain as it came.
const ECHO: &str = "#!/bin/sh\nprintf '%s' \"$4\"\n";

#[tokio::test]
async fn info_lists_the_programs_in_path_and_the_version_given() {
    let both = [("onDefineDomain", ECHO), ("preCloudInitIso", ECHO)];
    for (scripts, version, expected) in [
        (&both[..], "v1alpha1", vec!["OnDefineDomain", "PreCloudInitIso"]),
        (&both[..], "v1alpha2", vec!["OnDefineDomain", "PreCloudInitIso"]),
        (&both[..], "v1alpha3", vec!["OnDefineDomain", "PreCloudInitIso", "Shutdown"]),
        (&both[..1], "v1alpha3", vec!["OnDefineDomain", "Shutdown"]),
        (&both[1..], "v1alpha2", vec!["PreCloudInitIso"]),
        (&[], "v1alpha1", vec![]),
    ] {
        let mut shim = Shim::exec(scripts, &["--version", version]).await;
        let info = shim.dial().await.info().await;
        let names: Vec<_> = info.hook_points.iter().map(|point| point.name.as_str()).collect();
        assert_eq!(names, expected, "{version}");
        assert_eq!((info.name.as_str(), info.versions), ("shim", vec![version.to_owned()]));
        assert!(info.hook_points.iter().all(|point| point.priority == 0));
        shim.log_line("Info method has been called").await;
    }
}

#[tokio::test]
async fn info_lists_what_the_worker_declares() {
    for (declared, expected) in [
        ("onDefineDomain", vec!["OnDefineDomain", "Shutdown"]),
        ("preCloudInitIso,onDefineDomain", vec!["OnDefineDomain", "PreCloudInitIso", "Shutdown"]),
        ("preVMStart", vec!["Shutdown"]),
    ] {
        let shim = Shim::persistent(&format!("--hooks {declared}"), &[]).await;
        let info = shim.dial().await.info().await;
        let names: Vec<_> = info.hook_points.into_iter().map(|point| point.name).collect();
        assert_eq!(names, expected, "{declared}");
    }
}

#[tokio::test]
async fn every_version_is_served_whatever_was_advertised() {
    let shim = Shim::persistent("", &["--version", "v1alpha1"]).await;
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        let client = shim.dial().await;
        assert_eq!(client.define(version, "{}", DOMAIN).await.unwrap(), DOMAIN);
        let data = "{\"UserData\":\"x\"}";
        let result = client.cloud_init(version, &json!({}), data, "{}").await;
        if version == "v1alpha1" {
            assert_eq!(result.unwrap_err().code(), tonic::Code::Unimplemented);
        } else {
            assert_eq!(result.unwrap()[0], "{\"UserData\": \"x\"}");
        }
    }
}

#[tokio::test]
async fn the_older_cloud_init_form_is_filled_from_the_hooks_answer() {
    let shim = Shim::persistent("", &[]).await;
    let call = async |vmi: serde_json::Value, source: &'static str| {
        let data = r#"{"UserData":"sent","NetworkData":"net"}"#;
        shim.dial().await.cloud_init("v1alpha3", &vmi, data, source).await.unwrap()
    };
    let changed = json!({"do": "answer", "value": {"Other": 1, "userdata": "answered"}});
    let [data, source] = call(changed, "{\"old\":1}").await;
    assert_eq!(data, r#"{"Other": 1, "userdata": "answered"}"#);
    assert_eq!(source, r#"{"userData":"answered"}"#);
    let unchanged = json!({"do": "unchanged"});
    let [data, source] = call(unchanged.clone(), "{ \"old\": 1 }").await;
    assert_eq!(data, r#"{"UserData":"sent","NetworkData":"net"}"#);
    assert_eq!(source, "{ \"old\": 1 }");
    let [_, source] = call(unchanged, "").await;
    assert_eq!(source, r#"{"networkData":"net","userData":"sent"}"#);
}

#[tokio::test]
async fn log_lines_have_kubevirts_form() {
    let mut shim = Shim::persistent("", &[]).await;
    let vmi = json!({"do": "stderr", "text": "to the log\n"});
    shim.define(&vmi, DOMAIN).await.unwrap();
    let line = shim.log_line("OnDefineDomain method has been called").await;
    assert_eq!(line["component"], "shim-sidecar");
    assert_eq!(line["level"], "info");
    let (file, number) = line["pos"].as_str().unwrap().rsplit_once(':').unwrap();
    assert!(file.ends_with(".rs") && number.parse::<u32>().is_ok(), "{line}");
    let time = line["timestamp"].as_str().unwrap();
    assert!(time.len() == 27 && time.ends_with('Z') && &time[19..20] == ".", "{time}");
    let line = shim.log_line("to the log").await;
    assert_eq!((line["hook"].as_str(), line["call"].as_u64()), (Some("onDefineDomain"), Some(2)));
    shim.dial().await.shutdown().await.unwrap();
    shim.log_line("Hook's Shutdown callback method has been called").await;
}

#[tokio::test]
async fn signals_end_it_with_status_0_and_leave_no_socket() {
    for (signal, name) in [
        (Signal::SIGTERM, "terminated"),
        (Signal::SIGINT, "interrupt"),
        (Signal::SIGHUP, "hangup"),
        (Signal::SIGQUIT, "quit"),
    ] {
        let mut shim = Shim::exec(&[("onDefineDomain", ECHO)], &[]).await;
        assert_eq!(shim.sockets().len(), 1);
        shim.signal(signal);
        shim.log_line(&format!("sidecar-shim received signal: {name}")).await;
        assert_eq!(shim.ended().await.code(), Some(0));
        assert!(shim.sockets().is_empty());
    }
}

#[tokio::test]
async fn shutdown_answers_first_and_more_than_once() {
    let mut shim = Shim::persistent("", &[]).await;
    let client = shim.dial().await;
    let (first, second) = tokio::join!(client.shutdown(), client.shutdown());
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(shim.ended().await.code(), Some(0));
    assert!(shim.sockets().is_empty());
    assert!(shim.log_text().contains("end of file"), "the worker was told by end-of-file");
}

#[tokio::test]
async fn a_call_in_flight_ends_before_the_shim_does() {
    let mut shim = Shim::persistent("", &[]).await;
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    let client = shim.dial().await;
    let vmi = json!({"do": "meet", "path": meeting.0}).to_string();
    let call = tokio::spawn(async move { client.define("v1alpha3", vmi, DOMAIN).await });
    let joined = meeting.joined().await;
    shim.signal(Signal::SIGTERM);
    shim.log_line("sidecar-shim received signal: terminated").await;
    drop(joined);
    assert!(call.await.unwrap().unwrap().contains("<domain>"));
    assert_eq!(shim.ended().await.code(), Some(0));
}

#[tokio::test]
async fn calls_that_do_not_end_are_given_up_after_the_grace_or_a_second_signal() {
    let echo_late = [("onDefineDomain", "#!/bin/sh\necho hanging >&2\nexec sleep 1000\n")];
    for (grace, signals) in [("200ms", 1), ("1h", 2)] {
        let args = ["--shutdown-grace", grace, "--kill-grace", "100ms"];
        for mut shim in [Shim::exec(&echo_late, &args).await, Shim::persistent("", &args).await] {
            let client = shim.dial().await;
            let vmi = json!({"do": "hang"}).to_string();
            let call = tokio::spawn(async move { client.define("v1alpha3", vmi, DOMAIN).await });
            shim.log_line("hanging").await;
            for _ in 0..signals {
                shim.signal(Signal::SIGTERM);
                shim.log_line("sidecar-shim received signal: terminated").await;
            }
            assert_eq!(shim.ended().await.code(), Some(0));
            let status = call.await.unwrap().unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
            assert!(
                status.message().contains("shutting down and the call did not finish in time"),
                "{status:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_socket_appears_when_the_worker_is_ready_and_nothing_else_ever_does() {
    let dir = tempfile::tempdir().unwrap();
    let meeting = Meeting::new(dir.path().join("fifo"));
    let worker = worker(&format!("--wait-for '{}'", meeting.0.display()));
    let args = ["--mode", "persistent", "--worker", &worker];
    let mut shim = Shim::spawn(&args, |command, _| {
        command.env("CONTAINER_NAME", "hook-sidecar-0");
    });
    let joined = meeting.joined().await;
    assert!(shim.sockets().is_empty(), "the worker has not answered initialize yet");
    drop(joined);
    shim.serving().await;
    let name = shim.socket().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("shim-hook-sidecar-0-") && name.ends_with(".sock"), "{name}");
    shim.still_works().await;
    assert_eq!(shim.sockets().len(), 1);
}

#[tokio::test]
async fn two_shims_have_sockets_of_different_names() {
    let first = Shim::exec(&[("onDefineDomain", ECHO)], &[]).await;
    let second = Shim::exec(&[("onDefineDomain", ECHO)], &[]).await;
    assert_ne!(first.socket().file_name(), second.socket().file_name());
}

#[tokio::test]
async fn a_missing_or_unknown_version_ends_it_with_status_1() {
    for (version, expected) in [
        ("", "no hook API version: give --version v1alpha1, v1alpha2 or v1alpha3"),
        ("v1alpha9", "unknown hook API version \"v1alpha9\""),
    ] {
        let mut shim = Shim::spawn(&["--version", version], |_, _| {});
        assert_eq!(shim.ended().await.code(), Some(1));
        assert!(shim.log_text().contains(&expected.replace('"', "\\\"")), "{}", shim.log_text());
    }
}

#[tokio::test]
async fn both_ways_to_write_a_flag_and_the_environment_work() {
    let shim = Shim::exec(&[], &["--version=v1alpha2"]).await;
    assert_eq!(shim.dial().await.info().await.versions, ["v1alpha3"], "the later flag wins");
    let dir = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(crate::support::binary());
    command
        .env("SIDECAR_SHIM_VERSION", "v1alpha2")
        .env("SIDECAR_SHIM_SOCKET_DIR", dir.path().join("nowhere"))
        .kill_on_drop(true);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("nowhere does not exist") && text.contains("--socket-dir"), "{text}");
}

#[tokio::test]
async fn a_missing_socket_directory_ends_it_before_any_hook_runs() {
    let dir = tempfile::tempdir().unwrap();
    let touched = dir.path().join("touched");
    let worker = format!("touch '{}'", touched.display());
    let missing = dir.path().join("missing").display().to_string();
    let args = ["--socket-dir", &missing, "--mode", "persistent", "--worker", &worker];
    let mut shim = Shim::spawn(&args[2..], |command, _| {
        command.args(&args[..2]);
    });
    assert_eq!(shim.ended().await.code(), Some(1));
    assert!(shim.log_text().contains("missing does not exist"), "{}", shim.log_text());
    assert!(!touched.exists());
}

#[tokio::test]
async fn what_it_inherits_hooks_inherit() {
    let worker = worker("");
    let args = ["--mode", "persistent", "--worker", &worker];
    let shim = Shim::start(&args, |command| {
        command.env("TEST_VARIABLE", "handed on").current_dir("/");
    })
    .await;
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    assert_eq!(about["mine"], "handed on");
    assert_eq!(about["cwd"], "/");
    assert_eq!(about["protocol"], "1");
    assert_eq!(about["pid"], about["pgid"], "a worker leads a process group of its own");
}

#[tokio::test]
async fn programs_in_path_that_are_one_file_share_one_worker() {
    let text = format!("#!/bin/sh\nexec {}\n", worker(""));
    let shim = {
        let mut shim = Shim::spawn(&["--mode", "persistent"], |command, dir| {
            let bin = dir.join("bin");
            let first = script(&bin, "onDefineDomain", &text);
            std::os::unix::fs::symlink(first, bin.join("preCloudInitIso")).unwrap();
            command.env("PATH", crate::support::path_with(&bin));
        });
        shim.serving().await;
        shim
    };
    let about = json!({"do": "about"});
    let domain = comment(&shim.define(&about, DOMAIN).await.unwrap());
    let client = Client::dial(&shim.socket()).await;
    let answer = json!({"do": "answer", "value": {}});
    client.cloud_init("v1alpha3", &answer, "{}", "").await.unwrap();
    let again = comment(&shim.define(&about, DOMAIN).await.unwrap());
    assert_eq!(domain["pid"], again["pid"]);
    assert_eq!(domain["id"], 2);
    assert_eq!(again["id"], 4, "the cloud-init call went to the same process");
}
