//! Which VMs a hook is for, in the three spellings of a condition: KubeVirt has Go's names of the
//! fields for domain hooks and JSON's for node hooks, and an admission policy sees the VM's pod.
//!
//! A missing key is an error in CEL, which fails the VM. So every condition first asks for the key.

use super::names::KeyValue;
use super::quote::cel_string;

/// The VMs that a hook is for.
pub(crate) struct Selector {
    pub(crate) vms: Vms,
    /// Namespaces of the VMs. All, if it is empty.
    pub(crate) namespaces: Vec<String>,
}

/// What the VMs have in common.
pub(crate) enum Vms {
    All,
    Annotation(KeyValue),
    Label(KeyValue),
}

impl Selector {
    /// Returns the condition of a domain hook, or of a launcher hook. `None` selects all VMs.
    pub(super) fn domain(&self) -> Option<String> {
        let vms = match &self.vms {
            Vms::All => None,
            Vms::Annotation(pair) => Some(lookup("vmi.Annotations", pair)),
            Vms::Label(pair) => Some(lookup("vmi.Labels", pair)),
        };
        self.and_namespaces("vmi.Namespace", vms)
    }

    /// Returns the condition of a node hook.
    pub(super) fn node(&self) -> Option<String> {
        self.and_namespaces("vmi.metadata.namespace", self.json("vmi"))
    }

    /// Returns the condition of a policy for pods. It leaves the namespaces to the policy's
    /// binding, which the API server looks at first.
    pub(super) fn pod(&self) -> Option<String> {
        self.json("object")
    }

    fn json(&self, root: &str) -> Option<String> {
        let (field, pair) = match &self.vms {
            Vms::All => return None,
            Vms::Annotation(pair) => ("annotations", pair),
            Vms::Label(pair) => ("labels", pair),
        };
        let map = format!("{root}.metadata.{field}");
        Some(format!("has({map}) && {}", lookup(&map, pair)))
    }

    fn and_namespaces(&self, field: &str, vms: Option<String>) -> Option<String> {
        if self.namespaces.is_empty() {
            return vms;
        }
        let names: Vec<_> = self.namespaces.iter().map(|name| cel_string(name)).collect();
        let namespaces = format!("{field} in [{}]", names.join(", "));
        Some(match vms {
            Some(vms) => format!("{namespaces} && {vms}"),
            None => namespaces,
        })
    }
}

fn lookup(map: &str, pair: &KeyValue) -> String {
    let key = cel_string(&pair.key);
    match &pair.value {
        Some(value) => format!("{key} in {map} && {map}[{key}] == {}", cel_string(value)),
        None => format!("{key} in {map}"),
    }
}
