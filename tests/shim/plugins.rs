//! The Plugins API: the same hooks, called through other services.

use serde_json::{Value, json};
use tonic::Code;

use crate::support::{DOMAIN, PYTHON, Shim, ShimBuilder, comment, read, worker};

/// An argv-style hook that creates a file, for any hook point.
const MARK: &str = "#!/bin/sh\ntouch \"$MARK\"\n";

/// Exec mode with these programs, behind the Plugins API.
fn exec(programs: &[(&str, &str)]) -> ShimBuilder {
    let builder = Shim::builder().plugin();
    let mark = builder.dir().join("mark");
    // A hook must not see this variable of the shim's own environment.
    let builder = builder.env("MARK", mark).env("KUBEVIRT_HOOK_CONTEXT", "Elsewhere");
    programs.iter().fold(builder, |builder, (name, text)| builder.program(name, text))
}

/// One file with a hook of each kind, behind both APIs: as programs in exec mode, and as a worker in
/// persistent mode.
async fn every_hook() -> [Shim; 2] {
    let text = read("tests/fixtures/every_hook.py").replace("/usr/bin/env python3", &PYTHON);
    let in_path = Shim::builder().both_apis().program("onDefineDomain", &text);
    let in_path = in_path.program("preCloudInitIso", &text).program("preVMStart", &text);
    let in_path = in_path.program("preVMStop", &text);
    let worker = Shim::builder().both_apis().program("every_hook", &text).worker("every_hook");
    [in_path.start().await, worker.start().await]
}

#[tokio::test]
async fn one_hook_file_serves_both_apis_in_both_modes() {
    let vmi = json!({});
    let with = |context: &str| DOMAIN.replace("</domain>", &format!("<!-- {context} --></domain>"));
    for mut shim in every_hook().await {
        let (legacy, plugin) = (shim.dial().await, shim.dial_plugin().await);
        let answer = legacy.define("v1alpha3", vmi.to_string(), DOMAIN).await.unwrap();
        assert_eq!(answer, with("None"));
        let [data, _] = legacy.cloud_init("v1alpha3", &vmi, "{}", "").await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), json!({"UserData": "# None"}));
        for context in ["Boot", "MigrationTarget"] {
            let answer = plugin.mutate("libvirt", &vmi, DOMAIN, Some(context)).await.unwrap();
            assert_eq!(answer, with(context));
        }
        let answer = plugin.mutate("libvirt", &vmi, DOMAIN, None).await.unwrap();
        assert_eq!(answer, with("None"));
        // The same by the name that KubeVirt 1.10 gives it.
        let answer = plugin.guest_definition(&vmi, DOMAIN, "Boot").await.unwrap();
        assert_eq!(answer, with("Boot"));
        shim.log_line("GuestDefinition method has been called").await;
        plugin.node_hook("PreVMStart", &vmi).await.unwrap();
        shim.log_line("ExecuteNodeHook method has been called").await;
        shim.log_line("preVMStart for None").await;
        // Each API offers its own hooks only.
        let offered = legacy.info().await.hook_points;
        let offered: Vec<_> = offered.iter().map(|point| point.name.as_str()).collect();
        assert_eq!(offered, ["OnDefineDomain", "PreCloudInitIso", "Shutdown"]);
        crate::other_clients::call_plugin(&shim).await;
    }
}

#[tokio::test]
async fn the_hook_before_a_stop_is_found_by_both_of_its_names() {
    let show = "#!/bin/sh\necho \"$0\" >&2\n";
    for hook in ["preVMStop", "onVMStop"] {
        let worker = Shim::persistent(&format!("--hooks onDefineDomain,{hook}")).plugin().start();
        for mut shim in [exec(&[(hook, show)]).start().await, worker.await] {
            let plugin = shim.dial_plugin().await;
            for point in ["PreVMStop", "OnVMStop"] {
                plugin.node_hook(point, &json!({"do": "show"})).await.unwrap();
                assert_eq!(shim.log_line(hook).await["hook"], hook, "{point}");
                assert_eq!(shim.log_line("hook answered").await["hook"], hook, "{point}");
            }
            let status = plugin.node_hook("PostVMStop", &json!({})).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        }
    }
    // A hook of the name that KubeVirt uses comes first.
    let both = [("preVMStop", "#!/bin/sh\nexit 8\n"), ("onVMStop", "#!/bin/sh\nexit 9\n")];
    let plugin = exec(&both).start().await;
    let plugin = plugin.dial_plugin().await;
    for (point, expected) in [
        ("PreVMStop", "hook preVMStop failed: preVMStop exited with status 8"),
        ("OnVMStop", "hook onVMStop failed: onVMStop exited with status 9"),
    ] {
        let status = plugin.node_hook(point, &json!({})).await.unwrap_err();
        assert!(status.message().starts_with(expected), "{status:?}");
    }
    // The status names the hook as KubeVirt does if there is neither.
    let shim = exec(&[("preVMStart", show)]).start().await;
    let status = shim.dial_plugin().await.node_hook("OnVMStop", &json!({})).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(status.message().starts_with("hook onVMStop is not served here"), "{status:?}");
}

#[tokio::test]
async fn a_worker_must_not_declare_a_name_that_is_reserved_for_virt_launcher() {
    for (hook, point) in
        [("preBoot", "PreBoot"), ("launcherPreMigrationSource", "PreMigrationSource")]
    {
        let mut shim = Shim::persistent(&format!("--hooks preVMStart,{hook}")).plugin().spawn();
        let text = format!(
            "it declares {hook}, a name that is reserved for the hook point {point} of KubeVirt \
             1.10's virt-launcher, which this version of sidecar-shim does not serve"
        );
        shim.log_line(&text).await;
        assert!(!shim.exited().await.success());
        // Exec mode never runs such a program.
        let shim = exec(&[(hook, MARK)]).start().await;
        let point = hook[..1].to_uppercase() + &hook[1..];
        let status = shim.dial_plugin().await.node_hook(&point, &json!({})).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        assert!(!shim.dir.path().join("mark").exists());
    }
}

#[tokio::test]
async fn a_name_that_is_not_a_served_node_hook_is_unimplemented_and_runs_nothing() {
    let marks = ["kill", "Kill", "sh", "onDefineDomain", "preCloudInitIso", "initialize"];
    let marks: Vec<_> = marks.into_iter().map(|name| (name, MARK)).collect();
    let worker = Shim::persistent("--hooks onDefineDomain,preVMStop").plugin().start();
    let long = "A".repeat(5000);
    for shim in [exec(&marks).start().await, worker.await] {
        let plugin = shim.dial_plugin().await;
        for point in ["Kill", "kill", "../../bin/sh", "OnDefineDomain", "PreCloudInitIso", "", "É"]
            .into_iter()
            .chain(["Initialize", "PreVMStart", "$/log", "a b", "A\0", &long])
        {
            // The worker would be killed if it saw this VMI.
            let status = plugin.node_hook(point, &json!({"do": "kill"})).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented, "{point:?}: {status:?}");
            assert!(status.message().contains("is not served here"), "{point:?}: {status:?}");
            assert!(status.message().len() < 300, "{status:?}");
            // Some words are never node hooks, and the caller sees why.
            if point == "OnDefineDomain" {
                let why = "and none of OnDefineDomain, PreCloudInitIso, Initialize, PreBoot and \
                           LauncherPreMigrationSource";
                assert!(status.message().ends_with(why), "{status:?}");
            }
        }
        assert!(!shim.dir.path().join("mark").exists());
    }
}

#[tokio::test]
async fn the_program_of_a_node_hook_gets_the_vm_and_the_node_and_its_status_is_the_answer() {
    let show = "#!/bin/sh\necho \"$# $1 $2 $3 $4 in=$(cat) for=$KUBEVIRT_HOOK_CONTEXT.\" >&2\n\
                yes | head -c 20000000\n";
    let fail = "#!/bin/sh\necho 'no memory may be locked' >&2\nexit 7\n";
    let mut shim = exec(&[("preVMStart", show), ("postVMStop", fail)]).start().await;
    let plugin = shim.dial_plugin().await;
    plugin.node_hook("PreVMStart", &json!({"a": 1})).await.unwrap();
    shim.log_line("4 --vmi {\"a\":1} --node node01 in= for=.").await;
    let status = plugin.node_hook("PostVMStop", &json!({})).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        status.message(),
        "hook postVMStop failed: postVMStop exited with status 7; the last lines of its \
         stderr:\nno memory may be locked"
    );
    let vmi = json!({"a": "x".repeat(200_000)});
    let status = plugin.node_hook("PreVMStart", &vmi).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test]
async fn the_program_of_a_domain_hook_gets_the_context_of_the_call() {
    let show = "#!/bin/sh\nprintf '<domain><!-- \"%s\" --></domain>' \"$KUBEVIRT_HOOK_CONTEXT\"\n";
    let shim = exec(&[("onDefineDomain", show)]).version("v1alpha2").start().await;
    let (legacy, plugin) = (shim.dial().await, shim.dial_plugin().await);
    let shown = plugin.mutate("libvirt", &json!({}), DOMAIN, Some("MigrationSource")).await;
    assert_eq!(comment(&shown.unwrap()), "MigrationSource");
    for shown in [
        plugin.mutate("libvirt", &json!({}), DOMAIN, Some("")).await,
        plugin.mutate("libvirt", &json!({}), DOMAIN, None).await,
        legacy.define("v1alpha2", "{}", DOMAIN).await,
    ] {
        assert_eq!(comment(&shown.unwrap()), "");
    }
    for (context, expected) in [("a\0b", "contains a NUL character"), (&"x".repeat(64), "64 bytes")]
    {
        let status = plugin.mutate("libvirt", &json!({}), DOMAIN, Some(context)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(expected), "{status:?}");
    }
}

#[tokio::test]
async fn a_worker_gets_the_node_and_the_context_of_the_call() {
    let mut shim =
        Shim::persistent("--hooks onDefineDomain,preVMStart,later1").plugin().start().await;
    let (plugin, show) = (shim.dial_plugin().await, json!({"do": "show"}));
    plugin.node_hook("PreVMStart", &show).await.unwrap();
    let line = shim.log_line("preVMStart").await;
    assert_eq!(line["hook"], "preVMStart");
    let shown: Value = serde_json::from_str(line["msg"].as_str().unwrap()).unwrap();
    let shown = &shown["preVMStart"];
    assert_eq!(
        (&shown["nodeName"], &shown["invocation"]["context"]),
        (&"node01".into(), &Value::Null)
    );
    // KubeVirt may add hook points: every hook that the worker declares is served.
    plugin.node_hook("Later1", &show).await.unwrap();
    shim.log_line("later1").await;
    plugin.mutate("libvirt", &show, DOMAIN, Some("MigrationTarget")).await.unwrap();
    let line = shim.log_line("onDefineDomain").await;
    let shown: Value = serde_json::from_str(line["msg"].as_str().unwrap()).unwrap();
    assert_eq!(shown["onDefineDomain"]["invocation"]["context"], "MigrationTarget");
}

#[tokio::test]
async fn domains_of_another_type_come_back_unchanged() {
    let mut shim = Shim::persistent("").plugin().start().await;
    let plugin = shim.dial_plugin().await;
    for domain_type in ["", "Libvirt", "cloud-hypervisor"] {
        let answer = plugin.mutate(domain_type, &json!({"do": "kill"}), "{ no XML", None).await;
        assert_eq!(answer.unwrap(), "{ no XML", "{domain_type:?}");
        shim.log_line("the domain's type is not libvirt").await;
    }
}

#[tokio::test]
async fn an_option_names_node_hooks_that_kubevirt_adds_later() {
    let programs = [("preVMSnapshot", "#!/bin/sh\n"), ("postVMSnapshot", MARK)];
    let shim = exec(&programs).args(["--node-hooks", "PreVMSnapshot"]).start().await;
    let plugin = shim.dial_plugin().await;
    plugin.node_hook("PreVMSnapshot", &json!({})).await.unwrap();
    let status = plugin.node_hook("PostVMSnapshot", &json!({})).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(status.message().contains("--node-hooks"), "{status:?}");
    assert!(!shim.dir.path().join("mark").exists());
    for (names, expected) in [
        ("preVMSnapshot,preNothing", "--node-hooks names preNothing: there is no program"),
        ("onDefineDomain", "is not a node hook"),
        ("../sh", "is not a node hook"),
    ] {
        let builder = Shim::builder().program("preVMSnapshot", MARK);
        let mut shim = builder.args(["--node-hooks", names]).spawn();
        shim.log_line(expected).await;
        assert!(!shim.exited().await.success());
    }
    // Workers in $PATH are found by such names as well.
    let text = format!("#!/bin/sh\nexec {}\n", worker("--hooks preVMSnapshot"));
    let args = ["--mode", "persistent", "--node-hooks", "preVMSnapshot"];
    let shim = exec(&[("preVMSnapshot", &text)]).args(args).start().await;
    shim.dial_plugin().await.node_hook("PreVMSnapshot", &json!({})).await.unwrap();
}

#[tokio::test]
async fn a_node_hook_is_retried_only_if_its_worker_allows_it() {
    let args = ["--log-level", "debug"];
    let mut shim =
        Shim::persistent("--hooks onDefineDomain,preVMStart").plugin().args(args).start().await;
    let plugin = shim.dial_plugin().await;
    let status = plugin.node_hook("PreVMStart", &json!({"do": "exit at first"})).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("exited with status 3"), "{status:?}");
    // A domain hook is always retried.
    let answer = plugin.mutate("libvirt", &json!({"do": "exit at first"}), DOMAIN, None).await;
    assert_eq!(comment(&answer.unwrap())["attempt"], 2);
    plugin.node_hook("PreVMStart", &json!({"do": "retryable at first"})).await.unwrap();
    shim.log_line("asked").await;
    let refusal = json!({"code": -32000, "message": "the node is full"});
    let vmi = json!({"do": "error", "error": refusal});
    let status = plugin.node_hook("PreVMStart", &vmi).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "hook preVMStart refused: the node is full");
}

#[tokio::test]
async fn each_socket_serves_its_own_api() {
    let shim = Shim::persistent("").both_apis().start().await;
    let (legacy, plugin) = (shim.dial().await, shim.dial_plugin().await);
    let status = plugin.define("v1alpha3", "{}", DOMAIN).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(plugin.shutdown().await.unwrap_err().code(), Code::Unimplemented);
    let status = legacy.mutate("libvirt", &json!({}), DOMAIN, None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let alone = Shim::persistent("").plugin().start().await;
    assert!(alone.sockets().is_empty());
}

#[tokio::test]
async fn a_shutdown_removes_both_sockets() {
    let mut shim = Shim::persistent("").both_apis().start().await;
    let (legacy, plugin) = (shim.socket(), shim.plugin_socket());
    assert!(legacy.exists() && plugin.exists());
    shim.dial().await.shutdown().await.unwrap();
    assert_eq!(shim.exited().await.code(), Some(0));
    assert!(!legacy.exists() && !plugin.exists());
}

/// A domain as the pipeline of plugins has it: KubeVirt declares no prefix of QEMU's.
const PLUGINS_DOMAIN: &str = "<domain type=\"kvm\">\n  <name>ns_vm1</name>\n  <devices></devices>\n\
                              </domain>\n";

/// A hook for QEMU arguments that declares the prefix only if the root has the quotes of a hook
/// sidecar's domain.
const ARGUMENTS: &str = "#!/bin/sh\n\
    printf '%s\\n' \"$4\" | sed -e \"s#<domain type='kvm'>#<domain type='kvm' \
    xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>#\" \
    -e 's#</domain>#<qemu:commandline><qemu:arg value=\"-s\"/></qemu:commandline></domain>#'\n";

#[tokio::test]
async fn arguments_that_libvirt_would_ignore_are_refused_with_the_declaration_that_they_need() {
    let shim = exec(&[("onDefineDomain", ARGUMENTS)]).start().await;
    let plugin = shim.dial_plugin().await;
    let status =
        plugin.mutate("libvirt", &json!({}), PLUGINS_DOMAIN, Some("Boot")).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        status.message(),
        "hook onDefineDomain returned an invalid document: domain is not a well-formed domain: \
         prefix \"qemu\" is not declared at line 4: add \
         xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\" to <domain>"
    );
    let declared = PLUGINS_DOMAIN.replace('"', "'");
    let answer = plugin.mutate("libvirt", &json!({}), &declared, Some("Boot")).await.unwrap();
    assert!(answer.contains("xmlns:qemu=") && answer.contains("<qemu:arg "), "{answer}");
}

#[tokio::test]
async fn a_prefix_that_the_request_does_not_declare_either_is_passed_on() {
    let rename = "#!/bin/sh\nprintf '%s\\n' \"$4\" | sed 's#ns_vm1#renamed#'\n";
    let shim = exec(&[("onDefineDomain", rename)]).start().await;
    let plugin = shim.dial_plugin().await;
    let kept = "<metadata><app:x app:y=\"1\"/></metadata></domain>";
    let domain = PLUGINS_DOMAIN.replace("</domain>", kept);
    let answer = plugin.mutate("libvirt", &json!({}), &domain, Some("Boot")).await.unwrap();
    assert_eq!(answer.trim(), domain.replace("ns_vm1", "renamed").trim());
}
