//! `args.toml`: what a case says of its call apart from the documents.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use sidecar_shim::cli::values::parse_time;
use sidecar_shim::hook::HookName;

/// Its name.
pub(super) const FILE: &str = "args.toml";

/// Variables that the shim sets for its hooks.
const RESERVED: [&str; 3] =
    ["KUBEVIRT_HOOK_PROTOCOL", "KUBEVIRT_HOOK_CONTEXT", "SIDECAR_SHIM_STDERR_LEVELS"];

/// Why KubeVirt calls a Plugin's domain hook.
const CONTEXTS: [&str; 3] = ["Boot", "MigrationSource", "MigrationTarget"];

/// Maximum number of letters in which a misspelt context differs from the one that is meant, for
/// one of up to [`SHORT`] letters, and for a longer one. `Reboot` is not a misspelt `Boot`.
const MISSPELT: [usize; 2] = [1, 2];
const SHORT: usize = 5;

/// The values of the file.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) hook: Option<HookName>,
    pub(super) context: Option<String>,
    pub(super) node: Option<String>,
    pub(super) deadline: Option<Duration>,
    pub(super) variables: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    hook: Option<String>,
    context: Option<String>,
    node: Option<String>,
    deadline: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

impl Arguments {
    /// Reads the file's text. An error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let place = line.map_or_else(String::new, |line| format!(", line {line}"));
            format!("{FILE}{place}: {}", error.message())
        })?;
        let wrong = |what: String| format!("{FILE}: {what}");
        let hook = file.hook.map(|name| {
            let hook = HookName::parse(&name).or_else(|| by_hook_point(&name));
            hook.ok_or_else(|| {
                wrong(format!("hook = {name:?} cannot be a hook, such as \"preVMStart\""))
            })
        });
        if let Some(context) = file.context.as_deref().filter(|context| is_misspelt(context)) {
            let [others @ .., last] = CONTEXTS;
            let others = others.join(", ");
            return Err(wrong(format!("context = {context:?} must be {others} or {last}")));
        }
        let deadline = file.deadline.map(|time| {
            parse_time(&time).map_err(|why| {
                wrong(format!(
                    "deadline = {time:?} cannot be read as a time, such as \"5s\": {why}"
                ))
            })
        });
        for (name, value) in &file.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(wrong(format!("[env] {name:?} cannot be an environment variable")));
            }
            if RESERVED.contains(&name.as_str()) {
                return Err(wrong(format!("[env] {name} is set by the shim: leave it out")));
            }
        }
        Ok(Self {
            hook: hook.transpose()?,
            context: file.context,
            node: file.node,
            deadline: deadline.transpose()?,
            variables: file.env,
        })
    }
}

/// Whether a context resembles a known one. Later versions of KubeVirt may send others.
fn is_misspelt(context: &str) -> bool {
    let lower = context.to_lowercase();
    !CONTEXTS.contains(&context)
        && CONTEXTS.iter().any(|known| {
            let limit = MISSPELT[usize::from(known.len() > SHORT)];
            strsim::damerau_levenshtein(&known.to_lowercase(), &lower) <= limit
        })
}

/// Returns the hook for KubeVirt's name of it.
fn by_hook_point(point: &str) -> Option<HookName> {
    let with_document = HookName::WITH_DOCUMENT.into_iter().find(|hook| hook.hook_point() == point);
    with_document.or_else(|| HookName::of_node_hook_point(point))
}
