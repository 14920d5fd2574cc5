//! Sample documents: a small virtual machine as KubeVirt would send it.

/// A VirtualMachineInstance, as Kubernetes JSON.
pub(crate) const VMI: &str = include_str!("vmi.json");

/// Its libvirt domain.
pub(crate) const DOMAIN: &str = include_str!("domain.xml");

/// Its `CloudInitData`.
pub(crate) const CLOUD_INIT: &str = include_str!("cloud-init.json");
