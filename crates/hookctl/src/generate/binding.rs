//! A network binding plugin: its entry in the `KubeVirt` resource.

use std::fmt::Write as _;

use sidecar_shim::hook::{HookKind, HookName};

use super::hooks::only;
use super::machine::{self, Interface, Machine, Metadata};
use super::names::NamespacedName;
use super::output::Manifests;
use super::quote::scalar;

/// What to generate.
pub(crate) struct BindingConfig {
    pub(crate) name: String,
    pub(crate) image: String,
    /// The cluster's `KubeVirt` resource.
    pub(crate) resource: NamespacedName,
    /// Memory that KubeVirt adds to the pod's `compute` container.
    pub(crate) memory_overhead: Option<String>,
    pub(crate) attachment: Option<Attachment>,
    /// Definition of a network, for a plugin with a CNI plugin.
    pub(crate) network_attachment: Option<NamespacedName>,
    /// Whether KubeVirt tells the sidecar which devices the pod has.
    pub(crate) device_info: bool,
    /// Whether VMs with the plugin can migrate.
    pub(crate) migrates: bool,
    /// A sample VM.
    pub(crate) machine: Option<Machine>,
}

/// How KubeVirt attaches the domain to the pod's network.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attachment {
    Tap,
    ManagedTap,
}

pub(super) fn manifests(config: &BindingConfig, hooks: &[HookName]) -> Result<Manifests, String> {
    let advice = "node hooks are for `hookctl generate node`, preCloudInitIso for `hookctl generate \
                  sidecar`";
    only(hooks, |kind| kind == HookKind::Domain, "a network binding plugin", advice)?;
    let header = "# A network binding plugin. The Sidecar feature gate is not needed.
#
# Apply this with `kubectl apply --server-side`. The first object is only the part of your KubeVirt
# resource that registers the plugin, and server-side apply leaves the other fields alone.
#
# KubeVirt starts the sidecar without arguments: the entry point of its image has the hook API's
# version, the mode and the worker's command. Interfaces of VMs name the plugin in `binding.name`.
";
    let mut manifests = Manifests::new(header);
    manifests.push("kubevirt", resource(config));
    if let Some(vm) = &config.machine {
        let interface = Interface::Binding(&config.name);
        manifests.push("vm", machine::manifest(vm, "", Metadata::default(), &interface));
    }
    Ok(manifests)
}

fn resource(config: &BindingConfig) -> String {
    format!(
        "apiVersion: kubevirt.io/v1
kind: KubeVirt
metadata:
  # Those of your KubeVirt resource.
  name: {name}
  namespace: {namespace}
spec:
  configuration:
    network:
      binding:
        # The plugin's name. KubeVirt passes it to the sidecar in NETWORK_BINDING_PLUGIN_NAME.
        {plugin}:
          sidecarImage: {image}
{options}",
        name = scalar(&config.resource.name),
        namespace = scalar(&config.resource.namespace),
        plugin = scalar(&config.name),
        image = scalar(&config.image),
        options = options(config),
    )
}

fn options(config: &BindingConfig) -> String {
    let mut yaml = String::new();
    if let Some(NamespacedName { namespace, name }) = &config.network_attachment {
        let definition = scalar(&format!("{namespace}/{name}"));
        let _ = writeln!(yaml, "          networkAttachmentDefinition: {definition}");
    }
    if let Some(attachment) = config.attachment {
        let attachment = match attachment {
            Attachment::Tap => "tap",
            Attachment::ManagedTap => "managedTap",
        };
        let _ = writeln!(yaml, "          domainAttachmentType: {attachment}");
    }
    if config.device_info {
        yaml += "          # The sidecar finds the devices in /etc/podinfo.
          downwardAPI: device-info
";
    }
    if let Some(memory) = &config.memory_overhead {
        let _ = writeln!(
            yaml,
            "          # Memory of what the plugin has libvirt start in the pod's `compute` container.
          # KubeVirt adds 250Mi for its built-in passt binding.
          computeResourceOverhead:
            requests:
              memory: {}",
            scalar(memory)
        );
    }
    if config.migrates {
        yaml += "          # Without this, VMs with the plugin cannot migrate. After a migration, KubeVirt takes the
          # link down and up, so that the guest asks for the address of its new pod.
          migration:
            method: link-refresh
";
    }
    yaml
}
