//! Sample documents: a small virtual machine as KubeVirt would send it.

/// A VirtualMachineInstance, as Kubernetes JSON.
pub(super) const VMI: &str = include_str!("samples/vmi.json");

/// Its libvirt domain.
pub(super) const DOMAIN: &str = include_str!("samples/domain.xml");

/// Its `CloudInitData`.
pub(super) const CLOUD_INIT: &str = include_str!("samples/cloud-init.json");
