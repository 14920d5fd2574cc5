//! Names of hooks as people write them: a hook's (`preVMStart`), or KubeVirt's name of its hook
//! point (`PreVMStart`).

use sidecar_shim::error::StartError;
use sidecar_shim::hook::HookName;

/// Least similarity of a name to the one that was probably meant, as clap demands.
const MIN_SIMILARITY: f64 = 0.8;

/// Parses a name in either spelling. Returns `None` if no hook can have it.
pub(crate) fn parse(text: &str) -> Option<HookName> {
    let of_point = |text| HookName::WITH_DOCUMENT.into_iter().find(|it| it.hook_point() == text);
    HookName::parse(text).or_else(|| of_point(text)).or_else(|| HookName::of_node_hook_point(text))
}

/// Returns the known hook that a name probably means. `None` for a hook's own name.
fn nearest(text: &str) -> Option<HookName> {
    let lower = text.to_lowercase();
    // The first forgives a wrong end, the second a missing beginning.
    let measures = [strsim::jaro_winkler, strsim::normalized_damerau_levenshtein];
    let similarity = |hook: &HookName| {
        let known = hook.as_str().to_lowercase();
        measures.map(|measure| measure(&known, &lower)).into_iter().fold(0.0, f64::max)
    };
    HookName::WITH_DOCUMENT
        .into_iter()
        .chain(HookName::NODE_HOOKS)
        .filter(|hook| similarity(hook) >= MIN_SIMILARITY)
        .max_by(|one, other| similarity(one).total_cmp(&similarity(other)))
        .filter(|hook| hook.as_str() != text)
}

/// Returns the end of an error about a name that is misspelt, or an empty text.
pub(super) fn advice(text: &str) -> String {
    nearest(text).map_or_else(String::new, |hook| format!(". Did you mean {hook}?"))
}

/// Returns the error for a name that no hook has, or that no program may have.
pub(crate) fn unknown_hook(name: &str) -> StartError {
    StartError::Usage(format!(
        "unknown hook {name:?}: hooks are onDefineDomain, preCloudInitIso, node hooks such as \
         preVMStart, and in exec mode those that --node-hooks names{}",
        advice(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_understood() {
        for hook in HookName::WITH_DOCUMENT.into_iter().chain(HookName::NODE_HOOKS) {
            assert_eq!(parse(hook.as_str()), Some(hook.clone()));
            assert_eq!(parse(&hook.hook_point()), Some(hook));
        }
        assert_eq!(parse("PreVMSnapshot").unwrap().as_str(), "preVMSnapshot");
        for bad in ["", "on define", "Initialize", "../onDefineDomain"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_misspelt_name_is_near_to_the_one_that_is_meant() {
        for (text, expected) in [
            ("onDefineDomian", "onDefineDomain"),
            ("ondefinedomain", "onDefineDomain"),
            ("defineDomain", "onDefineDomain"),
            ("preCloudinitISO", "preCloudInitIso"),
            ("preVmStart", "preVMStart"),
            ("preVMStrat", "preVMStart"),
            ("onVmStop", "onVMStop"),
            ("PREMIGRATIONTARGET", "preMigrationTarget"),
        ] {
            assert_eq!(nearest(text).unwrap().as_str(), expected, "{text}");
        }
        for text in ["kill", "", "domain", "onDefineDomain", "onVMStop"] {
            assert_eq!(nearest(text), None, "{text}");
        }
    }
}
