//! The options of each target.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sidecar_shim::cli::values::usage;
use sidecar_shim::error::StartError;
use sidecar_shim::hook::HookName;

use super::{
    HookArgs, MachineArgs, OutputArgs, PluginOptionArgs, Resolved, SampleArgs, SelectorArgs,
};
use crate::generate::names::{
    NamespacedName, parse_capability, parse_image, parse_name, parse_namespaced, parse_quantity,
    parse_variable,
};
use crate::generate::{
    Attachment, BindingConfig, DockerfileConfig, NodeConfig, PluginConfig, Script, SidecarConfig,
    Target,
};

/// Maximum number of workers, and memory of each in MiB: the sum must be a number.
const MAX_WORKERS: i64 = 1024;
const MAX_WORKER_MIB: u32 = 1 << 20;

/// How the target dockerfile takes a program.
pub(super) const PROGRAM_OF_IMAGE: &str = "--exec --hook NAME -- ./program";

#[derive(Args)]
pub(super) struct PluginArgs {
    #[command(flatten)]
    plugin: PluginOptionArgs,

    /// CPU request and limit of the shim
    #[arg(long, value_name = "AMOUNT", default_value = "200m", value_parser = parse_quantity)]
    cpu: String,

    /// Memory request and limit of the shim
    #[arg(long, value_name = "AMOUNT", default_value = "64Mi", value_parser = parse_quantity)]
    memory: String,

    #[command(flatten)]
    selector: SelectorArgs,

    #[command(flatten)]
    sample: SampleArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    hooks: HookArgs,
}

impl PluginArgs {
    pub(super) fn resolve(self) -> Result<Resolved, StartError> {
        let target = Target::Plugin(PluginConfig {
            plugin: self.plugin.with(self.selector),
            cpu: self.cpu,
            memory: self.memory,
            machine: self.sample.machine()?,
        });
        Ok((self.hooks, self.output.output, target))
    }
}

#[derive(Args)]
pub(super) struct NodeArgs {
    #[command(flatten)]
    plugin: PluginOptionArgs,

    /// Capability that the daemon keeps, repeatable
    #[arg(long = "capability", value_name = "NAME", value_parser = parse_capability)]
    capabilities: Vec<String>,

    /// Show the daemon the node's processes
    #[arg(long)]
    host_pid: bool,

    /// Variable of the daemon's environment, repeatable
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_variable)]
    variables: Vec<(String, String)>,

    /// CPU request of the daemon, without a limit
    #[arg(long, value_name = "AMOUNT", default_value = "10m", value_parser = parse_quantity)]
    cpu: String,

    /// Maximum number of workers
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=MAX_WORKERS)
    )]
    max_workers: u32,

    /// Memory limit of one worker
    #[arg(long, value_name = "SIZE", default_value = "24MiB", value_parser = parse_mib)]
    worker_memory: u32,

    #[command(flatten)]
    selector: SelectorArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    hooks: HookArgs,
}

/// Parses a size in MiB.
fn parse_mib(text: &str) -> Result<u32, String> {
    let mib = text.strip_suffix("MiB").and_then(|number| number.parse().ok());
    mib.filter(|mib| (1..=MAX_WORKER_MIB).contains(mib))
        .ok_or_else(|| "not a whole number of MiB: it is written like 24MiB".to_owned())
}

impl NodeArgs {
    pub(super) fn resolve(self) -> Result<Resolved, StartError> {
        for (index, (name, _)) in self.variables.iter().enumerate() {
            if self.variables[..index].iter().any(|(other, _)| other == name) {
                return Err(usage(format!("--env {name} is given twice")));
            }
        }
        let target = Target::Node(NodeConfig {
            plugin: self.plugin.with(self.selector),
            capabilities: self.capabilities,
            host_pid: self.host_pid,
            variables: self.variables,
            cpu: self.cpu,
            max_workers: self.max_workers,
            worker_mib: self.worker_memory,
        });
        Ok((self.hooks, self.output.output, target))
    }
}

#[derive(Args)]
pub(super) struct SidecarArgs {
    /// Hook's image, by digest
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    image: String,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    hooks: HookArgs,
}

impl SidecarArgs {
    pub(super) fn resolve(self) -> Result<Resolved, StartError> {
        let target = Target::Sidecar(SidecarConfig {
            image: self.image,
            machine: self.machine.machine()?,
            script: None,
        });
        Ok((self.hooks, self.output.output, target))
    }
}

#[derive(Args)]
pub(super) struct ConfigMapArgs {
    /// Hook's name, a DNS label
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// Shim's image, by digest
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    image: String,

    /// Program, a script in UTF-8
    #[arg(long, value_name = "FILE")]
    script: PathBuf,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    hooks: HookArgs,
}

impl ConfigMapArgs {
    pub(super) fn resolve(mut self) -> Result<Resolved, StartError> {
        if !self.hooks.words.is_empty() {
            return Err(usage(
                "a script in a ConfigMap is started for each call: name it with --script, not after \
                 `--`; a worker needs an image (hookctl generate sidecar)",
            ));
        }
        if self.hooks.named.is_empty() {
            let name = self.script.file_name().and_then(|name| name.to_str());
            let hook = name.and_then(|name| {
                HookName::WITH_DOCUMENT.into_iter().find(|hook| hook.as_str() == name)
            });
            self.hooks.named.push(hook.ok_or_else(|| {
                usage("the script's name is not that of a hook: give --hook onDefineDomain")
            })?);
        }
        let target = Target::Sidecar(SidecarConfig {
            image: self.image,
            machine: self.machine.machine()?,
            script: Some(Script { name: self.name, file: self.script }),
        });
        Ok((self.hooks, self.output.output, target))
    }
}

#[derive(Args)]
pub(super) struct DockerfileArgs {
    /// Shim's image, by digest
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    base: String,

    /// Command is a program for each call (--hook)
    #[arg(long, requires = "named")]
    exec: bool,

    /// Make the image for a network binding plugin
    #[arg(long)]
    network_binding: bool,

    #[command(flatten)]
    hooks: HookArgs,
}

impl DockerfileArgs {
    pub(super) fn resolve(mut self) -> Result<Resolved, StartError> {
        if self.hooks.words.is_empty() {
            return Err(usage(format!(
                "no file for the image: give the worker after `--` (… -- python3 hook.py), or for a \
                 program that is started for each call: {PROGRAM_OF_IMAGE}"
            )));
        }
        let words = self.hooks.words.iter().map(|word| word.to_str().map(str::to_owned));
        let words = words.collect::<Option<Vec<_>>>();
        let words = words.ok_or_else(|| usage("the command after `--` is not UTF-8"))?;
        if self.exec {
            // A program cannot be asked.
            self.hooks.words.clear();
        }
        let target = Target::Dockerfile(DockerfileConfig {
            base: self.base,
            words,
            network_binding: self.network_binding,
        });
        Ok((self.hooks, None, target))
    }
}

#[derive(Args)]
pub(super) struct BindingArgs {
    /// Plugin's name, as interfaces of VMs name it
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// Plugin's image, by digest
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    image: String,

    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        default_value = "kubevirt/kubevirt",
        value_parser = parse_namespaced,
        help = "The cluster's KubeVirt resource"
    )]
    resource: NamespacedName,

    /// Memory for the plugin's processes in VM pods
    #[arg(long, value_name = "AMOUNT", value_parser = parse_quantity)]
    memory_overhead: Option<String>,

    /// Attachment of the domain: tap or managed-tap
    #[arg(long, value_name = "TYPE", hide_possible_values = true)]
    attachment: Option<AttachmentName>,

    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        value_parser = parse_namespaced,
        help = "NetworkAttachmentDefinition of the plugin's CNI plugin"
    )]
    network_attachment: Option<NamespacedName>,

    /// Give the sidecar the pod's device info
    #[arg(long)]
    device_info: bool,

    /// Let VMs with the plugin migrate
    #[arg(long)]
    migration: bool,

    #[command(flatten)]
    sample: SampleArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    hooks: HookArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum AttachmentName {
    Tap,
    ManagedTap,
}

impl BindingArgs {
    pub(super) fn resolve(self) -> Result<Resolved, StartError> {
        let target = Target::Binding(BindingConfig {
            name: self.name,
            image: self.image,
            resource: self.resource,
            memory_overhead: self.memory_overhead,
            attachment: self.attachment.map(|name| match name {
                AttachmentName::Tap => Attachment::Tap,
                AttachmentName::ManagedTap => Attachment::ManagedTap,
            }),
            network_attachment: self.network_attachment,
            device_info: self.device_info,
            migrates: self.migration,
            machine: self.sample.machine()?,
        });
        Ok((self.hooks, self.output.output, target))
    }
}
