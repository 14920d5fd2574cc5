//! Reads a case, and finds everything that is wrong with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sidecar_shim::hook::{BadDocument, Checks, HookCall, HookKind, HookName};

use super::Case;
use super::arguments::{self, Arguments};
use super::expected::{ERROR, Expected, FILES, UNCHANGED};
use super::files::{Entry, MAX_DOCUMENT_BYTES, MAX_TEXT_BYTES, Root};
use crate::inputs::parse_vmi;

/// Names of the VMI.
pub(super) const VMI: [&str; 2] = ["vmi.json", "vmi.yaml"];
const DOMAIN: &str = "domain.xml";
const CLOUD_INIT: &str = "cloud-init.json";

/// KubeVirt's deadline for a call.
const DEADLINE: Duration = Duration::from_secs(60);

/// The node's name for node hooks, as `hookctl call` has it.
const NODE: &str = "node01";

pub(super) fn is_vmi(name: &str) -> bool {
    VMI.contains(&name)
}

/// Whether a file of this name is part of a case.
pub(super) fn is_of_case(name: &str) -> bool {
    let names = [DOMAIN, CLOUD_INIT, arguments::FILE];
    is_vmi(name) || names.contains(&name) || FILES.contains(&name)
}

/// Reads the case in a directory with these entries. An error says what is wrong with it.
pub(super) fn case(
    root: &Root,
    directory: &Path,
    name: &str,
    entries: &[Entry],
) -> Result<Case, String> {
    let files = Files { root, entries };
    files.check_names()?;
    let arguments = files.arguments()?;
    let (kind, file) = match files.one_of([DOMAIN, CLOUD_INIT])? {
        Some((DOMAIN, path)) => (HookKind::Domain, Some(path)),
        Some((_, path)) => (HookKind::CloudInit, Some(path)),
        None => (HookKind::Node, None),
    };
    let hook = hook(kind, arguments.hook)?;
    let for_others = [
        ("context", arguments.context.is_some(), HookKind::Domain, "onDefineDomain"),
        ("node", arguments.node.is_some(), HookKind::Node, "node hooks"),
    ];
    for (key, is_given, of, whose) in for_others {
        if is_given && kind != of {
            return Err(format!("{}: {key} goes with {whose} only", arguments::FILE));
        }
    }
    let subject = file.map(|path| root.read(path, MAX_DOCUMENT_BYTES)).transpose()?;
    let case = Case {
        name: name.to_owned(),
        directory: directory.to_owned(),
        hook,
        vmi: files.vmi()?,
        subject: subject.unwrap_or_default(),
        context: arguments.context,
        node: arguments.node.unwrap_or_else(|| NODE.to_owned()),
        deadline: arguments.deadline.unwrap_or(DEADLINE),
        variables: arguments.variables,
        expected: files.expected(kind)?,
    };
    check(&case)?;
    Ok(case)
}

/// Checks the documents as the shim does, so that a hook is only blamed for its own faults.
fn check(case: &Case) -> Result<(), String> {
    let kind = case.hook.kind();
    let (vmi, subject) = (&case.vmi, &case.subject);
    let of_file = |file| move |bad: BadDocument| format!("{file}: {bad}");
    let call = match kind {
        HookKind::Domain => HookCall::on_define_domain(vmi, "domain", subject.clone()),
        HookKind::CloudInit => HookCall::pre_cloud_init_iso(vmi, subject),
        HookKind::Node => HookCall::node_hook(case.hook.clone(), vmi, case.node.clone()),
    };
    let call = call.map_err(|bad| bad.to_string())?;
    let context = case.context.clone().unwrap_or_default();
    let call = call.in_context(context).map_err(of_file(arguments::FILE))?;
    let sent = if kind == HookKind::Domain { DOMAIN } else { CLOUD_INIT };
    call.check(subject.clone(), Checks::WellFormed).map_err(of_file(sent))?;
    if let Some(expected @ Expected::Document(document)) = &case.expected {
        let checked = call.check(document.clone(), Checks::WellFormed);
        checked.map_err(of_file(expected.file(kind)))?;
    }
    Ok(())
}

/// Returns the hook of a case with documents of this kind.
fn hook(kind: HookKind, named: Option<HookName>) -> Result<HookName, String> {
    let (file, owner) = match kind {
        HookKind::Domain => (DOMAIN, HookName::ON_DEFINE_DOMAIN),
        HookKind::CloudInit => (CLOUD_INIT, HookName::PRE_CLOUD_INIT_ISO),
        HookKind::Node => {
            return match named {
                Some(hook) if hook.is_node_hook() => Ok(hook),
                Some(hook) if hook == HookName::ON_DEFINE_DOMAIN => {
                    Err(format!("{hook} needs {DOMAIN}"))
                }
                Some(hook) => Err(format!("{hook} needs {CLOUD_INIT}")),
                None => Err(format!(
                    "has neither {DOMAIN} nor {CLOUD_INIT}; for a node hook, {} names it: hook = \
                     \"preVMStart\"",
                    arguments::FILE
                )),
            };
        }
    };
    match named {
        Some(hook) if hook != owner => Err(format!(
            "{}: {hook} does not go with {file}, which is for {owner}",
            arguments::FILE
        )),
        _ => Ok(owner),
    }
}

struct Files<'a> {
    root: &'a Root,
    entries: &'a [Entry],
}

impl Files<'_> {
    fn get(&self, name: &str) -> Option<&PathBuf> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| &entry.path)
    }

    /// Rejects files that have no meaning: a misspelt name would change what is tested.
    fn check_names(&self) -> Result<(), String> {
        match self.entries.iter().find(|entry| !is_of_case(&entry.name)) {
            None => Ok(()),
            Some(entry) => Err(format!(
                "has {}, which does not belong to a case: its files are {}, {DOMAIN} or \
                 {CLOUD_INIT}, {}, and one of {}",
                entry.name,
                VMI.join(" or "),
                arguments::FILE,
                FILES.join(", ")
            )),
        }
    }

    /// Returns the one of these files that there is. Several are an error.
    fn one_of<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<Option<(&'static str, &PathBuf)>, String> {
        let mut found = names.into_iter().filter_map(|name| Some((name, self.get(name)?)));
        let first = found.next();
        match (first, found.next()) {
            (Some((one, _)), Some((other, _))) => {
                Err(format!("has both {one} and {other}: remove one of them"))
            }
            _ => Ok(first),
        }
    }

    fn arguments(&self) -> Result<Arguments, String> {
        let Some(path) = self.get(arguments::FILE) else { return Ok(Arguments::default()) };
        Arguments::parse(&self.root.read_text(path, MAX_TEXT_BYTES)?)
    }

    fn vmi(&self) -> Result<Bytes, String> {
        match self.one_of(VMI)? {
            Some((name, path)) => {
                let file = self.root.read(path, MAX_DOCUMENT_BYTES)?;
                parse_vmi(&file).map(|vmi| vmi.json).map_err(|why| format!("{name}: {why}"))
            }
            None => Err(format!("has no {}", VMI.join(" or "))),
        }
    }

    fn expected(&self, kind: HookKind) -> Result<Option<Expected>, String> {
        let Some((file, path)) = self.one_of(FILES)? else { return Ok(None) };
        match file {
            UNCHANGED => {
                let text = self.root.read(path, MAX_TEXT_BYTES)?;
                if text.trim_ascii().is_empty() {
                    return Ok(Some(Expected::Unchanged));
                }
                Err(format!("{UNCHANGED} must be empty, and has text in it"))
            }
            ERROR => Expected::parse_error(&self.root.read_text(path, MAX_TEXT_BYTES)?).map(Some),
            file if Expected::document_file(kind) == Some(file) => {
                let document = self.root.read(path, MAX_DOCUMENT_BYTES)?;
                Ok(Some(Expected::Document(document)))
            }
            file => Err(match Expected::document_file(kind) {
                Some(other) => format!("has {file}, but this hook returns {other}"),
                None => format!(
                    "has {file}, but a node hook returns no document: it has {UNCHANGED} or {ERROR}"
                ),
            }),
        }
    }
}
