//! A hook of the hook-sidecar API: the VM's annotation, and for a script the `ConfigMap` with it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sidecar_shim::hook::{HookKind, HookName};
use sidecar_shim::text::escape_line;

use super::hooks::only;
use super::machine::{self, Interface, Machine, Metadata};
use super::names::{HOOK_SIDECARS, object_name};
use super::output::Manifests;
use super::plugin::labels;
use super::quote::{is_printable, json_string, scalar};

/// Maximum size of a script: Kubernetes stores 1 MiB in a `ConfigMap`, with its metadata.
const MAX_SCRIPT_BYTES: u64 = 1000 * 1024;

/// Maximum length of a script's first line: Linux reads no more of it.
pub(super) const MAX_FIRST_LINE_BYTES: usize = 255;

/// What to generate.
pub(crate) struct SidecarConfig {
    pub(crate) image: String,
    pub(crate) machine: Machine,
    /// A program that is not in the image.
    pub(crate) script: Option<Script>,
}

/// A program for a `ConfigMap`.
pub(crate) struct Script {
    /// The hook's name, from which the `ConfigMap` has its name.
    pub(crate) name: String,
    pub(crate) file: PathBuf,
}

pub(super) fn manifests(config: &SidecarConfig, hooks: &[HookName]) -> Result<Manifests, String> {
    let advice = "node hooks are for `hookctl generate node`";
    only(hooks, |kind| kind != HookKind::Node, "a sidecar", advice)?;
    if let Some(script) = &config.script {
        return with_script(config, script, hooks);
    }
    let header = "# A hook in a custom image, as a sidecar of one VM. For KubeVirt's hook sidecar API (feature gate
# Sidecar).
";
    let mut manifests = Manifests::new(header.to_owned() + apply(&config.machine));
    manifests.push("vm", vm(config, None));
    Ok(manifests)
}

fn with_script(
    config: &SidecarConfig,
    script: &Script,
    hooks: &[HookName],
) -> Result<Manifests, String> {
    let [hook] = hooks else {
        return Err("a sidecar has one ConfigMap with one program: give --hook once".to_owned());
    };
    let text = read(&script.file)?;
    let header = "# A hook as a script in a ConfigMap, without a custom image. For KubeVirt's hook sidecar API
# (feature gate Sidecar).
#
# This uses exec mode: the shim starts the script for each call. The image must contain the script's
# interpreter. The image that is built without `--target` has a shell and Python.
";
    let mut manifests = Manifests::new(header.to_owned() + apply(&config.machine));
    let object = object_name(&script.name);
    manifests.push(
        "config-map",
        format!(
            "apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
  namespace: {namespace} # must be the VM's namespace
{labels}data:
  {hook}: {text}",
            name = scalar(&object),
            namespace = scalar(&config.machine.name.namespace),
            labels = labels(&object),
            hook = scalar(hook.as_str()),
            text = block(&text, 4),
        ),
    );
    let mount = format!(
        ",
            \"configMap\": {{\"name\": {name}, \"key\": {hook}, \"hookPath\": {path}}}",
        name = json_string(&object),
        hook = json_string(hook.as_str()),
        path = json_string(&format!("/usr/bin/{hook}")),
    );
    manifests.push("vm", vm(config, Some(&mount)));
    Ok(manifests)
}

/// Says how a part of a VM is applied.
fn apply(machine: &Machine) -> &'static str {
    if machine.disk.is_some() {
        return "";
    }
    "#
# The VirtualMachine is only the part of yours that has the annotation. Apply it with
# `kubectl apply --server-side`, which leaves the other fields alone, and restart the VM.
"
}

fn vm(config: &SidecarConfig, mount: Option<&str>) -> String {
    let comment = match mount {
        Some(_) => {
            "        # hookPath is the mount point of the file, which is read-only and executable. It must be in
        # $PATH and named after the hook. v1alpha3 is the first version in which KubeVirt stops the
        # sidecar when its VM migrates away.
"
        }
        None => {
            "        # The image's entry point has `--mode persistent` and the worker's command, or the image has
        # the hook's program in $PATH; KubeVirt appends args. v1alpha3 is the first version in which
        # KubeVirt stops the sidecar when its VM migrates away.
"
        }
    };
    // Folded, so that each line break becomes a space between JSON's values. No value has a line
    // break or a character that a block cannot have: JSON escapes them.
    let annotations = format!(
        "{comment}        {HOOK_SIDECARS}: >-
          [{{\"image\": {image},
            \"imagePullPolicy\": \"IfNotPresent\",
            \"args\": [\"--version\", \"v1alpha3\"]{mount}}}]
",
        image = json_string(&config.image),
        mount = mount.unwrap_or_default(),
    );
    let metadata = Metadata { annotations, ..Metadata::default() };
    machine::manifest(&config.machine, "", metadata, &Interface::Masquerade)
}

/// Reads a script that KubeVirt can mount and Linux can start.
fn read(path: &Path) -> Result<String, String> {
    let failed = |reason: &str| format!("script {}: {reason}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SCRIPT_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(&error.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_SCRIPT_BYTES) {
        return Err(failed(&format!(
            "it is larger than the {MAX_SCRIPT_BYTES} bytes that a ConfigMap can have: build an image \
             with it (hookctl generate dockerfile)"
        )));
    }
    if !bytes.starts_with(b"#!") {
        return Err(failed(
            "it does not begin with #! and an interpreter, so Linux cannot start it; for a compiled \
             program build an image (hookctl generate dockerfile)",
        ));
    }
    check_first_line(&bytes).map_err(|why| failed(&why))?;
    String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8"))
}

/// Checks that Linux can read the first line of a script, of which `start` has the beginning.
pub(super) fn check_first_line(start: &[u8]) -> Result<(), String> {
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let Some(line) = line.strip_suffix(b"\r").filter(|line| line.starts_with(b"#!")) else {
        return Ok(());
    };
    let line = String::from_utf8_lossy(line.get(..MAX_FIRST_LINE_BYTES).unwrap_or(line));
    Err(format!(
        "the first line, `{}`, ends in a carriage return, which Linux takes for a part of the \
         interpreter's name: give the file Unix's line ends (dos2unix, or in Git eol=lf)",
        escape_line(&line)
    ))
}

/// Returns a text as a literal block after `key:`, or in quotes if a block would change it.
pub(super) fn block(text: &str, indentation: usize) -> String {
    let fits = text.chars().all(|char| is_printable(char) || matches!(char, '\n' | '\t'))
        && !text.starts_with([' ', '\t', '\n'])
        && !text.ends_with("\n\n");
    if !fits {
        return scalar(text) + "\n";
    }
    // "-" keeps YAML from adding the line break that the text does not have.
    let mut yaml = if text.ends_with('\n') { "|\n".to_owned() } else { "|-\n".to_owned() };
    for line in text.lines() {
        if line.is_empty() {
            yaml.push('\n');
        } else {
            let _ = writeln!(yaml, "{:indentation$}{line}", "");
        }
    }
    yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_a_block_unless_that_would_change_it() {
        assert_eq!(block("#!/bin/sh\n\n\techo ü\n", 4), "|\n    #!/bin/sh\n\n    \techo ü\n");
        assert_eq!(block("#!/bin/sh\nx", 2), "|-\n  #!/bin/sh\n  x\n");
        assert_eq!(block("#!x\r\n", 2), "\"#!x\\u000d\\n\"\n");
        assert_eq!(block("#!x\n\n", 2), "\"#!x\\n\\n\"\n");
    }
}
