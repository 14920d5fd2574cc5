//! Names and kinds of hooks, and KubeVirt's hook points.

use std::borrow::Cow;
use std::fmt;

/// Maximum length of a hook's name; KubeVirt's own are under 20 bytes.
const MAX_NAME_BYTES: usize = 63;

/// What a hook is called with in addition to the VMI. Code that treats hooks differently matches on
/// this, so that the compiler finds it when another kind is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// A libvirt domain, which the hook may change.
    Domain,
    /// Cloud-init data, which the hook may change.
    CloudInit,
    /// The name of the node. The hook changes no document.
    Node,
}

/// The name of a hook in the protocols and in `$PATH`: `onDefineDomain`.
///
/// It is a lower-case ASCII letter followed by ASCII letters and digits, so it is safe to look it
/// up in `$PATH` and to print it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookName(Cow<'static, str>);

impl HookName {
    /// The hook that changes the libvirt domain before it is defined.
    pub const ON_DEFINE_DOMAIN: Self = Self(Cow::Borrowed("onDefineDomain"));
    /// The hook that changes cloud-init data before the disk image is made from it.
    pub const PRE_CLOUD_INIT_ISO: Self = Self(Cow::Borrowed("preCloudInitIso"));

    /// The hooks that change a document. Any other is a node hook.
    pub const WITH_DOCUMENT: [Self; 2] = [Self::ON_DEFINE_DOMAIN, Self::PRE_CLOUD_INIT_ISO];

    /// The node hooks of KubeVirt 1.9 and 1.10. Workers may declare others, which later versions
    /// may have.
    pub const NODE_HOOKS: [Self; 8] = [
        Self(Cow::Borrowed("preVMStart")),
        Self(Cow::Borrowed("postVMStart")),
        Self::PRE_VM_STOP,
        Self::ON_VM_STOP,
        Self(Cow::Borrowed("postVMStop")),
        Self(Cow::Borrowed("preMigrationSource")),
        Self(Cow::Borrowed("preMigrationTarget")),
        Self(Cow::Borrowed("postMigrationTarget")),
    ];

    /// The hook before a VM is stopped, as KubeVirt 1.9 names it.
    const PRE_VM_STOP: Self = Self(Cow::Borrowed("preVMStop"));
    /// The same hook, as KubeVirt 1.10 names it.
    const ON_VM_STOP: Self = Self(Cow::Borrowed("onVMStop"));

    /// Names that no node hook may have, and the hook points of virt-launcher in KubeVirt 1.10 that
    /// they are for. The second has a prefix because a node hook is named `preMigrationSource`.
    const RESERVED: [(&str, &str); 2] =
        [("preBoot", "PreBoot"), ("launcherPreMigrationSource", "PreMigrationSource")];

    /// Validates a name. Returns `None` if it cannot be a hook's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let first = name.bytes().next()?;
        let fits = first.is_ascii_lowercase()
            && name.len() <= MAX_NAME_BYTES
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // `initialize` is a request of the worker protocol itself.
        (fits && name != "initialize").then(|| Self(Cow::Owned(name.to_owned())))
    }

    /// Returns the node hook for a hook point: `preVMStart` for `PreVMStart`. Returns `None` if the
    /// name cannot be a node hook's. The hooks that change a document are excluded: they must not
    /// be called without one. So are names that are reserved.
    #[must_use]
    pub fn of_node_hook_point(point: &str) -> Option<Self> {
        let first = point.chars().next()?.to_ascii_lowercase();
        let rest = point.get(first.len_utf8()..)?;
        Self::parse(&format!("{first}{rest}"))
            .filter(|hook| hook.is_node_hook() && hook.reserved_for().is_none())
    }

    /// Returns the kind of the hook: a name that is not among [`Self::WITH_DOCUMENT`] is a node
    /// hook's.
    #[must_use]
    pub fn kind(&self) -> HookKind {
        if *self == Self::ON_DEFINE_DOMAIN {
            HookKind::Domain
        } else if *self == Self::PRE_CLOUD_INIT_ISO {
            HookKind::CloudInit
        } else {
            HookKind::Node
        }
    }

    /// Whether the hook runs on the node and changes no document.
    #[must_use]
    pub fn is_node_hook(&self) -> bool {
        self.kind() == HookKind::Node
    }

    /// Returns the hook's name in another version of KubeVirt.
    #[must_use]
    pub fn other_name(&self) -> Option<Self> {
        if *self == Self::PRE_VM_STOP {
            Some(Self::ON_VM_STOP)
        } else if *self == Self::ON_VM_STOP {
            Some(Self::PRE_VM_STOP)
        } else {
            None
        }
    }

    /// Returns the hook point for which this name is reserved. It is not served yet.
    #[must_use]
    pub fn reserved_for(&self) -> Option<&'static str> {
        Self::RESERVED.into_iter().find(|(name, _)| *name == self.as_str()).map(|(_, point)| point)
    }

    /// Returns KubeVirt's name of the hook: `OnDefineDomain` for `onDefineDomain`.
    #[must_use]
    pub fn hook_point(&self) -> String {
        let (first, rest) = self.0.split_at(1);
        first.to_ascii_uppercase() + rest
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_without_a_document_are_node_hooks() {
        let kinds = HookName::WITH_DOCUMENT.map(|hook| hook.kind());
        assert_eq!(kinds, [HookKind::Domain, HookKind::CloudInit]);
        for hook in HookName::NODE_HOOKS.into_iter().chain(HookName::parse("kill")) {
            assert_eq!(hook.kind(), HookKind::Node, "{hook}");
        }
    }

    #[test]
    fn hook_names_are_plain_words() {
        for good in ["onDefineDomain", "preVMStart", "x1"] {
            assert_eq!(HookName::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", "Kill", "../../bin/sh", "$/log", "initialize", "on define", "é", &long] {
            assert_eq!(HookName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn hook_points_are_any_plain_words_but_those_with_documents() {
        for hook in HookName::NODE_HOOKS {
            assert_eq!(HookName::of_node_hook_point(&hook.hook_point()), Some(hook));
        }
        assert_eq!(HookName::of_node_hook_point("Kill").unwrap().as_str(), "kill");
        let bad =
            ["", "OnDefineDomain", "PreCloudInitIso", "Initialize", "../../bin/sh", "É", "A-b"];
        for bad in bad.into_iter().chain(["PreBoot", "LauncherPreMigrationSource"]) {
            assert_eq!(HookName::of_node_hook_point(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_the_hook_before_a_stop_has_two_names() {
        let hooks = HookName::NODE_HOOKS.into_iter().chain(HookName::WITH_DOCUMENT);
        let pairs: Vec<_> = hooks
            .filter_map(|hook| Some((hook.to_string(), hook.other_name()?.to_string())))
            .collect();
        let (old, new) = ("preVMStop".to_owned(), "onVMStop".to_owned());
        assert_eq!(pairs, [(old.clone(), new.clone()), (new, old)]);
    }
}
