//! The VM that uses a hook: a part of one that exists, or a whole sample.

use std::fmt::Write as _;

use super::names::{KeyValue, NamespacedName};
use super::quote::scalar;
use super::selector::{Selector, Vms};

/// A VM, as the user names it.
pub(crate) struct Machine {
    pub(crate) name: NamespacedName,
    /// Its annotations, in addition to those that the hook needs.
    pub(crate) annotations: Vec<KeyValue>,
    /// The container disk of a whole VM. Without it, only a part of a VM is generated.
    pub(crate) disk: Option<String>,
}

/// The interface of a VM.
pub(super) enum Interface<'a> {
    Masquerade,
    /// A network binding plugin.
    Binding(&'a str),
}

/// What stands in a VM's metadata.
#[derive(Default)]
pub(super) struct Metadata {
    /// Lines of YAML for the template's annotations, indented, and for its labels.
    pub(super) annotations: String,
    pub(super) labels: String,
}

impl Metadata {
    /// Adds what selects the VM, unless the user gives that annotation.
    pub(super) fn select(&mut self, selector: &Selector, machine: &Machine) {
        let line = |pair: &KeyValue| {
            let value = scalar(pair.value.as_deref().unwrap_or_default());
            format!("        {}: {value}\n", scalar(&pair.key))
        };
        match &selector.vms {
            Vms::Annotation(pair) if machine.annotations.iter().all(|it| it.key != pair.key) => {
                self.annotations += &line(pair);
            }
            Vms::Label(pair) => self.labels += &line(pair),
            Vms::All | Vms::Annotation(_) => {}
        }
    }
}

/// Returns the VM. `comment` are lines of comment for its beginning.
pub(super) fn manifest(
    machine: &Machine,
    comment: &str,
    mut metadata: Metadata,
    interface: &Interface<'_>,
) -> String {
    for KeyValue { key, value } in &machine.annotations {
        let value = scalar(value.as_deref().unwrap_or_default());
        let _ = writeln!(metadata.annotations, "        {}: {value}", scalar(key));
    }
    let (name, namespace) = (scalar(&machine.name.name), scalar(&machine.name.namespace));
    let mut yaml = format!(
        "{comment}apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: {name}
  namespace: {namespace}
spec:
"
    );
    if machine.disk.is_some() {
        yaml += "  runStrategy: Always\n";
    }
    yaml += "  template:\n";
    let Metadata { annotations, labels } = metadata;
    if !(annotations.is_empty() && labels.is_empty()) {
        yaml += "    metadata:\n";
    }
    if !labels.is_empty() {
        let _ = write!(yaml, "      labels:\n{labels}");
    }
    if !annotations.is_empty() {
        yaml += "      # On the template, not on the VirtualMachine: KubeVirt reads the annotations of the instance.
      annotations:\n";
        yaml += &annotations;
    }
    if let Some(image) = &machine.disk {
        yaml += &spec(image, interface);
    }
    yaml
}

fn spec(image: &str, interface: &Interface<'_>) -> String {
    let interface = match interface {
        Interface::Masquerade => "              masquerade: {}\n".to_owned(),
        Interface::Binding(plugin) => format!(
            "              binding:
                name: {}
              # Without ports, a binding such as passt forwards all ports to the guest.
              ports:
                - name: http
                  port: 8080
                  protocol: TCP
",
            scalar(plugin)
        ),
    };
    let image = scalar(image);
    format!(
        "    spec:
      terminationGracePeriodSeconds: 60
      domain:
        memory:
          guest: 1Gi
        devices:
          disks:
            - name: rootdisk
              disk:
                bus: virtio
          interfaces:
            - name: default
{interface}      networks:
        - name: default
          pod: {{}}
      volumes:
        - name: rootdisk
          containerDisk:
            image: {image}
"
    )
}
