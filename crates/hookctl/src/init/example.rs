//! What a new hook does, and the cases that show it.

use sidecar_shim::hook::{HookKind, HookName};

use super::{File, Language};

const VMI: &str = include_str!("templates/cases/vmi.json");
const DOMAIN: &str = include_str!("templates/cases/domain.xml");
const TAGGED_DOMAIN: &str = include_str!("templates/cases/expected.xml");
const CLOUD_INIT: &str = include_str!("templates/cases/cloud-init.json");
const WITH_TIMEZONE: &str = include_str!("templates/cases/expected-timezone.json");
const WITH_HOSTNAME: &str = include_str!("templates/cases/expected-hostname.json");

/// The node of a node hook's cases.
pub(super) const NODE: &str = "rack1-node01";

/// What a new hook does.
#[derive(Clone, Copy)]
pub(super) enum Example {
    AssetTag,
    Timezone,
    /// For languages that have no SDK to add a part to user data.
    HostName,
    Rack,
}

/// What a case expects.
enum Expected {
    Changed(&'static str),
    Unchanged,
    Refused,
}

impl Example {
    pub(super) fn of(kind: HookKind, language: Language) -> Self {
        match (kind, language) {
            (HookKind::Domain, _) => Self::AssetTag,
            (HookKind::CloudInit, Language::Perl | Language::Shell) => Self::HostName,
            (HookKind::CloudInit, _) => Self::Timezone,
            (HookKind::Node, _) => Self::Rack,
        }
    }

    pub(super) fn hook(self) -> HookName {
        match self {
            Self::AssetTag => HookName::ON_DEFINE_DOMAIN,
            Self::Timezone | Self::HostName => HookName::PRE_CLOUD_INIT_ISO,
            // preVMStart
            Self::Rack => HookName::NODE_HOOKS[0].clone(),
        }
    }

    pub(super) fn purpose(self) -> &'static str {
        match self {
            Self::AssetTag => {
                "sets the asset tag of a VM to its annotation `example.org/asset-tag`"
            }
            Self::Timezone => {
                "sets the time zone of a VM's guest to the VM's annotation `example.org/timezone`"
            }
            Self::HostName => {
                "sets the host name of a VM's guest to the VM's annotation `example.org/hostname`"
            }
            Self::Rack => {
                "starts a VM only in the rack that its annotation `example.org/rack` names"
            }
        }
    }

    pub(super) fn annotation(self) -> &'static str {
        match self {
            Self::AssetTag => "example.org/asset-tag",
            Self::Timezone => "example.org/timezone",
            Self::HostName => "example.org/hostname",
            Self::Rack => "example.org/rack",
        }
    }

    /// Returns a value of the annotation with which the hook does its work. The shell's hook takes
    /// no value that needs an escape sequence.
    pub(super) fn value(self, language: Language) -> &'static str {
        match self {
            Self::AssetTag if language == Language::Shell => "R-4711",
            Self::AssetTag => "R&D 4711",
            Self::Timezone => "Europe/Lisbon",
            Self::HostName => "web-1",
            Self::Rack => "rack1",
        }
    }

    /// Returns a value that the hook refuses, as JSON has it.
    fn refused_value(self) -> &'static str {
        match self {
            Self::AssetTag => "a\\tb",
            Self::Timezone => "Lisbon, Portugal",
            Self::HostName => "web 1",
            Self::Rack => "rack2",
        }
    }

    /// Returns the names of two cases: in one the hook does its work, the other it refuses.
    pub(super) fn cases(self) -> (&'static str, &'static str) {
        match self {
            Self::AssetTag => ("asset-tag", "control-character"),
            Self::Timezone => ("timezone", "not-a-timezone"),
            Self::HostName => ("hostname", "not-a-hostname"),
            Self::Rack => ("in-the-rack", "in-another-rack"),
        }
    }

    /// Returns the files of all cases.
    pub(super) fn case_files(self, language: Language) -> Vec<File> {
        let (working, refused) = self.cases();
        let value = self.value(language);
        let expected = match self {
            Self::AssetTag => Expected::Changed(TAGGED_DOMAIN),
            Self::Timezone => Expected::Changed(WITH_TIMEZONE),
            Self::HostName => Expected::Changed(WITH_HOSTNAME),
            Self::Rack => Expected::Unchanged,
        };
        [
            self.case(working, Some(value), &expected, language),
            self.case("no-annotation", None, &Expected::Unchanged, language),
            self.case(refused, Some(self.refused_value()), &Expected::Refused, language),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn case(
        self,
        name: &str,
        value: Option<&str>,
        expected: &Expected,
        language: Language,
    ) -> Vec<File> {
        let annotation = self.annotation();
        let annotations =
            value.map(|value| format!("\"{annotation}\": \"{value}\"")).unwrap_or_default();
        let mut files = vec![("vmi.json", VMI.replace("@ANNOTATION@", &annotations))];
        files.push(match self {
            Self::AssetTag => ("domain.xml", DOMAIN.to_owned()),
            Self::Timezone | Self::HostName => ("cloud-init.json", CLOUD_INIT.to_owned()),
            Self::Rack => ("args.toml", format!("hook = \"{}\"\nnode = \"{NODE}\"\n", self.hook())),
        });
        files.push(match (expected, self) {
            (Expected::Changed(text), Self::AssetTag) => {
                let tag = self.value(language).replace('&', "&amp;");
                ("expected.xml", text.replace("@TAG@", &tag))
            }
            (Expected::Changed(text), _) => ("expected.json", (*text).to_owned()),
            (Expected::Unchanged, _) => ("unchanged", String::new()),
            (Expected::Refused, _) => {
                // A worker refuses. Of a program the shim knows only that it has failed.
                let status = match language {
                    Language::Shell => "INTERNAL",
                    _ => "FAILED_PRECONDITION",
                };
                ("error.txt", format!("{status}\nannotation {annotation}\n"))
            }
        });
        let file =
            |(file, text)| File { path: format!("cases/{name}/{file}"), text, is_program: false };
        files.into_iter().map(file).collect()
    }
}
