//! `--record`: calls become cases on a disk, and nothing else changes.

mod directory;

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{
    DOMAIN, ECHO, PYTHON, Shim, ShimBuilder, domain_of, eventually, read, skipped,
};

const SECRET: &str = "s3cr3t-of-the-vm";

/// The files of a case by name, and its directory's name.
type Files = BTreeMap<String, String>;

/// The names in a directory, sorted, without the shim's mark.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".sidecar-shim");
    names.sort();
    names
}

/// The cases in a directory, in the order of their names.
fn cases(directory: &Path) -> Vec<(String, Files)> {
    let of_case = |name: String| {
        let case = directory.join(&name);
        let text = |file: &String| std::fs::read_to_string(case.join(file)).unwrap();
        let files = names(&case).into_iter().map(|file| (file.clone(), text(&file))).collect();
        (name, files)
    };
    names(directory).into_iter().map(of_case).collect()
}

/// A directory for cases that the shim has to create, and its option.
fn recording(builder: ShimBuilder) -> (ShimBuilder, PathBuf) {
    let directory = builder.dir().join("cases");
    (builder.args(["--record".as_ref(), directory.as_os_str()]), directory)
}

/// Stops the shim, which writes the last cases.
async fn stop(shim: &mut Shim) {
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
}

fn vmi(name: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "uid": "u-1"}})
}

/// A shim in each mode with a hook of each kind, behind both APIs.
fn every_hook() -> [ShimBuilder; 2] {
    let text = read("tests/fixtures/every_hook.py").replace("/usr/bin/env python3", &PYTHON);
    let hooks = ["onDefineDomain", "preCloudInitIso", "preVMStart"];
    let in_path = hooks.into_iter().fold(Shim::builder(), |it, hook| it.program(hook, &text));
    let worker = Shim::builder().program("every_hook", &text).worker("every_hook");
    [in_path, worker].map(ShimBuilder::both_apis)
}

#[tokio::test]
async fn each_call_becomes_a_case_in_both_modes_and_both_apis() {
    for builder in every_hook() {
        let (builder, directory) = recording(builder);
        let mut shim = builder.start().await;
        let (legacy, plugin) = (shim.dial().await, shim.dial_plugin().await);
        let vmi = vmi("db-1");
        let changed = legacy.define("v1alpha3", vmi.to_string(), DOMAIN).await.unwrap();
        let data = r#"{"DataSource":"noCloud","UserData":""}"#;
        let [made, _] = legacy.cloud_init("v1alpha3", &vmi, data, "").await.unwrap();
        let booted = plugin.mutate("libvirt", &vmi, DOMAIN, Some("Boot")).await.unwrap();
        plugin.node_hook_on("node01", "PreVMStart", &vmi).await.unwrap();
        plugin.node_hook_on("forbidden", "PreVMStart", &vmi).await.unwrap_err();
        // None of these runs a hook.
        assert_eq!(plugin.mutate("xen", &vmi, DOMAIN, None).await.unwrap(), DOMAIN);
        legacy.define("v1alpha3", "no JSON", DOMAIN).await.unwrap_err();
        plugin.node_hook("PostVMStop", &vmi).await.unwrap_err();
        stop(&mut shim).await;

        let expected = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let with_vmi = |files: &[(String, String)]| -> Files {
            let vmi = expected("vmi.json", &vmi.to_string());
            files.iter().cloned().chain([vmi]).collect()
        };
        let sent = expected("domain.xml", DOMAIN);
        let found = cases(&directory);
        let files: Vec<_> = found.iter().map(|(_, files)| files.clone()).collect();
        let status = if files[4]["error.txt"].starts_with("INTERNAL") {
            "INTERNAL\n"
        } else {
            "FAILED_PRECONDITION\npreVMStart does not work on the node forbidden\n"
        };
        assert_eq!(
            files,
            [
                with_vmi(&[sent.clone(), expected("expected.xml", &changed)]),
                // The hook returns user data, which may be secret.
                with_vmi(&[expected("cloud-init.json", data)]),
                with_vmi(&[
                    sent,
                    expected("expected.xml", &booted),
                    expected("args.toml", "context = \"Boot\"\n"),
                ]),
                with_vmi(&[
                    expected("args.toml", "hook = \"preVMStart\"\nnode = \"node01\"\n"),
                    expected("unchanged", ""),
                ]),
                with_vmi(&[
                    expected("args.toml", "hook = \"preVMStart\"\nnode = \"forbidden\"\n"),
                    expected("error.txt", status),
                ]),
            ]
        );
        assert!(made.contains("# None") && booted.contains("<!-- Boot -->"));
        for ((name, _), hook) in found.iter().zip([
            "onDefineDomain",
            "preCloudInitIso",
            "onDefineDomain",
            "preVMStart",
            "preVMStart",
        ]) {
            assert!(name.ends_with(&format!("Z-shop-db-1-{hook}")), "{name}");
        }
        assert_private(&directory);
    }
}

/// Asserts that only the owner may read the files.
fn assert_private(directory: &Path) {
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700);
    for case in names(directory).iter().map(|name| directory.join(name)) {
        assert_eq!(mode(&case), 0o700);
        for file in names(&case) {
            assert_eq!(mode(&case.join(&file)), 0o600, "{file}");
        }
    }
}

#[tokio::test]
async fn nothing_is_recorded_by_default_and_a_start_that_records_says_so() {
    let mut shim = Shim::persistent("").start().await;
    shim.still_works().await;
    stop(&mut shim).await;
    shim.assert_not_logged("RECORDING");

    let (builder, directory) = recording(Shim::persistent(""));
    let mut shim = builder.start().await;
    let line = shim.lines.iter().find(|line| line["directory"].is_string()).unwrap();
    assert_eq!(line["level"], "warning");
    let text = line["msg"].as_str().unwrap();
    let expected = format!(
        "RECORDING is on: the documents of each call are written to files in {}, with known kinds \
         of secrets replaced",
        directory.display()
    );
    assert!(text.starts_with(&expected), "{text}");
    assert_eq!(line["max_cases"], 100);
    stop(&mut shim).await;

    let (builder, _) = recording(Shim::persistent("").both_apis());
    let mut shim = builder.args(["--record-secrets"]).spawn();
    shim.log_line("RECORDING is on").await;
    shim.assert_logged("of every VM that this plugin is called for");
    shim.assert_logged("WITH ALL SECRETS");
    stop(&mut shim).await;
}

/// A VMI and documents with a secret of each kind, and a hook that copies them.
fn with_secrets() -> (Value, String, String) {
    let mut vmi = vmi("db-1");
    vmi["metadata"]["annotations"] = json!({
        "kubevirt.io/ignitiondata": SECRET,
        "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"a\": \"{SECRET}\"}}"),
        "example.com/copy": format!("<{SECRET}>"),
        "example.com/db-password": SECRET,
    });
    let password = json!({"source": {"secret": {"secretName": SECRET}}});
    vmi["spec"] = json!({
        "accessCredentials": [{"userPassword": password}],
        "volumes": [
            {"cloudInitNoCloud": {"userData": SECRET, "networkData": SECRET}},
            {"cloudInitConfigDrive": {"userDataBase64": SECRET, "networkDataBase64": SECRET}},
            {"sysprep": {"secret": {"name": SECRET}}},
        ],
    });
    let domain = format!(
        "<domain><title>{SECRET}</title><graphics type='vnc' passwd='{SECRET}'/>\
         <auth><secret type='iscsi' usage='{SECRET}'/></auth><!-- {SECRET} --></domain>"
    );
    let data = json!({
        "DataSource": "noCloud", "UserData": SECRET, "NetworkData": SECRET,
        "NoCloudMetaData": {"instance-id": "i", "public-keys": {"0": SECRET}},
        "ConfigDriveMetaData": {"uuid": "u", "public_keys": {"0": SECRET}},
    });
    (vmi, domain, data.to_string())
}

#[tokio::test]
async fn planted_secrets_are_not_in_the_files_unless_they_are_asked_for() {
    let hook = "#!/bin/sh\ncase $4 in *refuse*) echo \"password=$4\" >&2; exit 1;; esac\n\
                printf '%s\\n' \"$4\"\n";
    for keeps in [false, true] {
        let builder = Shim::builder().program("onDefineDomain", hook);
        let builder = builder.program("preCloudInitIso", hook).program("preVMStart", hook);
        let (builder, directory) = recording(builder.both_apis());
        let builder = if keeps { builder.args(["--record-secrets"]) } else { builder };
        let mut shim = builder.start().await;
        let (vmi, domain, data) = with_secrets();
        let (legacy, plugin) = (shim.dial().await, shim.dial_plugin().await);
        legacy.define("v1alpha3", vmi.to_string(), domain.clone()).await.unwrap();
        legacy.cloud_init("v1alpha3", &vmi, &data, &data).await.unwrap();
        plugin.node_hook("PreVMStart", &vmi).await.unwrap();
        let refused = domain.replace("<title>", "<title>refuse ");
        legacy.define("v1alpha3", vmi.to_string(), refused).await.unwrap_err();
        stop(&mut shim).await;
        let found = cases(&directory);
        assert_eq!(found.len(), 4);
        for (name, files) in &found {
            let text = files.values().cloned().collect::<Vec<_>>().concat();
            assert_eq!(text.contains(SECRET), keeps, "{name}: {files:?}");
        }
        let has = |case: usize, file: &str| found[case].1.contains_key(file);
        assert!(has(0, "expected.xml") && has(2, "unchanged") && has(3, "error.txt"));
        assert_eq!(has(1, "expected.json"), keeps);
        let expected = format!("{}\n", found[0].1["domain.xml"]);
        assert_eq!(found[0].1["expected.xml"], expected, "the hook adds a line");
        shim.assert_not_logged("was not recorded");
    }
}

#[tokio::test]
async fn a_worker_that_quotes_a_secret_does_not_get_it_into_a_file() {
    let (builder, directory) = recording(Shim::persistent(""));
    let mut shim = builder.start().await;
    let (secrets, domain, _) = with_secrets();
    let user_data = "#cloud-config\nusers:\n- root:HUNTER\nssh: true\n";
    for message in [
        format!("no GPU for {SECRET}"),
        format!("{} {SECRET}", "x".repeat(590)),
        format!("bad user data: {user_data}"),
        "- root:HUNTER\nask the admin".to_owned(),
    ] {
        let mut vmi = secrets.clone();
        let error = json!({"code": -32000, "message": message});
        vmi["do"] = json!("error");
        vmi["error"] = error;
        vmi["spec"]["volumes"][0]["cloudInitNoCloud"]["userData"] = json!(user_data);
        let status = shim.define(&vmi, &domain).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
    }
    stop(&mut shim).await;
    let errors: Vec<_> =
        cases(&directory).into_iter().map(|(_, files)| files["error.txt"].clone()).collect();
    assert_eq!(
        errors,
        [
            "FAILED_PRECONDITION\nno GPU for REPLACED\n".to_owned(),
            format!("FAILED_PRECONDITION\n{} REPLACED\n", "x".repeat(590)),
            "FAILED_PRECONDITION\nbad user data: #cloud-config\n{} # replaced by sidecar-shim \
             --record\n"
                .to_owned(),
            "FAILED_PRECONDITION\nREPLACED\nask the admin\n".to_owned(),
        ]
    );
}

#[tokio::test]
async fn what_says_nothing_of_the_hook_is_not_recorded() {
    let builder = Shim::persistent("").args(["--max-workers", "1", "--queue-limit", "0"]);
    let (builder, directory) = recording(builder);
    let mut shim = builder.start().await;
    let running = shim.call_in_flight().await;
    assert_eq!(shim.fails(&json!({})).await.code(), Code::ResourceExhausted);
    running.finish().await.unwrap();
    let late = shim.hangs().await;
    assert_eq!(late.code(), Code::DeadlineExceeded);
    stop(&mut shim).await;
    let found = cases(&directory);
    let outcomes: Vec<_> = found.iter().map(|(_, files)| files.contains_key("error.txt")).collect();
    assert_eq!(outcomes, [false, true], "{found:?}");
    assert_eq!(found[1].1["error.txt"], "DEADLINE_EXCEEDED\n");
    assert!(found[1].1["args.toml"].contains("deadline = \""), "{found:?}");
}

#[tokio::test]
async fn calls_at_once_become_cases_of_their_own_and_each_is_whole() {
    // As many as may wait for a disk that is slow.
    const CALLS: usize = 32;
    let (builder, directory) = recording(Shim::persistent("--concurrency 4"));
    let mut shim = builder.start().await;
    let domain = domain_of(20_000);
    let calls = (0..CALLS).map(|number| {
        let (vmi, domain) = (vmi(&format!("vm-{number}")), domain.clone());
        let shim = &shim;
        async move { assert_eq!(shim.define(&vmi, &domain).await.unwrap(), domain) }
    });
    futures_util::future::join_all(calls).await;
    let written = || names(&directory).iter().filter(|name| name.starts_with('2')).count();
    eventually("all cases are written", || written() == CALLS).await;
    stop(&mut shim).await;
    let omitted = shim.count("was not recorded");
    let found = cases(&directory);
    assert_eq!((found.len(), omitted), (CALLS, 0));
    for (name, files) in found {
        assert!(files["vmi.json"].contains(name.split('-').nth_back(1).unwrap()), "{name}");
        assert_eq!((files["domain.xml"].as_str(), &*files["unchanged"]), (&*domain, ""), "{name}");
    }
}

#[tokio::test]
async fn an_empty_option_undoes_an_earlier_one() {
    let builder =
        Shim::builder().program("onDefineDomain", ECHO).env("SIDECAR_SHIM_RECORD", "/a/b");
    let mut shim = builder.args(["--record="]).start().await;
    shim.still_works().await;
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
}

#[tokio::test]
async fn options_that_record_nothing_are_refused() {
    for (args, expected) in [
        (&["--record="][..], "--record is empty: give the directory"),
        (&["--record", "", "--record-limit", "3"], "--record is empty: give the directory"),
        (&["--record-limit", "3"], "--record-limit records nothing without --record"),
        (&["--record-bytes=1MiB"], "--record-bytes records nothing without --record"),
        (&["--record-secrets"], "--record-secrets records nothing without --record"),
    ] {
        let builder = Shim::builder().program("onDefineDomain", ECHO).args(args);
        let mut shim = builder.spawn();
        assert_eq!(shim.exited().await.code(), Some(2), "{args:?}");
        shim.assert_logged(expected);
    }
    // An image may set a limit, and an earlier option may be undone.
    for args in [&[][..], &["--record", "/a/b", "--record-limit", "3", "--record="]] {
        let builder = Shim::builder().program("onDefineDomain", ECHO).args(args);
        let mut shim = builder.env("SIDECAR_SHIM_RECORD_LIMIT", "3").start().await;
        shim.still_works().await;
        stop(&mut shim).await;
    }
}
