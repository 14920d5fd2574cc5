//! A domain hook of the Plugins API: the Plugin, and a policy that adds the shim to the VMs' pods.

use sidecar_shim::hook::{HookKind, HookName};

use super::hooks::only;
use super::machine::{self, Interface, Machine, Metadata};
use super::names::object_name;
use super::output::Manifests;
use super::quote::{cel_string, scalar};
use super::{KubeVirt, PluginOptions};

/// Comments on the patch.
const ABOUT_THE_PATCH: &str = "        # - The shim is an init container with restartPolicy: Always. It restarts after a crash, and
        #   the pod completes once its `compute` container has exited. An ordinary container would
        #   keep the pod running, because the Plugins API has no call that stops a sidecar.
        # - Requests equal limits, so that the pod of a VM with dedicated CPUs stays Guaranteed.
        #   Unless set otherwise, they are those that KubeVirt sets for sidecars of such VMs. A shim
        #   and its Python worker take 14.2 MiB (docs/performance.md of sidecar-shim).
        # - runAsUser is set because the pod's user would override the image's, and is 0 for VMs
        #   that run as root. 107 is virt-launcher's user, which must be able to open the socket.
        # - A policy of KubeVirt requires subPath, so that plugins cannot access each other's
        #   sockets.
";

/// The shim's rights, in CEL.
const SECURITY_CONTEXT: &str =
    "                securityContext: Object.spec.initContainers.securityContext{
                  runAsNonRoot: true,
                  runAsUser: 107,
                  runAsGroup: 107,
                  allowPrivilegeEscalation: false,
                  readOnlyRootFilesystem: true,
                  capabilities: Object.spec.initContainers.securityContext.capabilities{
                    drop: [\"ALL\"]
                  },
                  seccompProfile: Object.spec.initContainers.securityContext.seccompProfile{
                    type: \"RuntimeDefault\"
                  }
                },
";

/// What to generate.
pub(crate) struct PluginConfig {
    pub(crate) plugin: PluginOptions,
    /// Request and limit of the shim, the same, so that a Guaranteed pod stays that.
    pub(crate) cpu: String,
    pub(crate) memory: String,
    /// A sample VM.
    pub(crate) machine: Option<Machine>,
}

pub(super) fn manifests(config: &PluginConfig, hooks: &[HookName]) -> Result<Manifests, String> {
    let advice = "node hooks are for `hookctl generate node`, preCloudInitIso for `hookctl generate \
                  sidecar`";
    only(hooks, |kind| kind == HookKind::Domain, "a Plugin in a VM's pod", advice)?;
    let mut manifests = Manifests::new(header(config.plugin.kubevirt));
    manifests.push("plugin", plugin(&config.plugin));
    manifests.push("policy", policy(config));
    manifests.push("policy-binding", binding(&config.plugin));
    if let Some(vm) = &config.machine {
        let mut metadata = Metadata::default();
        metadata.select(&config.plugin.selector, vm);
        let comment = "# An ordinary VM, which the Plugin selects.\n";
        manifests.push("vm", machine::manifest(vm, comment, metadata, &Interface::Masquerade));
    }
    Ok(manifests)
}

fn header(version: KubeVirt) -> String {
    let provisional = match version {
        KubeVirt::V1_9 => "",
        KubeVirt::V1_10 => {
            "# PROVISIONAL: KubeVirt 1.10 is not released, and the Plugin's field names come from its enhancement
# proposal. Each version of KubeVirt drops the fields of the other without an error, so a Plugin is
# for one version. The other objects are for both.
#
"
        }
    };
    format!(
        "{provisional}# A domain hook for KubeVirt's Plugins API (alpha, KubeVirt {version}, feature gate Plugins).
# KubeVirt starts no sidecar for a Plugin: the policy below adds the shim to the pods of the VMs
# that need it.
#
# The Plugin comes first: KubeVirt validates its condition, and `kubectl apply` does not undo the
# documents before a refused one. A VM that the Plugin selects does not start if its pod has no
# shim, so apply the whole file at once. To remove it, delete the Plugin first.
#
# MutatingAdmissionPolicy is v1 since Kubernetes 1.36. On 1.34 and 1.35 use v1beta1 in both places,
# and enable it in the API server.
"
    )
}

/// Returns the path of the shim's socket, in the pod.
fn socket(name: &str) -> String {
    format!("{}/hook.sock", socket_directory(name))
}

fn socket_directory(name: &str) -> String {
    format!("/var/run/kubevirt-plugin/{name}")
}

/// Returns the labels of an object, as lines in its metadata.
pub(super) fn labels(object: &str) -> String {
    format!(
        "  labels:
    app.kubernetes.io/name: {}
    app.kubernetes.io/component: hook
",
        scalar(object)
    )
}

fn plugin(options: &PluginOptions) -> String {
    let object = object_name(&options.name);
    let (list, permitted) = match options.kubevirt {
        KubeVirt::V1_9 => ("domainHooks: # launcherHooks in KubeVirt 1.10", ""),
        KubeVirt::V1_10 => (
            "launcherHooks: # domainHooks in KubeVirt 1.9",
            "        # The shim does not serve PreBoot and PreMigrationSource.
        permittedHooks: [GuestDefinition]
",
        ),
    };
    let condition = options.selector.domain().map_or_else(String::new, |condition| {
        format!(
            "      # A domain hook's condition names the fields as KubeVirt's Go types do: `vmi.Annotations`, not
      # `vmi.metadata.annotations`.
      condition: {}
",
            scalar(&condition)
        )
    });
    format!(
        "apiVersion: plugin.kubevirt.io/v1alpha1
kind: Plugin
metadata:
  # The socket's directory and the subPath contain this name.
  name: {name}
{labels}spec:
  # No condition here, only at the hook: KubeVirt's components want different spellings of it.
  {list}
    - sidecar:
        socketPath: {socket}
{permitted}{condition}      failureStrategy: {strategy} # {effect}
      timeout: {timeout}
  # For information only: KubeVirt does not create these policies.
  mutatingAdmissionPolicies:
    - name: {policy}
",
        name = scalar(&options.name),
        labels = labels(&object),
        socket = scalar(&socket(&options.name)),
        strategy = options.failure_strategy(),
        effect = if options.ignore_failure {
            "with Fail, the VM does not start without the hook's changes"
        } else {
            "with Ignore, the VM starts without the hook's changes"
        },
        timeout = scalar(&options.timeout()),
        policy = scalar(&object),
    )
}

fn policy(config: &PluginConfig) -> String {
    let options = &config.plugin;
    let object = object_name(&options.name);
    let wants_the_hook = options.selector.pod().map_or_else(String::new, |condition| {
        format!(
            "    # KubeVirt copies a VM's annotations and labels to its pod. This condition must match the
    # Plugin's condition on the VM.
    - name: wants-the-hook
      expression: {}
",
            scalar(&condition)
        )
    });
    let failure = if options.ignore_failure {
        "  # A VM may start without the hook.\n  failurePolicy: Ignore\n"
    } else {
        "  # A pod without the shim would fail later, after 30 s, with a less helpful message.
  failurePolicy: Fail
"
    };
    let not_there_yet = format!(
        "!has(object.spec.initContainers) || !object.spec.initContainers.exists(c, c.name == {})",
        cel_string(&object)
    );
    format!(
        "apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata:
  name: {name}
{labels}spec:
{failure}  reinvocationPolicy: Never
  matchConstraints:
    # The API server checks the label before it evaluates expressions.
    objectSelector:
      matchLabels:
        kubevirt.io: virt-launcher
    resourceRules:
      - apiGroups: [\"\"]
        apiVersions: [\"v1\"]
        operations: [\"CREATE\"]
        resources: [\"pods\"]
        scope: Namespaced
  matchConditions:
{wants_the_hook}    # KubeVirt adds this volume if its feature gate Plugins is enabled.
    - name: has-plugin-sockets
      expression: >-
        has(object.spec.volumes) && object.spec.volumes.exists(v, v.name == \"kubevirt-plugin-sockets\")
    - name: not-there-yet
      expression: {not_there_yet}
  mutations:
    # A JSON patch, because an ApplyConfiguration must not set lists such as args, command and
    # capabilities.drop.
    - patchType: JSONPatch
      jsonPatch:
{patch}",
        name = scalar(&object),
        labels = labels(&object),
        not_there_yet = scalar(&not_there_yet),
        patch = patch(config, &object),
    )
}

fn patch(config: &PluginConfig, object: &str) -> String {
    let name = &config.plugin.name;
    // Every value is a literal of CEL on one line, so it is safe in a block of YAML too.
    let socket = cel_string(&socket(name));
    format!(
        "{ABOUT_THE_PATCH}{about_the_probe}        expression: >-
          (has(object.spec.initContainers)
            ? []
            : [JSONPatch{{op: \"add\", path: \"/spec/initContainers\", value: []}}]) +
          [
            JSONPatch{{
              op: \"add\",
              path: \"/spec/initContainers/-\",
              value: Object.spec.initContainers{{
                name: {container},
                image: {image},
                imagePullPolicy: \"IfNotPresent\",
                args: [\"--plugin-socket\", {socket}],
                restartPolicy: \"Always\",
{probe}                resources: Object.spec.initContainers.resources{{
                  requests: {{\"cpu\": {cpu}, \"memory\": {memory}}},
                  limits: {{\"cpu\": {cpu}, \"memory\": {memory}}}
                }},
{SECURITY_CONTEXT}                volumeMounts: [
                  Object.spec.initContainers.volumeMounts{{
                    name: \"kubevirt-plugin-sockets\",
                    mountPath: {directory},
                    subPath: {sub_path}
                  }}
                ]
              }}
            }}
          ]
",
        about_the_probe = about_the_probe(config.plugin.ignore_failure),
        probe = if config.plugin.ignore_failure { String::new() } else { probe(&socket) },
        container = cel_string(object),
        image = cel_string(&config.plugin.image),
        cpu = cel_string(&config.cpu),
        memory = cel_string(&config.memory),
        directory = cel_string(&socket_directory(name)),
        sub_path = cel_string(name),
    )
}

/// Returns the startup probe, in CEL.
fn probe(socket: &str) -> String {
    format!(
        "                startupProbe: Object.spec.initContainers.startupProbe{{
                  exec: Object.spec.initContainers.startupProbe.exec{{
                    command: [\"/sidecar-shim\", \"health\", \"--socket\", {socket}]
                  }},
                  periodSeconds: 1,
                  timeoutSeconds: 2,
                  failureThreshold: 60
                }},
"
    )
}

fn about_the_probe(ignore_failure: bool) -> &'static str {
    if ignore_failure {
        "        # - There is no startupProbe: with failureStrategy: Ignore the VM starts in any case.\n"
    } else {
        "        # - The pod's `compute` container starts after the probe has succeeded. If the shim cannot
        #   start, the pod's status shows it; without a probe, KubeVirt would wait for the socket.
        #   With failureStrategy: Ignore remove the probe, so that the VM starts in any case.
"
    }
}

fn binding(options: &PluginOptions) -> String {
    let object = object_name(&options.name);
    let (comment, resources) = match options.selector.namespaces.as_slice() {
        [] => (
            "# The policy has no effect without a binding. matchResources.namespaceSelector limits it to some
# namespaces; then limit the Plugin's condition in the same way (--namespace does both).
",
            String::new(),
        ),
        namespaces => {
            let names: Vec<_> = namespaces.iter().map(|name| scalar(name)).collect();
            let selector = format!(
                "  # The namespaces of the Plugin's condition.
  matchResources:
    namespaceSelector:
      matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: In
          values: [{}]
",
                names.join(", ")
            );
            ("# The policy has no effect without a binding.\n", selector)
        }
    };
    format!(
        "{comment}apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata:
  name: {name}
{labels}spec:
  policyName: {name}
{resources}",
        name = scalar(&object),
        labels = labels(&object),
    )
}
