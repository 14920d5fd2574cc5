//! Environment variables of options: their names, those that belong to no option, and errors that
//! name them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::error::{ContextKind, ContextValue};

use crate::backend::LEVELS_VARIABLE;
use crate::text::{clip, escape_line};

/// The beginning of the names.
const PREFIX: &str = "SIDECAR_SHIM_";

/// Maximum number of unknown variables that are reported, and the length of one's name.
const MAX_UNKNOWN: usize = 10;
const MAX_NAME_BYTES: usize = 100;

/// Least similarity of a name to the one that was probably meant, as clap demands.
const MIN_SIMILARITY: f64 = 0.8;

/// Returns the environment variable of an option: `SIDECAR_SHIM_MAX_WORKERS` for `--max-workers`.
pub(super) fn variable(option: &str) -> String {
    let upper = |letter: char| if letter == '-' { '_' } else { letter.to_ascii_uppercase() };
    PREFIX.chars().chain(option.chars().map(upper)).collect()
}

/// Lets one of the shim's options read its environment variable. An empty variable counts as unset,
/// so that a pod can undo an image's.
#[must_use]
pub fn with_variable(arg: clap::Arg) -> clap::Arg {
    let Some(name) = arg.get_long().map(variable) else { return arg };
    let is_set = std::env::var_os(&name).is_some_and(|value| !value.is_empty());
    // The help states the rule once.
    if is_set { arg.env(name).hide_env(true) } else { arg }
}

/// Returns a warning for each variable that looks like an option's and is not one. The options are
/// defined only if there is such a variable at all.
pub(super) fn unknown(
    command: impl FnOnce() -> clap::Command,
    variables: impl Iterator<Item = OsString>,
) -> Vec<String> {
    let looks_like_one = |name: &OsString| {
        let name = name.as_bytes();
        name.starts_with(PREFIX.as_bytes())
            && !is_of_kubernetes(name)
            && name != LEVELS_VARIABLE.as_bytes()
    };
    let mut names: Vec<_> = variables.filter(looks_like_one).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let command = command();
    let known: Vec<_> =
        command.get_arguments().filter_map(clap::Arg::get_long).map(variable).collect();
    names.retain(|name| !known.iter().any(|known| known.as_bytes() == name.as_bytes()));
    names.sort();
    names.iter().take(MAX_UNKNOWN).map(|name| warning(name, &known)).collect()
}

/// Whether Kubernetes sets such a variable, for a Service whose name begins with `sidecar-shim`.
fn is_of_kubernetes(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name);
    let parts: Vec<_> = name.split('_').skip(2).collect();
    parts.contains(&"PORT") || parts.windows(2).any(|parts| parts == ["SERVICE", "HOST"])
}

fn warning(name: &OsStr, known: &[String]) -> String {
    let name = name.to_string_lossy();
    let similarity =
        |known: &String| strsim::jaro_winkler(&known[PREFIX.len()..], &name[PREFIX.len()..]);
    let nearest = known
        .iter()
        .filter(|known| similarity(known) >= MIN_SIMILARITY)
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    let advice = nearest.map_or_else(
        || "`sidecar-shim --help` lists the options".to_owned(),
        |nearest| format!("did you mean {nearest}?"),
    );
    let name = escape_line(&name).into_owned();
    format!("no option reads the variable {}: {advice}", clip(&name, MAX_NAME_BYTES))
}

/// Returns the text of an error about a value that is not on the command line: it names the
/// variable that has it. `None` for other errors.
#[must_use]
pub fn error_of_variable(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let long = option.split(' ').next().unwrap_or_default();
    let name = variable(long.trim_start_matches('-'));
    if super::given(args, long).next().is_some() || std::env::var_os(&name).is_none() {
        return None;
    }
    let rendered = error.render().to_string();
    // Behind the value, which may have several lines.
    let behind = rendered.rfind(&format!("for '{option}'")).unwrap_or_default();
    let end = rendered[behind..].find('\n').map_or(rendered.len(), |length| behind + length);
    let (first, rest) = rendered.split_at(end);
    Some(format!("{first} (the variable {name}){rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_no_option_are_reported_and_those_of_kubernetes_are_not() {
        let command = clap::Command::new("shim").arg(clap::Arg::new("a").long("max-workers"));
        let of = |names: &[&str]| unknown(|| command.clone(), names.iter().map(OsString::from));
        assert_eq!(
            of(&["SIDECAR_SHIM_MAX_WORKER", "SIDECAR_SHIM_X\u{1b}", "SIDECAR_SHIMX", "PATH"]),
            [
                "no option reads the variable SIDECAR_SHIM_MAX_WORKER: did you mean \
                 SIDECAR_SHIM_MAX_WORKERS?",
                "no option reads the variable SIDECAR_SHIM_X\\u{1b}: `sidecar-shim --help` lists \
                 the options",
            ]
        );
        let known = [
            "SIDECAR_SHIM_MAX_WORKERS",
            "SIDECAR_SHIM_STDERR_LEVELS",
            "SIDECAR_SHIM_SERVICE_HOST",
            "SIDECAR_SHIM_SERVICE_PORT",
            "SIDECAR_SHIM_SERVICE_PORT_METRICS",
            "SIDECAR_SHIM_PORT",
            "SIDECAR_SHIM_PORT_8080_TCP_ADDR",
            "SIDECAR_SHIM_METRICS_SERVICE_HOST",
            "SIDECAR_SHIM_METRICS_PORT_80_TCP",
        ];
        assert_eq!(of(&known), [""; 0]);
        let many: Vec<_> = (0..1000).map(|n| format!("SIDECAR_SHIM_{n}")).collect();
        assert_eq!(unknown(|| command, many.iter().map(OsString::from)).len(), MAX_UNKNOWN);
    }
}
