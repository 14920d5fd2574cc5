//! The command line of `generate`: one subcommand for each target, with the options that it uses.

mod monitoring;
mod targets;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use sidecar_shim::backend::CommandLine;
use sidecar_shim::cli::LogOptions;
use sidecar_shim::cli::values::{parse_time, usage};
use sidecar_shim::error::StartError;
use sidecar_shim::hook::HookName;

use self::monitoring::MonitoringArgs;
use self::targets::{
    BindingArgs, ConfigMapArgs, DockerfileArgs, NodeArgs, PluginArgs, SidecarArgs,
};
use crate::generate::names::{
    KeyValue, NamespacedName, parse_annotation, parse_annotation_of_vm, parse_image, parse_label,
    parse_name, parse_namespaced, parse_vm_label,
};
use crate::generate::{
    GenerateConfig, HookSource, KubeVirt, Machine, PluginOptions, Selector, Target, Vms,
};

#[derive(Args)]
#[command(disable_help_subcommand = true)]
pub(super) struct GenerateArgs {
    #[command(subcommand)]
    target: TargetArgs,
}

#[derive(Subcommand)]
enum TargetArgs {
    /// Domain hook of the Plugins API: Plugin, and policy that adds the shim to pods
    Plugin(PluginArgs),
    /// Node hook of the Plugins API: Plugin, and daemon on each node
    Node(NodeArgs),
    /// Hook sidecar in a custom image: annotation of a VM
    Sidecar(SidecarArgs),
    /// Hook sidecar as a script: `ConfigMap`, and annotation of a VM
    #[command(
        name = "configmap",
        about = "Hook sidecar as a script: ConfigMap, and annotation of a VM"
    )]
    ConfigMap(ConfigMapArgs),
    /// Image of a hook
    #[command(about = "Dockerfile for the image of a hook")]
    Dockerfile(DockerfileArgs),
    /// Network binding plugin: entry in the `KubeVirt` resource
    #[command(about = "Network binding plugin: entry in the KubeVirt resource")]
    NetworkBinding(BindingArgs),
    /// Metrics, alerts and a dashboard for a node hook
    Monitoring(MonitoringArgs),
}

impl GenerateArgs {
    /// Returns what is logged, if a worker runs, and the rest.
    pub(super) fn resolve(self) -> Result<(Option<LogOptions>, GenerateConfig), StartError> {
        let (hooks, output, target) = match self.target {
            TargetArgs::Plugin(args) => args.resolve()?,
            TargetArgs::Node(args) => args.resolve()?,
            TargetArgs::Sidecar(args) => args.resolve()?,
            TargetArgs::ConfigMap(args) => args.resolve()?,
            TargetArgs::Dockerfile(args) => args.resolve()?,
            TargetArgs::NetworkBinding(args) => args.resolve()?,
            TargetArgs::Monitoring(args) => return Ok((None, args.resolve()?)),
        };
        let of_program = match target {
            Target::Dockerfile(_) => targets::PROGRAM_OF_IMAGE,
            _ => "--hook NAME, without a command",
        };
        let (log, source) = hooks.resolve(of_program)?;
        Ok((Some(log), GenerateConfig { source: Some(source), target, output }))
    }
}

/// What each target has.
type Resolved = (HookArgs, Option<PathBuf>, Target);

/// Options for the hooks of a target.
#[derive(Args)]
#[command(next_help_heading = "Hooks")]
struct HookArgs {
    /// Hook of the program, or of the worker
    #[arg(long = "hook", value_name = "NAME", value_parser = parse_hook)]
    named: Vec<HookName>,

    /// Worker on this machine, to ask for its hooks
    #[arg(last = true, value_name = "WORKER")]
    words: Vec<OsString>,

    #[command(flatten)]
    log: LogOptions,
}

impl HookArgs {
    fn resolve(self, of_program: &'static str) -> Result<(LogOptions, HookSource), StartError> {
        let worker = CommandLine::from_words(self.words);
        if worker.is_none() && self.named.is_empty() {
            return Err(usage(format!(
                "no hook: give the worker after `--` (… -- python3 hook.py), or for a program that \
                 is started for each call: {of_program}"
            )));
        }
        let is_logged = self.log.level().is_some();
        Ok((self.log, HookSource { worker, named: self.named, of_program, is_logged }))
    }
}

fn parse_hook(text: &str) -> Result<HookName, String> {
    // KubeVirt's spelling is understood as well.
    let hook = HookName::parse(text).or_else(|| match text {
        "OnDefineDomain" => Some(HookName::ON_DEFINE_DOMAIN),
        "PreCloudInitIso" => Some(HookName::PRE_CLOUD_INIT_ISO),
        _ => HookName::of_node_hook_point(text),
    });
    let known = |hook: &HookName| {
        HookName::WITH_DOCUMENT.contains(hook) || HookName::NODE_HOOKS.contains(hook)
    };
    hook.filter(known).ok_or_else(|| {
        let names = HookName::WITH_DOCUMENT.into_iter().chain(HookName::NODE_HOOKS);
        let names: Vec<_> = names.map(|hook| hook.to_string()).collect();
        format!("not a hook: {}", names.join(", "))
    })
}

/// Options of every target that is YAML.
#[derive(Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// New directory for files and kustomization.yaml (default: stdout)
    #[arg(long, short = 'o', value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Options of both kinds of Plugin.
#[derive(Args)]
struct PluginOptionArgs {
    /// Hook's name, a DNS label
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// Hook's image, by digest
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    image: String,

    // As `help`, so that it has no backticks.
    #[arg(long, value_name = "VERSION", help = "Version of KubeVirt: 1.9 or 1.10 (provisional)")]
    #[arg(default_value = "1.9", value_enum, hide_possible_values = true)]
    kubevirt: Version,

    /// Timeout of one call
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_timeout)]
    timeout: Duration,

    /// Effect of a failed hook: Fail or Ignore
    #[arg(long, value_name = "STRATEGY", default_value = "Fail", hide_possible_values = true)]
    failure_strategy: Strategy,
}

/// A timeout that Go's notation has, in whole milliseconds.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time.subsec_nanos() % 1_000_000 != 0 {
        return Err("must be whole milliseconds".to_owned());
    }
    Ok(time)
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "1.9")]
    V1_9,
    #[value(name = "1.10")]
    V1_10,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Strategy {
    #[value(name = "Fail")]
    Fail,
    #[value(name = "Ignore")]
    Ignore,
}

impl PluginOptionArgs {
    fn with(self, selector: SelectorArgs) -> PluginOptions {
        PluginOptions {
            name: self.name,
            image: self.image,
            kubevirt: match self.kubevirt {
                Version::V1_9 => KubeVirt::V1_9,
                Version::V1_10 => KubeVirt::V1_10,
            },
            selector: selector.into(),
            timeout: self.timeout,
            ignore_failure: self.failure_strategy == Strategy::Ignore,
        }
    }
}

/// Which VMs a Plugin is for.
#[derive(Args)]
#[command(next_help_heading = "VMs that get the hook (--annotation, --label or --all)")]
struct SelectorArgs {
    #[command(flatten)]
    vms: VmsArgs,

    /// Namespace of the VMs, repeatable (default: all)
    #[arg(long = "namespace", value_name = "NAMESPACE", value_parser = parse_label)]
    namespaces: Vec<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct VmsArgs {
    /// VMs with this annotation (and this value)
    #[arg(long, value_name = "K[=V]", value_parser = parse_annotation)]
    annotation: Option<KeyValue>,

    /// VMs with this label (and this value)
    #[arg(long, value_name = "K[=V]", value_parser = parse_vm_label)]
    label: Option<KeyValue>,

    /// All VMs
    #[arg(long)]
    all: bool,
}

impl From<SelectorArgs> for Selector {
    fn from(args: SelectorArgs) -> Self {
        let vms = match (args.vms.annotation, args.vms.label) {
            (Some(pair), _) => Vms::Annotation(pair),
            (None, Some(pair)) => Vms::Label(pair),
            (None, None) => Vms::All,
        };
        Self { vms, namespaces: args.namespaces }
    }
}

/// A VM that a target may have.
#[derive(Args)]
#[command(next_help_heading = "One more manifest: a sample VM that uses the hook (default: none)")]
struct SampleArgs {
    /// Name of the sample VM
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_namespaced, requires = "disk")]
    vm: Option<NamespacedName>,

    /// Annotation of the sample VM, repeatable
    #[arg(long, value_name = "K=V", value_parser = parse_annotation_of_vm, requires = "vm")]
    vm_annotation: Vec<KeyValue>,

    /// Container disk of the sample VM
    #[arg(long, value_name = "IMAGE", value_parser = parse_image, requires = "vm")]
    disk: Option<String>,
}

impl SampleArgs {
    fn machine(self) -> Result<Option<Machine>, StartError> {
        check_keys(&self.vm_annotation)?;
        let Self { vm, vm_annotation: annotations, disk } = self;
        Ok(vm.map(|name| Machine { name, annotations, disk }))
    }
}

/// Refuses a key that is there twice, or that the target itself sets.
fn check_keys(annotations: &[KeyValue]) -> Result<(), StartError> {
    KeyValue::check_distinct(annotations).map_err(usage)
}

/// The VM whose annotation is the target.
#[derive(Args)]
#[command(next_help_heading = "The VM that gets the hook")]
struct MachineArgs {
    /// Name of the VM
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_namespaced)]
    vm: NamespacedName,

    /// Other annotation of the VM, repeatable
    #[arg(long, value_name = "K=V", value_parser = parse_annotation_of_vm)]
    vm_annotation: Vec<KeyValue>,

    /// Container disk, for a whole sample VM
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    disk: Option<String>,
}

impl MachineArgs {
    fn machine(self) -> Result<Machine, StartError> {
        check_keys(&self.vm_annotation)?;
        Ok(Machine { name: self.vm, annotations: self.vm_annotation, disk: self.disk })
    }
}
