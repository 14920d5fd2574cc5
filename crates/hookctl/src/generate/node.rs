//! A node hook of the Plugins API: a daemon on each node, and the Plugin that names its socket.

use std::fmt::Write as _;

use sidecar_shim::hook::{HookKind, HookName};

use super::PluginOptions;
use super::hooks::{node_points, only};
use super::monitoring::COMPONENT;
use super::names::object_name;
use super::output::Manifests;
use super::plugin::labels;
use super::quote::scalar;

/// Memory of the shim and of one worker in Python, from the table "Memory" in
/// `examples/kubernetes/README.md`: 6.7 MiB and 12.8 MiB at most, with shared pages counted for
/// each. Rounded up.
const SHIM_MIB: u32 = 8;
const WORKER_MIB: u32 = 14;

/// Memory that the container's limit leaves for the shim, for its backlog and for the kernel.
const ROOM_MIB: u32 = 32;

/// On which nodes the daemon runs.
const PLACEMENT: &str = "      # All nodes where virt-handler has run. `kubevirt.io/schedulable: \"true\"` would not do: it
      # becomes false when virt-handler is late, and would stop the daemon on a node that still runs
      # VMs.
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - key: kubevirt.io/schedulable
                    operator: Exists
                  - key: kubernetes.io/os
                    operator: In
                    values: [linux]
      # On every node that can run VMs, also while the node is drained.
      tolerations:
        - operator: Exists
      # The class of virt-handler, because VMs depend equally on this daemon. KubeVirt creates the
      # class.
      priorityClassName: kubevirt-cluster-critical
";

/// What to generate.
pub(crate) struct NodeConfig {
    pub(crate) plugin: PluginOptions,
    /// Capabilities that the daemon keeps.
    pub(crate) capabilities: Vec<String>,
    /// Whether the daemon sees the processes of the node.
    pub(crate) host_pid: bool,
    /// The daemon's environment.
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) cpu: String,
    /// Number of workers at most, and the memory of each in MiB.
    pub(crate) max_workers: u32,
    pub(crate) worker_mib: u32,
}

pub(super) fn manifests(
    config: &NodeConfig,
    hooks: &[HookName],
    is_worker: bool,
) -> Result<Manifests, String> {
    let advice = "onDefineDomain is for `hookctl generate plugin`, preCloudInitIso for `hookctl \
                  generate sidecar`";
    only(hooks, |kind| kind == HookKind::Node, "a Plugin on a node", advice)?;
    let points = node_points(hooks, config.plugin.kubevirt)?;
    let version = config.plugin.kubevirt;
    let mut manifests = Manifests::new(format!(
        "# A node hook for KubeVirt's Plugins API (alpha, KubeVirt {version}, feature gate Plugins). One shim
# runs on each node with VMs, and that node's virt-handler calls it for all of them.
#
# Keep this order: virt-handler calls the hook as soon as the Plugin exists, and with
# failureStrategy: Fail no VM that the condition selects starts on a node without the daemon. To
# remove the hook, delete the Plugin first.
"
    ));
    let object = object_name(&config.plugin.name);
    manifests.push("namespace", namespace(&object));
    manifests.push("service-account", service_account(&object));
    manifests.push("network-policy", network_policy(&object));
    manifests.push("daemon-set", daemon_set(config, &object, is_worker));
    manifests.push("plugin", plugin(&config.plugin, &object, &points));
    Ok(manifests)
}

fn namespace(object: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {name}
{labels}    # The daemon needs a directory of the host. Run nothing else here.
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/audit: privileged
    pod-security.kubernetes.io/warn: privileged
",
        name = scalar(object),
        labels = labels(object),
    )
}

fn service_account(object: &str) -> String {
    format!(
        "# An account without permissions. On OpenShift, grant it a SecurityContextConstraint.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {name}
  namespace: {name}
{labels}automountServiceAccountToken: false
",
        name = scalar(object),
        labels = labels(object),
    )
}

fn network_policy(object: &str) -> String {
    format!(
        "# The daemon needs no network: virt-handler calls it through a Unix socket.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: deny-all
  namespace: {name}
{labels}spec:
  podSelector: {{}}
  policyTypes: [Ingress, Egress]
",
        name = scalar(object),
        labels = labels(object),
    )
}

/// Returns the directory of the shim's socket, on the host and in the container.
fn socket_directory(name: &str) -> String {
    format!("/var/run/kubevirt/plugins/{name}")
}

fn daemon_set(config: &NodeConfig, object: &str, is_worker: bool) -> String {
    let name = scalar(object);
    format!(
        "apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {name}
  namespace: {name}
{labels}spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  # The old pod must stop before the new one starts: a shim does not take over a socket that another
  # one serves, so with maxSurge the new pod would never become ready. Calls fail in between, and
  # virt-handler retries them.
  updateStrategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 1
      maxSurge: 0
  minReadySeconds: 5
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
        app.kubernetes.io/component: {COMPONENT}
    spec:
{PLACEMENT}      serviceAccountName: {name}
      automountServiceAccountToken: false
      enableServiceLinks: false
{host_pid}      # At least --shutdown-grace (25s), --kill-grace (2s) and 2s more: the shim exits within that.
      terminationGracePeriodSeconds: 30
      securityContext:
        seccompProfile:
          type: RuntimeDefault
      containers:
{container}      volumes:
        # A separate directory, so that the daemon cannot access sockets of other plugins.
        # virt-handler mounts all of /var/run/kubevirt. After a reboot, the kubelet creates the
        # directory again, as root with mode 0755.
        - name: socket
          hostPath:
            path: {directory}
            type: DirectoryOrCreate
",
        labels = labels(object),
        host_pid = if config.host_pid {
            "      # The hook looks for processes of VMs. Most hooks do not need this.\n      hostPID: true\n"
        } else {
            ""
        },
        container = container(config, is_worker),
        directory = scalar(&socket_directory(&config.plugin.name)),
    )
}

fn container(config: &NodeConfig, is_worker: bool) -> String {
    let directory = socket_directory(&config.plugin.name);
    let socket = scalar(&format!("{directory}/hook.sock"));
    format!(
        "        - name: shim
          image: {image}
          imagePullPolicy: IfNotPresent
          # The image's entry point sets the mode and the worker's command. Only root can open the
          # socket; virt-handler runs as root.
          args:
            - --plugin-socket
            - {socket}
            - --socket-mode
            - \"0600\"
{workers}{env}          securityContext:
            # The socket's directory belongs to the host's root.
            runAsUser: 0
            runAsGroup: 0
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
{capabilities}            # SELinux does not let container_t write below /run. Ignored on nodes without SELinux.
            seLinuxOptions:
              type: spc_t
{probes}{resources}          terminationMessagePolicy: FallbackToLogsOnError
          volumeMounts:
            - name: socket
              mountPath: {directory}
",
        image = scalar(&config.plugin.image),
        workers = if is_worker { workers(config) } else { String::new() },
        env = env(config),
        capabilities = capabilities(config),
        probes = probes(&socket),
        resources = resources(config),
        directory = scalar(&directory),
    )
}

fn probes(socket: &str) -> String {
    format!(
        "          startupProbe:
            exec:
              command: [/sidecar-shim, health, --socket, {socket}]
            periodSeconds: 1
            timeoutSeconds: 2
            failureThreshold: 60
          readinessProbe:
            exec:
              command: [/sidecar-shim, health, --socket, {socket}]
            periodSeconds: 10
            timeoutSeconds: 5
          # Restarts a shim that does not respond. The shim itself replaces a worker that hangs.
          livenessProbe:
            exec:
              command: [/sidecar-shim, health, --timeout, 5s, --socket, {socket}]
            periodSeconds: 30
            timeoutSeconds: 10
            failureThreshold: 3
"
    )
}

/// Options of the shim that are for workers only.
fn workers(config: &NodeConfig) -> String {
    let NodeConfig { max_workers, worker_mib, .. } = config;
    format!(
        "            - --max-workers
            - \"{max_workers}\"
            - --min-workers
            - \"1\"
            - --worker-memory
            - {}
",
        scalar(&format!("{worker_mib}MiB"))
    )
}

fn env(config: &NodeConfig) -> String {
    let mut yaml = String::new();
    for (name, value) in &config.variables {
        if yaml.is_empty() {
            yaml += "          env:\n";
        }
        // Kubernetes replaces $(NAME), unless the $ is doubled.
        let value = value.replace("$(", "$$(");
        let (name, value) = (scalar(name), scalar(&value));
        let _ = write!(yaml, "            - name: {name}\n              value: {value}\n");
    }
    yaml
}

fn capabilities(config: &NodeConfig) -> String {
    if config.capabilities.is_empty() {
        return String::new();
    }
    let names: Vec<_> = config.capabilities.iter().map(|name| scalar(name)).collect();
    format!(
        "              # All others are dropped, so this is root with these capabilities only.
              add: [{}]
",
        names.join(", ")
    )
}

fn resources(config: &NodeConfig) -> String {
    let request = SHIM_MIB + WORKER_MIB * config.max_workers;
    let limit = ROOM_MIB + config.worker_mib * config.max_workers;
    format!(
        "          # Measured with workers in Python (examples/kubernetes/README.md of sidecar-shim):
          # {SHIM_MIB} MiB for the shim and {WORKER_MIB} MiB for each of {workers} workers.
          # The limit covers --worker-memory of all and {ROOM_MIB} MiB: a worker that exceeds it
          # fails alone. There is no CPU limit, because throttled calls delay the start of VMs.
          resources:
            requests:
              cpu: {cpu}
              memory: {request}Mi
            limits:
              memory: {limit}Mi
",
        workers = config.max_workers,
        cpu = scalar(&config.cpu),
        request = request.min(limit),
    )
}

fn plugin(options: &PluginOptions, object: &str, points: &[String]) -> String {
    let points: Vec<_> = points.iter().map(|point| scalar(point)).collect();
    let condition = options.selector.node().map_or_else(String::new, |condition| {
        format!(
            "      # A node hook's condition names the fields as JSON does: `vmi.metadata.annotations`, not
      # `vmi.Annotations`.
      condition: {}
",
            scalar(&condition)
        )
    });
    format!(
        "apiVersion: plugin.kubevirt.io/v1alpha1
kind: Plugin
metadata:
  name: {name}
{labels}spec:
  nodeHooks:
    - socket: {socket}
      permittedHooks: [{points}]
{condition}      # Set here and not in the Plugin's spec: early builds of KubeVirt 1.9 ignore those for node
      # hooks, and a condition there has no spelling that all of KubeVirt's components accept.
      failureStrategy: {strategy}
      timeout: {timeout}
",
        name = scalar(&options.name),
        labels = labels(object),
        socket = scalar(&format!("{}/hook.sock", socket_directory(&options.name))),
        points = points.join(", "),
        strategy = options.failure_strategy(),
        timeout = scalar(&options.timeout()),
    )
}
