//! What KubeVirt relies on, in either mode.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Client, DOMAIN, ECHO, Gate, Shim, comment, worker};

#[tokio::test]
async fn info_lists_the_programs_in_path_and_the_version_given() {
    let both = ["onDefineDomain", "preCloudInitIso"];
    for (programs, version, expected) in [
        (&both[..], "v1alpha1", vec!["OnDefineDomain", "PreCloudInitIso"]),
        (&both[..], "v1alpha2", vec!["OnDefineDomain", "PreCloudInitIso"]),
        (&both[..], "v1alpha3", vec!["OnDefineDomain", "PreCloudInitIso", "Shutdown"]),
        (&both[..1], "v1alpha3", vec!["OnDefineDomain", "Shutdown"]),
        (&both[1..], "v1alpha2", vec!["PreCloudInitIso"]),
        (&[], "v1alpha1", vec![]),
    ] {
        let builder = Shim::builder().version(version);
        let builder = programs.iter().fold(builder, |builder, name| builder.program(name, ECHO));
        let mut shim = builder.start().await;
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
        let shim = Shim::persistent(&format!("--hooks {declared}")).start().await;
        let info = shim.dial().await.info().await;
        let names: Vec<_> = info.hook_points.into_iter().map(|point| point.name).collect();
        assert_eq!(names, expected, "{declared}");
    }
}

#[tokio::test]
async fn every_version_is_served_regardless_of_the_advertised_one() {
    let shim = Shim::persistent("").version("v1alpha1").start().await;
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
async fn the_older_cloud_init_form_is_filled_in_from_the_hooks_answer() {
    let shim = Shim::persistent("").start().await;
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
    let mut shim = Shim::persistent("").start().await;
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
    assert_eq!((line["hook"].as_str(), line["call"].as_u64()), (Some("onDefineDomain"), Some(1)));
    shim.dial().await.shutdown().await.unwrap();
    shim.log_line("Hook's Shutdown callback method has been called").await;
}

/// What the Go shim logs when it starts and when it stops.
#[tokio::test]
async fn start_and_stop_are_logged_as_by_the_go_shim() {
    let mut shim = Shim::builder().program("onDefineDomain", ECHO).spawn();
    let line = shim.log_line("shim is now exposing its services on socket /").await;
    let socket = shim.socket();
    assert!(line["msg"].as_str().unwrap().ends_with(socket.to_str().unwrap()), "{line}");
    assert_eq!(line["socket"].as_str(), socket.to_str());
    assert_eq!((&line["hooks"], &line["version"]), (&json!("onDefineDomain"), &json!("v1alpha3")));
    assert_eq!((&line["mode"], &line["shim_version"]), (&json!("exec"), &json!("0.1.0")));
    assert_eq!(line["programs"][0]["command"], "onDefineDomain");
    let script = &line["programs"][0]["scripts"][0];
    assert!(script["path"].as_str().unwrap().ends_with("/bin/onDefineDomain"), "{line}");
    assert_eq!(script["sha256"].as_str().unwrap().len(), 64, "{line}");
    assert_eq!(
        (&line["limits"]["max_workers"], &line["limits"]["kill_grace"]),
        (&json!(4), &json!("2s"))
    );
    assert_eq!((line.get("workers"), line["limits"].get("start_timeout")), (None, None));
    shim.dial().await.shutdown().await.unwrap();
    shim.log_line("Exiting").await;
    shim.log_line("stopped").await;
    assert_eq!(shim.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_failed_start_is_a_log_line_in_the_form_of_the_others() {
    let nowhere = ["--socket-dir", "/nowhere"];
    for (builder, why) in [
        // Before logging starts, before a worker starts, and after.
        (Shim::builder().version("v1alpha9"), "unknown hook API version \"v1alpha9\""),
        (Shim::builder().no_version(), "no hook API version"),
        (Shim::builder().args(nowhere), "the socket directory /nowhere does not exist"),
        (Shim::persistent("--start exit"), "cannot start hook worker: /"),
    ] {
        // Levels that leave out most lines do not leave out this one.
        let mut shim = builder.args(["--log-level", "error"]).spawn();
        let line = shim.log_line(why).await;
        assert_eq!(line["msg"].as_str().unwrap().find(why), Some("sidecar-shim: ".len()), "{line}");
        assert_eq!((&line["component"], &line["level"]), (&json!("shim-sidecar"), &json!("error")));
        let (file, number) = line["pos"].as_str().unwrap().rsplit_once(':').unwrap();
        assert!(file.ends_with(".rs") && number.parse::<u32>().is_ok(), "{line}");
        assert_eq!(line["timestamp"].as_str().unwrap().len(), 27, "{line}");
        assert_eq!(shim.exited().await.code(), Some(1));
        assert!(shim.lines.iter().all(serde_json::Value::is_object), "{:?}", shim.lines);
    }
    let text = Shim::builder().args(nowhere).args(["--log-format", "text"]);
    let mut shim = text.spawn();
    let line = shim.log_line("sidecar-shim: the socket directory /nowhere").await;
    assert!(line.is_string(), "{line}");
    assert_eq!(shim.exited().await.code(), Some(1));
}

#[tokio::test]
async fn after_a_signal_it_exits_with_status_0_and_removes_its_socket() {
    for (signal, name) in [
        (Signal::SIGTERM, "terminated"),
        (Signal::SIGINT, "interrupt"),
        (Signal::SIGHUP, "hangup"),
        (Signal::SIGQUIT, "quit"),
    ] {
        let mut shim = Shim::builder().program("onDefineDomain", ECHO).start().await;
        assert_eq!(shim.sockets().len(), 1);
        shim.signal(signal);
        shim.log_line(&format!("sidecar-shim received signal: {name}")).await;
        assert_eq!(shim.exited().await.code(), Some(0));
        assert!(shim.sockets().is_empty());
    }
}

#[tokio::test]
async fn shutdown_is_answered_before_the_exit_and_more_than_once() {
    let mut shim = Shim::persistent("").start().await;
    let client = shim.dial().await;
    let (first, second) = tokio::join!(client.shutdown(), client.shutdown());
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(shim.exited().await.code(), Some(0));
    assert!(shim.sockets().is_empty());
    shim.assert_logged("end of file");
}

#[tokio::test]
async fn a_call_in_flight_finishes_before_the_shim_exits() {
    let mut shim = Shim::persistent("").start().await;
    let call = shim.call_in_flight().await;
    shim.signal(Signal::SIGTERM);
    shim.log_line("sidecar-shim received signal: terminated").await;
    assert!(call.finish().await.unwrap().contains("<domain>"));
    assert_eq!(shim.exited().await.code(), Some(0));
}

#[tokio::test]
async fn unfinished_calls_are_dropped_after_the_grace_period_or_a_second_signal() {
    let hangs = "#!/bin/sh\necho hanging >&2\nexec sleep 1000\n";
    for (grace, signals) in [("200ms", 1), ("1h", 2)] {
        let args = ["--shutdown-grace", grace, "--kill-grace", "100ms"];
        let exec = Shim::builder().program("onDefineDomain", hangs).args(args);
        for builder in [exec, Shim::persistent("").args(args)] {
            let mut shim = builder.start().await;
            let call = shim.send(&json!({"do": "hang"})).await;
            shim.log_line("hanging").await;
            for _ in 0..signals {
                shim.signal(Signal::SIGTERM);
                shim.log_line("sidecar-shim received signal: terminated").await;
            }
            assert_eq!(shim.exited().await.code(), Some(0));
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
async fn the_socket_appears_once_the_worker_is_ready_and_no_other_file_ever_does() {
    let builder = Shim::builder().env("CONTAINER_NAME", "hook-sidecar-0");
    let gate = Gate::new(builder.dir().join("gate"));
    let worker = worker(&format!("--wait-for '{}'", gate.0.display()));
    let mut shim = builder.worker(&worker).spawn();
    let opener = gate.reached().await;
    assert!(shim.sockets().is_empty(), "the worker has not answered initialize yet");
    drop(opener);
    shim.serving().await;
    let name = shim.socket().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("shim-hook-sidecar-0-") && name.ends_with(".sock"), "{name}");
    shim.still_works().await;
    assert_eq!(shim.sockets().len(), 1);
}

#[tokio::test]
async fn the_sockets_of_two_shims_have_different_names() {
    let first = Shim::builder().program("onDefineDomain", ECHO).start().await;
    let second = Shim::builder().program("onDefineDomain", ECHO).start().await;
    assert_ne!(first.socket().file_name(), second.socket().file_name());
}

#[tokio::test]
async fn without_a_known_version_it_exits_with_status_1() {
    for (version, expected) in [
        ("", "no hook API version: give --version v1alpha1, v1alpha2 or v1alpha3"),
        ("v1alpha9", "unknown hook API version \"v1alpha9\""),
    ] {
        let mut shim = Shim::builder().version(version).spawn();
        assert_eq!(shim.exited().await.code(), Some(1));
        shim.assert_logged(expected);
    }
}

#[tokio::test]
async fn both_forms_of_a_flag_and_the_environment_work() {
    let shim = Shim::builder().args(["--version=v1alpha2"]).version("v1alpha3").start().await;
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
async fn without_its_socket_directory_it_exits_before_any_hook_runs() {
    let dir = tempfile::tempdir().unwrap();
    let touched = dir.path().join("touched");
    let worker = format!("touch '{}'", touched.display());
    let missing = dir.path().join("missing");
    let args = ["--socket-dir".as_ref(), missing.as_os_str()];
    let mut shim = Shim::worker(&worker).args(args).spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    shim.assert_logged("missing does not exist");
    assert!(!touched.exists());
}

#[tokio::test]
async fn hooks_inherit_the_environment_and_the_directory() {
    let builder = Shim::persistent("").env("TEST_VARIABLE", "handed on").current_dir("/");
    let shim = builder.start().await;
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    assert_eq!(about["mine"], "handed on");
    assert_eq!(about["cwd"], "/");
    assert_eq!(about["protocol"], "1");
    assert_eq!(about["pid"], about["pgid"], "a worker leads its own process group");
}

#[tokio::test]
async fn programs_in_path_that_are_one_file_share_one_worker() {
    let text = format!("#!/bin/sh\nexec {}\n", worker(""));
    let builder = Shim::builder().args(["--mode", "persistent"]);
    let builder =
        builder.program("onDefineDomain", &text).link("preCloudInitIso", "onDefineDomain");
    let shim = builder.start().await;
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
