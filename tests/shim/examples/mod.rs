//! The examples that people copy, in each language and in both modes. [`table`] says what they do.

mod memlock;
mod network_binding;
mod nodegate;
mod table;

use serde_json::{Value, json};
use tonic::{Code, Status};

use self::table::{Case, Example, Refusal, kubevirt_domain};
use crate::support::{
    Language, Mode, Program, Shim, assert_same_document, file, go, perl, python, read, rust, shell,
};

/// The sample VMI with these annotations.
fn vmi(annotations: Value) -> Value {
    let mut vmi: Value =
        serde_json::from_str(&read("crates/hookctl/src/samples/vmi.json")).unwrap();
    vmi["metadata"]["annotations"] = annotations;
    vmi
}

/// An example that a shim runs.
struct Running<'a> {
    shim: Shim,
    mode: Mode,
    example: &'a Example,
    /// Names the example in failures.
    name: String,
}

impl<'a> Running<'a> {
    async fn start(example: &'a Example, program: &Program, mode: Mode) -> Self {
        let builder = match mode {
            Mode::Persistent => Shim::worker(&program.command()),
            Mode::Exec => {
                let script = format!("#!/bin/sh\nexec {} \"$@\"\n", program.command());
                Shim::builder().program(example.hook, &script)
            }
        };
        let name = format!("{} in {:?}, {mode:?}", example.name, program.language);
        Self { shim: builder.start().await, mode, example, name }
    }

    /// The document after the hook.
    async fn call(&self, annotations: Value, document: &str) -> Result<String, Status> {
        let (client, vmi) = (self.shim.dial().await, vmi(annotations));
        if self.example.hook == "onDefineDomain" {
            return client.define("v1alpha3", vmi.to_string(), document.to_owned()).await;
        }
        let [data, _] = client.cloud_init("v1alpha3", &vmi, document, "").await?;
        Ok(data)
    }

    async fn check(&self, case: &Case) {
        let what = format!("{}: {}", self.name, case.what);
        let annotations = json!({"another": "one", self.example.annotation: case.value});
        let answer = self.call(annotations.clone(), &case.sent).await.unwrap();
        if case.as_json {
            let parsed = [&case.expected, &answer].map(|text| serde_json::from_str::<Value>(text));
            let [expected, answer] = parsed.map(Result::unwrap);
            assert_eq!(answer, expected, "{what}");
        } else {
            assert_same_document(&case.expected, &answer, &what);
        }
        let again = self.call(annotations, &answer).await.unwrap();
        assert_same_document(&answer, &again, &format!("{what}: called on its own result"));
        let without = self.call(Value::Null, &case.sent).await.unwrap();
        assert_same_document(&case.sent, &without, &format!("{what}: without annotations"));
    }

    async fn check_without_the_annotation(&self, document: &str) {
        let answer = self.call(json!({"another": "one"}), document).await.unwrap();
        assert_same_document(document, &answer, &format!("{}: without the annotation", self.name));
    }

    async fn check_refusal(&self, refusal: &Refusal) {
        let (name, annotation) = (&self.name, self.example.annotation);
        let what = format!("{name}, with {:?}", refusal.value);
        let answer = self.call(json!({annotation: refusal.value}), &refusal.sent).await;
        let status = answer.expect_err(&what);
        let code = match self.mode {
            Mode::Persistent => Code::FailedPrecondition,
            Mode::Exec => Code::Internal,
        };
        assert_eq!(status.code(), code, "{what}: {status:?}");
        let reason = format!("annotation {annotation}: {}", refusal.reason);
        assert!(status.message().contains(&reason), "{what}: no {reason:?} in {status:?}");
        assert!(!status.message().contains("Traceback"), "{what}: {status:?}");
    }
}

/// Runs every row of the table for an example in one language. There is no program where the
/// machine has no toolchain for it.
async fn check(example: impl Fn(Language) -> Example, program: impl Into<Option<Program>>) {
    let Some(program) = program.into() else { return };
    let example = example(program.language);
    for mode in program.modes {
        let running = Running::start(&example, &program, *mode).await;
        for case in &example.cases {
            running.check(case).await;
        }
        running.check_without_the_annotation(&example.cases[0].sent).await;
        for refusal in &example.refusals {
            running.check_refusal(refusal).await;
        }
    }
}

macro_rules! examples {
    ($($example:ident: $($language:ident),+;)+) => { $(
        mod $example {
            $(
                #[tokio::test]
                async fn $language() {
                    let program = super::$language(stringify!($example));
                    super::check(super::table::$example, program).await;
                }
            )+
        }
    )+ };
}

examples! {
    smbios: python, rust, go, perl, shell;
    boot_disk: python, rust;
    qemu_arguments: python, rust, go;
    iommu: python, rust;
    cloud_init: python, rust, go;
}

/// The measure of the SDKs: the same bytes from every language.
#[tokio::test]
async fn a_vhost_user_disk_is_the_same_in_every_language() {
    let case = |name| read(&format!("examples/cases/vhost-user/{name}"));
    let (before, after) = (case("domain.xml"), case("expected.xml"));
    let vmi: Value = serde_json::from_str(&case("vmi.json")).unwrap();
    let programs = [Some(python("vhost_user")), Some(rust("vhost_user")), go("vhost_user")];
    for program in programs.into_iter().flatten() {
        for mode in [Mode::Persistent, Mode::Exec] {
            let what = format!("{:?}, {mode:?}", program.language);
            let builder = match mode {
                Mode::Persistent => Shim::worker(&program.command()),
                Mode::Exec => {
                    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", program.command());
                    Shim::builder().program("onDefineDomain", &script)
                }
            };
            let mut shim = builder.start().await;
            let result = shim.define(&vmi, &before).await.unwrap();
            assert_same_document(&after, &result, &what);
            let again = shim.define(&vmi, &result).await.unwrap();
            assert_same_document(&after, &again, &format!("{what}: called on its own result"));
            let warning = "a VM with a vhost-user disk cannot be live-migrated";
            assert_eq!(shim.log_line(warning).await["level"], "warning", "{what}");
            let mut small = vmi.clone();
            small["spec"]["domain"]["memory"]["hugepages"] = Value::Null;
            let refused = shim.define(&small, &before).await.unwrap_err();
            let why = "a vhost-user disk needs spec.domain.memory.hugepages";
            assert!(refused.message().contains(why), "{what}: {refused:?}");
        }
    }
}

/// Installed under the name of its hook, a program needs no configuration.
#[tokio::test]
async fn a_link_in_path_is_the_hook_that_it_is_named_after() {
    let iommu = rust("iommu").words;
    let vmi = vmi(json!({"iommu.vm.kubevirt.io/model": "intel"}));
    let mut results = Vec::new();
    for mode in ["persistent", "exec"] {
        let builder = Shim::builder().link("onDefineDomain", &iommu[0]);
        let shim = builder.args(["--mode", mode]).start().await;
        results.push(shim.define(&vmi, &kubevirt_domain()).await.unwrap());
    }
    assert!(results[0].contains("<iommu model=\"intel\">"), "{}", results[0]);
    assert_same_document(&results[0], &results[1], "both modes");
}

#[test]
fn the_examples_are_as_short_as_promised() {
    for (directory, at_least) in [("examples/python", 6), ("examples/rust", 5)] {
        let mut seen = 0;
        for entry in std::fs::read_dir(file(directory)).unwrap() {
            let entry = entry.unwrap();
            // The libraries are here as links.
            if entry.file_type().unwrap().is_file() {
                let lines = std::fs::read_to_string(entry.path()).unwrap().lines().count();
                let most = match entry.path().file_stem().and_then(|name| name.to_str()) {
                    // All rules of a plugin of KubeVirt's, which has 250 lines in Go.
                    Some("network_binding") => 220,
                    // The measure of the SDKs.
                    Some("vhost_user") => 46,
                    _ => 40,
                };
                assert!(lines < most, "{}: {lines} lines", entry.path().display());
                seen += 1;
            }
        }
        assert!(seen >= at_least, "{seen} examples in {directory}");
    }
}
