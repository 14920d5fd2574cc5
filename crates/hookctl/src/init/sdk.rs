//! Where a language's SDK is, for those that are in no registry yet.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::Language;
use crate::generate::quote::json_string;

/// How an SDK is recognized.
struct Marks {
    /// Its directory in a clone of this project.
    directory: &'static str,
    /// A file in that directory, and a line of the file.
    file: &'static str,
    line: &'static str,
}

/// Returns the SDK's path as the new directory's manifest names it, in quotes. `None` for a
/// language whose SDK is part of the new directory.
pub(super) fn locate(language: Language, given: Option<&Path>) -> Result<Option<String>, String> {
    let (name, marks) = match language {
        Language::Rust => (
            "Rust",
            Marks { directory: "sdk/rust", file: "Cargo.toml", line: "name = \"kubevirt-hook\"" },
        ),
        Language::Go => (
            "Go",
            Marks { directory: "sdk/go", file: "go.mod", line: "module sidecar-shim.example/hook" },
        ),
        Language::Python | Language::Perl | Language::Shell => {
            return match given {
                Some(_) => {
                    Err("--sdk goes with --lang rust and --lang go only: the new directory \
                                has all that the others need"
                        .to_owned())
                }
                None => Ok(None),
            };
        }
    };
    let Marks { directory, file, line } = marks;
    let Some(given) = given else {
        return Err(format!(
            "the SDK for {name} is in no registry yet: give --sdk PATH, the directory {directory} in a \
             clone of sidecar-shim's repository"
        ));
    };
    let has_sdk = |path: &Path| {
        let text = fs::read_to_string(path.join(file)).unwrap_or_default();
        text.lines().any(|each| each.trim() == line)
    };
    // The clone itself is understood, too.
    let candidates = [given.to_owned(), given.join(directory)];
    let path = candidates.into_iter().find(|path| has_sdk(path)).ok_or_else(|| {
        format!(
            "--sdk {}: neither the SDK for {name} nor a clone of sidecar-shim's repository: there is \
             no {file} with the line `{line}`, also not in {directory}",
            given.display()
        )
    })?;
    let text = from_inside(&path);
    let text = text.to_str().filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| {
        format!("--sdk {}: a path with characters that a manifest cannot have", given.display())
    })?;
    Ok(Some(if language == Language::Go { in_go_mod(text) } else { json_string(text) }))
}

/// Returns a path as `go mod` writes it: in quotes only if it needs them.
fn in_go_mod(path: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "/._-+@~".contains(char);
    if path.chars().all(is_plain) && !path.contains("//") {
        path.to_owned()
    } else {
        json_string(path)
    }
}

/// Returns a path of the current directory as it is from a new directory in that.
fn from_inside(path: &Path) -> PathBuf {
    if path.is_absolute() {
        return path.to_owned();
    }
    let named = path.components().filter(|each| !matches!(each, Component::CurDir));
    Path::new("..").join(named.collect::<PathBuf>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_from_the_new_directory() {
        for (given, named) in [
            ("sidecar-shim/sdk/go", "../sidecar-shim/sdk/go"),
            ("./sdk/go", "../sdk/go"),
            ("../sdk/go/", "../../sdk/go"),
            ("/src/sdk/go", "/src/sdk/go"),
        ] {
            assert_eq!(from_inside(Path::new(given)), Path::new(named), "{given}");
        }
    }

    #[test]
    fn only_odd_paths_are_quoted_in_a_go_mod() {
        assert_eq!(in_go_mod("../sdk-1.0/go"), "../sdk-1.0/go");
        assert_eq!(in_go_mod("/a b/go"), "\"/a b/go\"");
        assert_eq!(in_go_mod("/a\"(b)/go"), "\"/a\\\"(b)/go\"");
    }
}
