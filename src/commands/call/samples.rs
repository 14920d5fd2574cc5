//! Sample documents: a small virtual machine as KubeVirt would send it.

/// A VirtualMachineInstance, as Kubernetes JSON.
pub(in crate::commands) const VMI: &str = include_str!("samples/vmi.json");

/// Its libvirt domain.
pub(in crate::commands) const DOMAIN: &str = include_str!("samples/domain.xml");

/// Its `CloudInitData`.
pub(in crate::commands) const CLOUD_INIT: &str = include_str!("samples/cloud-init.json");
