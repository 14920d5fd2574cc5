//! Writes manifests: as one stream, or as numbered files with a `kustomization.yaml`.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::output::write_stdout;

/// Objects in the order in which they must be applied.
pub(super) struct Manifests {
    /// The comment at the beginning.
    header: String,
    documents: Vec<Document>,
}

struct Document {
    /// Its kind, as part of a file's name.
    kind: &'static str,
    yaml: String,
}

impl Manifests {
    /// The header consists of lines of comment.
    pub(super) fn new(header: impl Into<String>) -> Self {
        Self { header: header.into(), documents: Vec::new() }
    }

    /// Adds an object.
    pub(super) fn push(&mut self, kind: &'static str, yaml: String) {
        self.documents.push(Document { kind, yaml });
    }

    pub(super) fn write(&self, directory: Option<&Path>) -> Result<(), String> {
        match directory {
            None => write_text(&self.stream()),
            Some(directory) => self.write_files(directory),
        }
    }

    fn stream(&self) -> String {
        let documents: Vec<_> = self.documents.iter().map(|each| each.yaml.as_str()).collect();
        self.header.clone() + &documents.join("---\n")
    }

    fn write_files(&self, directory: &Path) -> Result<(), String> {
        let failed = |what: &Path, error| format!("cannot write {}: {error}", what.display());
        fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
        let mut entries = fs::read_dir(directory).map_err(|error| failed(directory, error))?;
        if entries.next().is_some() {
            return Err(format!(
                "{} is not empty: files of another run would be applied too; name a new directory, \
                 or remove it first",
                directory.display()
            ));
        }
        // Without the option, kustomize sorts by kind, and the policy would come before the Plugin.
        let mut kustomization = self.header.clone()
            + "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
            + "sortOptions:\n  order: fifo\nresources:\n";
        for (index, document) in self.documents.iter().enumerate() {
            let name = format!("{:02}-{}.yaml", index + 1, document.kind);
            let _ = writeln!(kustomization, "  - {name}");
            write_new(&directory.join(name), &document.yaml)?;
        }
        write_new(&directory.join("kustomization.yaml"), &kustomization)
    }
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str) -> Result<(), String> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Writes text to stdout.
pub(super) fn write_text(text: &str) -> Result<(), String> {
    write_stdout(text.as_bytes()).map_err(|error| match error.kind() {
        ErrorKind::StorageFull => "cannot write to stdout: the disk is full".to_owned(),
        _ => format!("cannot write to stdout: {error}"),
    })
}
