//! The model beside what KubeVirt 1.9 prints. `recorded` has domains that are sent, and what came
//! of them: `.ci/kubevirt --record` wrote those, and `.ci/kubevirt` compares them with KubeVirt.

use std::path::Path;

use roxmltree::{Document, Node};
use sidecar_shim::service::{Api, ApiVersion};

use super::*;

const RECEIVERS: [(Receiver, &str); 3] = [
    (Receiver::NextPlugin, "next-plugin"),
    (Receiver::SamePlugin, "same-plugin"),
    (Receiver::SameSidecar, "same-sidecar"),
];

/// Reads a recorded domain.
fn recorded(name: &str, kind: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rewrite/recorded");
    std::fs::read_to_string(directory.join(format!("{name}.{kind}.xml"))).unwrap()
}

/// Returns the content of an element, without what is not modelled: the children in the order of
/// what they contain, and none that are empty.
fn content(node: Node<'_, '_>) -> String {
    let mut children: Vec<String> =
        node.children().filter(Node::is_element).map(content).filter(|it| !it.is_empty()).collect();
    children.sort_unstable();
    let mut attributes: Vec<String> =
        node.attributes().map(|it| format!(" {}={:?}", it.name(), it.value())).collect();
    attributes.sort_unstable();
    let text = if children.is_empty() {
        node.text().unwrap_or_default().trim()
    } else {
        Default::default()
    };
    if children.is_empty() && attributes.is_empty() && text.is_empty() {
        return String::new();
    }
    let (tag, attributes) = (node.tag_name(), attributes.concat());
    format!(
        "<{}|{}{attributes}>{text}{}</>",
        tag.namespace().unwrap_or_default(),
        tag.name(),
        children.concat()
    )
}

/// Returns the content of a domain, and `metadata` if it is verbatim.
fn meaning(receiver: Receiver, domain: &str) -> [String; 2] {
    let mut parts = [domain.to_owned(), String::new()];
    if receiver == Receiver::NextPlugin
        && let (Some(start), Some(end)) = (domain.find("<metadata"), domain.find("</metadata>"))
    {
        parts[0].replace_range(start..end + "</metadata>".len(), "");
        domain[start..end].clone_into(&mut parts[1]);
    }
    parts[0] = content(Document::parse(&parts[0]).unwrap().root_element());
    parts
}

#[test]
fn a_domain_is_rewritten_as_kubevirt_does() {
    for name in ["vm", "command-lines", "metadata", "foreign"] {
        for (receiver, kind) in RECEIVERS {
            let ours = receiver.rewrite(&recorded(name, "sent")).unwrap();
            let theirs = recorded(name, kind);
            assert_eq!(meaning(receiver, &ours), meaning(receiver, &theirs), "{name} {kind}");
        }
    }
}

#[test]
fn white_space_quotes_and_references_are_written_as_kubevirt_does() {
    let ours = Receiver::NextPlugin.rewrite(&recorded("text", "sent")).unwrap();
    assert_eq!(ours, recorded("text", "next-plugin"));
    // Its elements are in the order of those types.
    let ours = Receiver::SameSidecar.rewrite(&recorded("command-lines", "sent")).unwrap();
    let theirs = recorded("command-lines", "same-sidecar");
    for line in ours.lines().filter(|line| line.contains("qemu")) {
        assert!(theirs.lines().any(|it| it == line), "{line:?} is not in {theirs}");
    }
}

#[test]
fn the_sample_is_a_domain_as_kubevirt_writes_it() {
    let sample = include_str!("../samples/domain.xml").trim_end();
    let rewritten = Receiver::SameSidecar.rewrite(sample).unwrap();
    // KubeVirt declares the prefix until a hook has returned a domain without it.
    let undeclared = sample.replace(&format!(" xmlns:qemu=\"{QEMU}\""), "");
    assert_eq!(rewritten, undeclared);
}

#[test]
fn what_was_rewritten_stays_as_it_is() {
    for name in ["vm", "command-lines", "metadata", "foreign", "text"] {
        for (receiver, kind) in RECEIVERS {
            let once = receiver.rewrite(&recorded(name, "sent")).unwrap();
            let twice = receiver.rewrite(&once).unwrap();
            assert_eq!(meaning(receiver, &twice), meaning(receiver, &once), "{name} {kind}");
        }
    }
}

#[test]
fn a_receiver_follows_from_the_api() {
    assert_eq!(Receiver::same(Api::Plugins), Receiver::SamePlugin);
    assert_eq!(Receiver::same(Api::Legacy(ApiVersion::V1Alpha1)), Receiver::SameSidecar);
}

#[test]
fn what_is_no_document_is_not_rewritten() {
    for bad in ["", "text", "<domain>", "<domain></x>", "<domain>&other;</domain>"] {
        assert_eq!(Receiver::SamePlugin.rewrite(bad), None, "{bad}");
    }
}
