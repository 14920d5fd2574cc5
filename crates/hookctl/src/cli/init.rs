//! The command line of `init`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sidecar_shim::hook::HookKind;

use crate::generate::names::parse_name;
use crate::init::{InitConfig, Language};

#[derive(Args)]
pub(super) struct InitArgs {
    /// Hook's name, a DNS label, and name of the new directory
    #[arg(value_parser = parse_name)]
    name: String,

    /// Language: python, rust, go, perl or shell
    #[arg(long = "lang", value_name = "LANGUAGE", hide_possible_values = true)]
    language: LanguageName,

    /// Make a cloud-init hook, not a domain hook
    #[arg(long, conflicts_with = "node")]
    cloud_init: bool,

    /// Make a node hook, not a domain hook
    #[arg(long)]
    node: bool,

    // As `help`, so that it has no backticks.
    #[arg(long, value_name = "PATH", help = "Clone of sidecar-shim, for its SDK (rust, go)")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LanguageName {
    Python,
    Rust,
    Go,
    Perl,
    Shell,
}

impl InitArgs {
    pub(super) fn resolve(self) -> InitConfig {
        InitConfig {
            name: self.name,
            language: match self.language {
                LanguageName::Python => Language::Python,
                LanguageName::Rust => Language::Rust,
                LanguageName::Go => Language::Go,
                LanguageName::Perl => Language::Perl,
                LanguageName::Shell => Language::Shell,
            },
            kind: match (self.cloud_init, self.node) {
                (true, _) => HookKind::CloudInit,
                (_, true) => HookKind::Node,
                _ => HookKind::Domain,
            },
            sdk: self.sdk,
        }
    }
}
