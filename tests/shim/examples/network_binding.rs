//! The network binding plugin, in Python and in Rust, in both modes, on the shared cases of
//! `tests/fixtures/network_binding`.
//!
//! `vmi.json` and `domain.xml` are a VM whose interface has no place in the domain yet, as KubeVirt
//! sends it. A case changes them, `vmi` by merge patches at JSON pointers and `domain` by texts that
//! are replaced, and the expected `interface` likewise. What a hook adds is compared by its meaning:
//! how an editor breaks lines is not this example's business. Everything else has to stay to the byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use roxmltree::{Document, Node};
use serde::Deserialize;
use serde_json::Value;
use tonic::Code;

use crate::support::{Mode, Shim, assert_same_document, python, read, rust};

const DIRECTORY: &str = "tests/fixtures/network_binding";

/// The numbers of disks of small, ordinary and large VMs.
const DISKS: [usize; 3] = [1, 16, 256];

/// The variable in which KubeVirt names the plugin.
const PLUGIN_NAME: &str = "NETWORK_BINDING_PLUGIN_NAME";

/// The plugins of the cases.
const PLUGINS: [Option<&str>; 2] = [None, Some("pod-passt")];

/// Texts of a document and their replacements.
type Edits = Vec<(String, String)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// What the hook adds, unless a case changes it.
    interface: String,
    memory: String,
    cases: Vec<Case>,
    refusals: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    /// `NETWORK_BINDING_PLUGIN_NAME`. Without one, the hook's name is passt.
    plugin: Option<String>,
    #[serde(default)]
    vmi: BTreeMap<String, Value>,
    #[serde(default)]
    domain: Edits,
    #[serde(default)]
    interface: Edits,
    #[serde(default)]
    unchanged: bool,
    /// Why the hook refuses. The text names the plugin before it.
    reason: Option<String>,
}

impl Case {
    fn documents(&self) -> (Value, String) {
        let mut vmi = sample_vmi();
        for (pointer, patch) in &self.vmi {
            merge(vmi.pointer_mut(pointer).expect(pointer), patch);
        }
        (vmi, edited(&read(&format!("{DIRECTORY}/domain.xml")), &self.domain))
    }
}

fn table() -> Table {
    serde_json::from_str(&read(&format!("{DIRECTORY}/cases.json"))).unwrap()
}

fn sample_vmi() -> Value {
    serde_json::from_str(&read(&format!("{DIRECTORY}/vmi.json"))).unwrap()
}

fn edited(text: &str, edits: &Edits) -> String {
    edits.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replace(old, new)
    })
}

/// A JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let (Some(target), Some(patch)) = (target.as_object_mut(), patch.as_object()) else {
        patch.clone_into(target);
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// The VM with this many disks.
fn with_disks(number: usize) -> (Value, String) {
    let (mut vmi, domain) = (sample_vmi(), read(&format!("{DIRECTORY}/domain.xml")));
    let (before, rest) = domain.split_at(domain.find("\t\t<disk ").unwrap());
    let (disk, after) = rest.split_at(rest.find("\t\t<serial ").unwrap());
    let (mut disks, mut described, mut volumes) = (String::new(), Vec::new(), Vec::new());
    for index in 0..number {
        let name = format!("disk{index}");
        let letters = [index / 26, index % 26].map(|it| (b'a' + u8::try_from(it).unwrap()) as char);
        let target = format!("vd{}{}", letters[0], letters[1]);
        let disk = disk.replace("rootdisk", &name).replace("vda", &target);
        disks += &disk.replace("disk_0", &format!("disk_{index}"));
        let devices = &vmi["spec"]["domain"]["devices"];
        for (list, sample) in
            [(&mut described, &devices["disks"][0]), (&mut volumes, &vmi["spec"]["volumes"][0])]
        {
            let mut added = sample.clone();
            added["name"] = name.clone().into();
            list.push(added);
        }
    }
    vmi["spec"]["domain"]["devices"]["disks"] = described.into();
    vmi["spec"]["volumes"] = volumes.into();
    (vmi, format!("{before}{disks}{after}"))
}

/// A domain in the parts that the hook looks at.
#[derive(Debug, PartialEq)]
struct Parts {
    interface: Option<String>,
    memory: Option<String>,
    /// What stands before and behind the interface, without the white space before it, and without
    /// the memory if it is new.
    around: (String, String),
}

impl Parts {
    fn of(domain: &str, name: &str, new_memory: bool) -> Self {
        let document = Document::parse(domain).unwrap();
        let root = document.root_element();
        let children = |node: Node<'_, '_>, of: &str| -> Vec<_> {
            node.children().filter(|it| it.has_tag_name(of)).map(|it| it.id()).collect()
        };
        let [devices] = children(root, "devices")[..] else { panic!("{domain}") };
        let interfaces = children(document.get_node(devices).unwrap(), "interface");
        let interfaces: Vec<_> = interfaces
            .into_iter()
            .map(|id| document.get_node(id).unwrap())
            .filter(|it| {
                let alias = it.children().find(|it| it.has_tag_name("alias"));
                let alias = alias.and_then(|it| it.attribute("name")).unwrap_or_default();
                alias.strip_prefix("ua-").unwrap_or(alias) == name
            })
            .collect();
        let memory: Vec<_> = children(root, "memoryBacking")
            .into_iter()
            .map(|id| document.get_node(id).unwrap())
            .collect();
        assert!(interfaces.len() < 2 && memory.len() < 2, "{domain}");
        let removed = memory.first().filter(|_| new_memory);
        let without = |from: usize, to: usize| match removed.map(Node::range) {
            Some(range) if from <= range.start && range.end <= to => {
                domain[from..range.start].trim_end().to_owned() + &domain[range.end..to]
            }
            _ => domain[from..to].to_owned(),
        };
        // Without an interface: where the devices end.
        let end = document.get_node(devices).unwrap().range().end - "</devices>".len();
        let end = domain[..end].trim_end().len();
        let range = interfaces.first().map_or(end..end, Node::range);
        let before = without(0, range.start).trim_end().to_owned();
        Self {
            interface: interfaces.first().map(|it| meaning(*it)),
            memory: memory.first().map(|it| meaning(*it)),
            around: (before, without(range.end, domain.len())),
        }
    }
}

/// An element's meaning: without white space, comments, and the order of attributes.
fn meaning(node: Node<'_, '_>) -> String {
    let attributes: BTreeMap<_, _> = node.attributes().map(|it| (it.name(), it.value())).collect();
    let mut text = format!("<{:?} {attributes:?}>", node.tag_name());
    for child in node.children() {
        if child.is_element() {
            text += &meaning(child);
        } else if let Some(content) =
            child.text().filter(|it| child.is_text() && !it.trim().is_empty())
        {
            write!(text, "{content:?}").unwrap();
        }
    }
    text + "</>"
}

fn meaning_of(element: &str) -> String {
    meaning(Document::parse(element).unwrap().root_element())
}

/// A shim that runs the hook.
struct Hook {
    shim: Shim,
    plugin: Option<&'static str>,
    mode: Mode,
    /// Names the program and the mode in failures.
    name: String,
}

/// The hook in each language and mode, as each of these plugins.
async fn hooks(plugins: &[Option<&'static str>]) -> Vec<Hook> {
    let mut hooks = Vec::new();
    for program in [python("network_binding"), rust("network_binding")] {
        for &mode in program.modes {
            for &plugin in plugins {
                let builder = match mode {
                    Mode::Persistent => Shim::worker(&program.command()),
                    Mode::Exec => {
                        let script = format!("#!/bin/sh\nexec {} \"$@\"\n", program.command());
                        Shim::builder().program("onDefineDomain", &script)
                    }
                };
                let shim = builder.env(PLUGIN_NAME, plugin.unwrap_or_default()).start().await;
                let name = format!("{:?}, {mode:?}", program.language);
                hooks.push(Hook { shim, plugin, mode, name });
            }
        }
    }
    hooks
}

impl Hook {
    /// The cases for this hook's plugin.
    fn cases<'a>(&self, cases: &'a [Case]) -> impl Iterator<Item = &'a Case> {
        let plugin = self.plugin;
        let cases: Vec<_> = cases.iter().filter(|it| it.plugin.as_deref() == plugin).collect();
        assert!(!cases.is_empty());
        cases.into_iter()
    }

    async fn check(&self, what: &str, vmi: &Value, sent: &str, interface: &str, memory: &str) {
        let what = format!("{}: {what}", self.name);
        let name = vmi["spec"]["networks"].as_array().unwrap().iter();
        let name = name.filter(|it| it.get("pod").is_some()).find_map(|it| it["name"].as_str());
        let name = name.unwrap();
        let answer = self.shim.define(vmi, sent).await.expect(&what);
        let before = Parts::of(sent, name, false);
        let after = Parts::of(&answer, name, before.memory.is_none());
        let memory = before.memory.unwrap_or_else(|| meaning_of(memory));
        assert_eq!(after.interface, Some(meaning_of(interface)), "{what}");
        assert_eq!(after.memory, Some(memory), "{what}");
        let [(before, behind), (still_before, still_behind)] = [before.around, after.around];
        assert_same_document(&before, &still_before, &format!("{what}: before the interface"));
        assert_same_document(&behind, &still_behind, &format!("{what}: behind the interface"));
        let again = self.shim.define(vmi, &answer).await.expect(&what);
        assert_same_document(&answer, &again, &format!("{what}: called on its own result"));
    }
}

#[tokio::test]
async fn it_does_what_kubevirts_own_does() {
    let Table { interface, memory, cases, .. } = table();
    for hook in hooks(&PLUGINS).await {
        for case in hook.cases(&cases) {
            let (vmi, domain) = case.documents();
            if case.unchanged {
                let answer = hook.shim.define(&vmi, &domain).await.unwrap();
                assert_same_document(&domain, &answer, &format!("{}: {}", hook.name, case.about));
                continue;
            }
            let interface = edited(&interface, &case.interface);
            hook.check(&case.about, &vmi, &domain, &interface, &memory).await;
        }
    }
}

#[tokio::test]
async fn it_does_so_for_small_and_for_large_vms() {
    let Table { interface, memory, .. } = table();
    for hook in hooks(&PLUGINS[..1]).await {
        // An argument of a program has 131,071 bytes at most.
        let fits = |number: &usize| hook.mode == Mode::Persistent || *number < 256;
        for number in DISKS.into_iter().filter(fits) {
            let (vmi, domain) = with_disks(number);
            assert_eq!(domain.matches("<disk ").count(), number);
            let what = format!("{number} disks");
            hook.check(&what, &vmi, &domain, &interface, &memory).await;
        }
    }
}

#[tokio::test]
async fn it_explains_what_is_wrong_with_the_vm() {
    let refusals = table().refusals;
    for hook in hooks(&PLUGINS).await {
        for case in hook.cases(&refusals) {
            let (vmi, domain) = case.documents();
            let what = format!("{}: {}", hook.name, case.about);
            let status = hook.shim.define(&vmi, &domain).await.expect_err(&what);
            let code = match hook.mode {
                Mode::Persistent => Code::FailedPrecondition,
                Mode::Exec => Code::Internal,
            };
            assert_eq!(status.code(), code, "{what}: {status:?}");
            let plugin = hook.plugin.unwrap_or("passt");
            let reason = format!("network binding {plugin}: {}", case.reason.as_ref().unwrap());
            assert!(status.message().contains(&reason), "{what}: no {reason:?} in {status:?}");
            assert!(!status.message().contains("Traceback"), "{what}: {status:?}");
        }
    }
}

/// KubeVirt starts the sidecar of a network binding with nothing but these two variables: the rest
/// is in the image.
#[tokio::test]
async fn it_starts_without_arguments_as_kubevirt_starts_it() {
    let Table { interface, memory, .. } = table();
    for program in [python("network_binding"), rust("network_binding")] {
        let builder = Shim::builder().without_arguments().env(PLUGIN_NAME, "passt");
        let builder = builder.env("CONTAINER_NAME", "hook-sidecar-0");
        let image = builder.env("SIDECAR_SHIM_VERSION", "v1alpha3");
        let image = image.env("SIDECAR_SHIM_MODE", "persistent");
        let shim = image.env("SIDECAR_SHIM_WORKER", program.command()).start().await;
        let info = shim.dial().await.info().await;
        let points: Vec<_> = info.hook_points.iter().map(|point| point.name.as_str()).collect();
        assert_eq!(
            (points, info.versions),
            (vec!["OnDefineDomain", "Shutdown"], vec!["v1alpha3".to_owned()])
        );
        let name = format!("{:?}", program.language);
        let mut hook = Hook { shim, plugin: None, mode: Mode::Persistent, name };
        let (vmi, domain) = with_disks(1);
        hook.check("without arguments", &vmi, &domain, &interface, &memory).await;
        hook.shim.dial().await.shutdown().await.unwrap();
        assert_eq!(hook.shim.exited().await.code(), Some(0));
    }
}

#[tokio::test]
async fn an_image_without_a_version_learns_what_a_network_binding_needs() {
    let builder = Shim::builder().without_arguments().env(PLUGIN_NAME, "passt");
    let mut shim = builder.env("CONTAINER_NAME", "hook-sidecar-0").spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    for part in [
        "no hook API version: give --version",
        "KubeVirt starts the sidecar of a network binding without arguments",
        "SIDECAR_SHIM_VERSION=v1alpha3",
        "SIDECAR_SHIM_MODE",
        "SIDECAR_SHIM_WORKER",
    ] {
        shim.assert_logged(part);
    }
}
