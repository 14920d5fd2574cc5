//! What becomes of the files that people give.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};

use super::vmi::{parse, with_metadata};

fn json_of(file: &str) -> Value {
    let vmi = parse(&Bytes::copy_from_slice(file.as_bytes())).unwrap();
    serde_json::from_slice(&vmi.json).unwrap()
}

fn fault(file: &[u8]) -> String {
    parse(&Bytes::copy_from_slice(file)).unwrap_err()
}

const ONE: &str =
    "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata:\n  name: one\n";

#[test]
fn json_stays_as_it_was_written() {
    for file in [
        " {\"b\": 1.0,\n\"a\":2}\n",
        "{\"kind\":\"VirtualMachineInstance\",\"apiVersion\":\"kubevirt.io/v1\", \"x\":1}",
    ] {
        assert_eq!(parse(&file.into()).unwrap().json, file);
        assert_eq!(parse(&format!("\u{feff}{file}").into()).unwrap().json, file);
    }
}

#[test]
fn scalars_of_yaml_are_what_kubernetes_reads() {
    for (scalar, expected) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("\"yes\"", json!("yes")),
        ("'no'", json!("no")),
        ("!!str yes", json!("yes")),
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("0x1f", json!(31)),
        ("1_000", json!(1000)),
        ("~", Value::Null),
        ("", Value::Null),
        ("1.50", json!(1.5)),
        ("64Mi", json!("64Mi")),
        ("02:00:00:00:00:01", json!("02:00:00:00:00:01")),
        ("1:30", json!("1:30")),
        ("2026-08-03T09:14:27Z", json!("2026-08-03T09:14:27Z")),
        ("18446744073709551615", json!(u64::MAX)),
        ("|\n    a\n    b", json!("a\nb\n")),
        (">-\n    a\n    b", json!("a b")),
        ("{b: [1, two]}", json!({"b": [1, "two"]})),
    ] {
        let vmi = json_of(&format!("{ONE}spec:\n  a: {scalar}\n"));
        assert_eq!(vmi["spec"]["a"], expected, "{scalar}");
    }
    let merged = json_of("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\n");
    assert_eq!(merged["y"], json!({"a": 1, "b": 3}));
}

#[test]
fn a_vm_becomes_the_vmi_of_its_template() {
    let vm = "apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: web, namespace: shop, labels: {of: vm}, uid: u}
spec:
  runStrategy: Always
  template:
    metadata: {labels: {of: template}, annotations: {a: \"yes\"}}
    spec: {domain: {cpu: {cores: 2}}}
";
    let expected = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"of": "template"},
                     "annotations": {"a": "yes"}},
        "spec": {"domain": {"cpu": {"cores": 2}}},
    });
    assert_eq!(json_of(vm), expected);
    let note = |vm: &str| parse(&vm.to_owned().into()).unwrap().note.unwrap();
    assert!(note(vm).ends_with("its status and KubeVirt's defaults"), "{}", note(vm));
    let typed = vm.replace("spec:\n  run", "spec:\n  instancetype: {name: small}\n  run");
    assert!(note(&typed).ends_with("what instance type and preference add"));
    let nowhere = vm.replace(", namespace: shop", "");
    assert_eq!(json_of(&nowhere)["metadata"]["namespace"], "default");
    let mut list = json!({"apiVersion": "v1", "kind": "List", "items": [expected]});
    assert_eq!(json_of(&list.to_string()), expected, "of its only item");
    list["items"][0]["kind"].take();
    list["items"][0]["apiVersion"].take();
    let items = list["items"].clone();
    let bare = json!({"kind": "VirtualMachineInstanceList", "apiVersion": "kubevirt.io/v1",
                      "items": [{"metadata": items[0]["metadata"]}]});
    assert_eq!(json_of(&bare.to_string())["kind"], "VirtualMachineInstance");
}

#[test]
fn the_only_vmi_among_others_is_meant() {
    let config = "---\nkind: ConfigMap\napiVersion: v1\n---\n";
    let vm = "kind: VirtualMachine\napiVersion: kubevirt.io/v1\nmetadata: {name: vm}\nspec: {template: {spec: {}}}\n";
    assert_eq!(json_of(&format!("{config}{ONE}---\n"))["metadata"]["name"], "one");
    assert_eq!(json_of(&format!("{config}{vm}"))["metadata"]["name"], "vm");
    assert_eq!(json_of(&format!("{vm}---\n{ONE}"))["metadata"]["name"], "one");
    assert_eq!(json_of(&format!("---\n# a comment\n---\n{ONE}"))["metadata"]["name"], "one");
}

#[test]
fn what_is_no_vmi_is_told_with_the_command_that_gets_one() {
    let two = format!("{ONE}  namespace: shop\n---\n{}", ONE.replace("one", "two"));
    let pod = "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"namespace\":\"shop\",\"labels\":{\"vm.kubevirt.io/name\":\"web\"}}}";
    let get = "To get one: kubectl get vmi NAME -n NAMESPACE -o json > vmi.json";
    let kind = |kind: &str| format!("kind: {kind}\napiVersion: vmoperator.example.com/v1\n");
    for (file, expected) in [
        (
            &two[..],
            "it holds 2 of kind VirtualMachineInstance (one, two), and a hook is called for one. To get one: kubectl get vmi one -n shop -o json",
        ),
        (
            pod,
            "it is a Pod (v1), and hooks get a VirtualMachineInstance. To get one: kubectl get vmi web -n shop -o json > vmi.json",
        ),
        (&kind("VirtualMachine"), "it is a VirtualMachine (vmoperator.example.com/v1)"),
        ("kind: VirtualMachineInstanceReplicaSet\napiVersion: kubevirt.io/v1\n", get),
        ("kind: List\nitems: []\n", "it holds no object. To get one"),
        ("kind: A\n---\nkind: B\n", "none of its 2 objects is a VirtualMachineInstance or"),
        (
            "kind: VirtualMachine\nmetadata: {name: \"; reboot\"}\n",
            "without spec.template.spec. To get one: kubectl get vmi NAME",
        ),
        (
            "NAME   AGE\nweb    2d\n",
            "it holds a string, not an object (without `-o json`, kubectl prints a table)",
        ),
        ("[1]", "it holds an array"),
        ("", "it is empty. To get one"),
        (" \n", "it is empty. To get one"),
        ("---\n", "it holds no object"),
        ("<domain/>", "it is XML; a domain is given by --domain"),
        ("{\"a\": }", "it is not JSON: expected value at line 1 column 7"),
        ("a: [1\n", "it is neither JSON nor YAML: unclosed bracket '[' at line 1, column 4"),
        ("a: 1\na: 2\n", "duplicate mapping key: a"),
    ] {
        let fault = fault(file.as_bytes());
        assert!(fault.contains(expected), "{file}: {fault}");
    }
    assert!(fault(b"\xff\xfea\0").contains("UTF-16: save it in UTF-8"));
    assert_eq!(fault(b"a: \xff"), "it is not UTF-8: bad byte at offset 3");
}

#[test]
fn what_aliases_and_nesting_make_is_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = format!("*a{}, ", n - 1).repeat(10);
        writeln!(bomb, "a{n}: &a{n} [{}]", before.trim_end_matches(", ")).unwrap();
    }
    let fault = |file: &str| parse(&file.to_owned().into()).unwrap_err();
    assert!(fault(&bomb).contains("neither JSON nor YAML"), "{}", fault(&bomb));
    for deep in ["[", "- ", "{a: "] {
        let fault = fault(&format!("a: {}", deep.repeat(100_000)));
        assert!(fault.contains("neither JSON nor YAML"), "{deep}: {fault}");
    }
    assert!(fault(&"{\"a\":".repeat(100_000)).contains("it is not JSON: recursion limit"));
}

#[test]
fn annotations_and_labels_are_set() {
    let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    let (annotations, labels) = (pair("a.example.com/x", "<&\">"), pair("l", "ü"));
    let set = |vmi: &'static str| {
        with_metadata(vmi.into(), [("annotations", &annotations), ("labels", &labels)])
    };
    for vmi in ["{}", "{\"metadata\":{\"annotations\":null,\"labels\":{\"l\":\"old\"}}}"] {
        let vmi: Value = serde_json::from_slice(&set(vmi).unwrap()).unwrap();
        let expected = json!({"annotations": {"a.example.com/x": "<&\">"}, "labels": {"l": "ü"}});
        assert_eq!(vmi["metadata"], expected);
    }
    for vmi in ["[]", "{\"metadata\":1}", "{\"metadata\":{\"labels\":\"x\"}}", "{"] {
        assert_eq!(set(vmi), None, "{vmi}");
    }
    let none = with_metadata("{ }".into(), [("annotations", &vec![]), ("labels", &vec![])]);
    assert_eq!(none.unwrap(), "{ }", "to the byte");
}
