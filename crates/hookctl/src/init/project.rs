//! A new hook: its names and its files.

use std::fmt::Write as _;

use sidecar_shim::hook::HookKind;

use super::example::Example;
use super::templates::{README, Templates};
use super::{File, Language};
use crate::generate::names::object_name;

/// A new hook.
pub(super) struct Project {
    pub(super) name: String,
    pub(super) language: Language,
    pub(super) kind: HookKind,
    /// Path of the SDK, in quotes, for languages that need it.
    pub(super) sdk: Option<String>,
}

impl Project {
    pub(super) fn example(&self) -> Example {
        Example::of(self.kind, self.language)
    }

    /// Returns the name of the program and of its image: as `hookctl generate` names objects.
    pub(super) fn program(&self) -> String {
        object_name(&self.name)
    }

    /// Returns the name of the package in Rust, which must not begin with a digit.
    pub(super) fn crate_name(&self) -> String {
        let program = self.program();
        if program.starts_with(|first: char| first.is_ascii_digit()) {
            format!("hook-{program}")
        } else {
            program
        }
    }

    /// Returns all files of the new directory.
    pub(super) fn files(&self) -> Vec<File> {
        let templates = Templates::of(self.language, self.kind);
        let list = |names: &[&str]| names.iter().fold(String::new(), |all, it| all + it + "\n");
        let mut sources = vec![
            (templates.hook, true),
            (templates.tests, self.language == Language::Shell),
            (("Dockerfile", templates.dockerfile), false),
            (("README.md", README), false),
        ];
        sources.extend(templates.others.into_iter().map(|other| (other, false)));
        let mut files: Vec<_> = sources
            .into_iter()
            .map(|((path, text), is_program)| File {
                path: self.fill(path),
                text: self.fill(text),
                is_program,
            })
            .collect();
        // Nothing else is sent to the builder.
        let kept = templates.image_files.iter().map(|name| format!("!{name}\n"));
        let kept = kept.fold("*\n".to_owned(), |all, line| all + &line);
        let mut lists = vec![(".dockerignore", kept)];
        if !templates.ignored.is_empty() {
            lists.push((".gitignore", list(templates.ignored)));
        }
        files.extend(lists.into_iter().map(|(path, text)| File {
            path: path.to_owned(),
            text: self.fill(&text),
            is_program: false,
        }));
        files.extend(
            self.example()
                .case_files(self.language)
                .into_iter()
                .map(|file| File { text: self.fill(&file.text), ..file }),
        );
        files
    }

    /// Returns a template with the words that differ from hook to hook.
    fn fill(&self, template: &str) -> String {
        let mut text = template.to_owned();
        for (word, value) in [
            ("@NAME@", self.name.clone()),
            ("@PROGRAM@", self.program()),
            ("@CRATE@", self.crate_name()),
            ("@HOOK@", self.example().hook().to_string()),
            ("@SDK@", self.sdk.clone().unwrap_or_default()),
        ] {
            text = text.replace(word, &value);
        }
        if text.contains("@STEPS@") { self.fill_readme(&text) } else { text }
    }

    fn fill_readme(&self, template: &str) -> String {
        let mut steps = self.steps();
        steps.splice(steps.len() - 1..steps.len() - 1, self.image_steps());
        let note = match self.language {
            Language::Python => {
                "The files `kubevirt_*.py` are sidecar-shim's SDK for Python: leave them as they are."
            }
            Language::Perl => {
                "`lib/KubevirtHook.pm` speaks sidecar-shim's worker protocol: leave it as it is."
            }
            Language::Rust | Language::Go | Language::Shell => "",
        };
        let hook = self.fill(Templates::of(self.language, self.kind).hook.0);
        let text = template
            .replace("@LANGUAGE@", self.language.name())
            .replace("@FILE@", &hook)
            .replace("@PURPOSE@", self.example().purpose())
            .replace("@STEPS@", &steps.join("\n"))
            .replace("@COMMAND@", &self.command())
            .replace("@SDK_NOTE@", note);
        text.trim_end().to_owned() + "\n"
    }

    /// Returns what is printed: what the directory has, and the next commands last.
    pub(super) fn summary(&self) -> String {
        let templates = Templates::of(self.language, self.kind);
        let mut files = vec![
            (self.fill(templates.hook.0), "the hook"),
            (self.fill(templates.tests.0), "its unit tests"),
            ("cases/".to_owned(), "calls and what they must return"),
            ("Dockerfile".to_owned(), "its image"),
            ("README.md".to_owned(), "the commands below"),
        ];
        match self.language {
            Language::Python => files.push(("kubevirt_*.py".to_owned(), "the SDK for Python")),
            Language::Perl => {
                files.push(("lib/KubevirtHook.pm".to_owned(), "the worker protocol"));
            }
            Language::Rust | Language::Go | Language::Shell => {}
        }
        let purpose = self.example().purpose().replace('`', "");
        let mut text =
            format!("{}/ has a hook in {} that {purpose}:\n", self.name, self.language.name());
        for (file, what) in files {
            let _ = writeln!(text, "  {file:<20}{what}");
        }
        let _ = write!(text, "\nNext:\n  cd {}\n", self.name);
        for step in self.steps() {
            let _ = writeln!(text, "  {}", step.replace('\n', "\n  "));
        }
        text
    }
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Rust => "Rust",
            Self::Go => "Go",
            Self::Perl => "Perl",
            Self::Shell => "shell",
        }
    }
}
