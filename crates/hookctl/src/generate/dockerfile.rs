//! A `Dockerfile` for the image of a hook, from the shim's image and the hook's files.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sidecar_shim::hook::{HookKind, HookName};

use super::hooks::only;
use super::quote::json_string;
use super::sidecar::{MAX_FIRST_LINE_BYTES, check_first_line};

/// Where the files of workers are in the image, and where the shim looks for programs.
const WORKERS: &str = "/hooks/";
const PROGRAMS: &str = "/usr/bin/";

/// Where Perl's modules are, beside the hook, in the directories that `hookctl init` makes.
const MODULES: &str = "lib";

/// What to generate.
pub(crate) struct DockerfileConfig {
    /// The shim's image.
    pub(crate) base: String,
    /// The worker's command on this machine, or a program that is named after its hook.
    pub(crate) words: Vec<String>,
    /// Whether the image is for a network binding plugin, which KubeVirt starts without arguments.
    pub(crate) network_binding: bool,
}

pub(super) fn text(
    config: &DockerfileConfig,
    hooks: &[HookName],
    is_worker: bool,
) -> Result<String, String> {
    if config.network_binding {
        let advice = "it calls onDefineDomain only";
        only(hooks, |kind| kind == HookKind::Domain, "a network binding plugin", advice)?;
    }
    let mut image = if is_worker { of_worker(config)? } else { of_program(config, hooks)? };
    let mut entry_point = vec!["/sidecar-shim".to_owned()];
    if config.network_binding {
        entry_point.extend(["--version", "v1alpha3"].map(str::to_owned));
        image.comments.push_str(
            "# KubeVirt starts the sidecar of a network binding without arguments, so the image sets the hook
# API's version as well. v1alpha3 is the first version in which KubeVirt stops the sidecar when its
# VM migrates away.
",
        );
    }
    entry_point.extend(image.options);
    let entry_point: Vec<_> = entry_point.iter().map(|word| json_string(word)).collect();
    let mut text = format!("FROM {}\n", config.base);
    if !image.files.is_empty() {
        text += &image.interpreter.install();
    }
    for (source, target) in &image.files {
        let _ = writeln!(text, "COPY {source} {target}");
    }
    let _ = writeln!(text, "{}ENTRYPOINT [{}]", image.comments, entry_point.join(", "));
    Ok(text)
}

/// What runs a hook's file.
enum Interpreter {
    Python,
    Perl,
    /// A shell, or none.
    InBase,
    /// By its name.
    Other(String),
}

impl Interpreter {
    /// Returns that of a command, by its first word: an interpreter, or a file of the hook.
    fn of(program: &str) -> Self {
        let mut start = String::new();
        if program.contains('/') {
            // A program that cannot be read, or is none, has been refused.
            start = first_line(program).unwrap_or_default();
        }
        let name = match start.strip_prefix("#!") {
            Some(line) => {
                let mut words = line.split_ascii_whitespace().map(file_name);
                words.find(|word| *word != "env" && !word.starts_with('-')).unwrap_or_default()
            }
            None if is_of_hook(program) => "",
            None => file_name(program),
        };
        match name.trim_end_matches(|char: char| char.is_ascii_digit() || char == '.') {
            "python" => Self::Python,
            "perl" => Self::Perl,
            "" | "sh" | "dash" | "bash" => Self::InBase,
            _ if check_file_name(name).is_err() => Self::InBase,
            _ => Self::Other(name.to_owned()),
        }
    }

    /// Returns the lines before the hook's files.
    fn install(&self) -> String {
        let what = match self {
            Self::Python => {
                return "# The base image has the SDK for Python. Copy other files that the hook imports likewise.\n"
                    .to_owned();
            }
            Self::InBase => String::new(),
            Self::Perl => "# For JSON::PP: the base image has only a part of perl.
USER 0
RUN apt-get update && apt-get install -y --no-install-recommends perl && rm -rf /var/lib/apt/lists/*
USER 107:107
"
            .to_owned(),
            Self::Other(name) => format!(
                "# Install {name} here: the base image has Python and a shell. Do that between `USER 0` and
# `USER 107:107`.
"
            ),
        };
        what + "# Copy other files that the hook needs likewise.\n"
    }
}

fn first_line(path: &str) -> std::io::Result<String> {
    let mut start = Vec::new();
    File::open(path)?.take(MAX_FIRST_LINE_BYTES as u64 + 1).read_to_end(&mut start)?;
    Ok(String::from_utf8_lossy(start.split(|&byte| byte == b'\n').next().unwrap_or_default())
        .into())
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a file here is the hook's, not the system's.
fn is_of_hook(path: &str) -> bool {
    let path = Path::new(path);
    path.is_file() && !path.starts_with("/usr") && !path.starts_with("/bin")
}

/// What an image has in addition to the shim's.
struct Image {
    interpreter: Interpreter,
    /// Names of files in the build's context, and the directories that they are copied to.
    files: Vec<(String, String)>,
    /// Options of the shim.
    options: Vec<String>,
    /// Lines about them.
    comments: String,
}

/// Returns the image of a worker: the words of its command that are files here are in the image.
fn of_worker(config: &DockerfileConfig) -> Result<Image, String> {
    let mut files = Vec::new();
    let mut words = Vec::new();
    let mut has_modules = false;
    for (index, word) in config.words.iter().enumerate() {
        let path = Path::new(word);
        // A program without a slash is looked up in $PATH of the image.
        let is_path = index > 0 || word.contains('/');
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if is_path && is_of_hook(word) => {
                check_file_name(name)?;
                let target = format!("{WORKERS}{name}");
                if files.iter().any(|(other, _)| other == name) {
                    return Err(format!(
                        "two files of the command are named {name}, and the image has one folder for them"
                    ));
                }
                files.push((name.to_owned(), WORKERS.to_owned()));
                words.push(target);
                has_modules |= path.with_file_name(MODULES).is_dir();
            }
            _ => words.push(word.clone()),
        }
    }
    let command = shlex::try_join(words.iter().map(String::as_str))
        .map_err(|error| format!("the worker's command cannot be quoted: {error}"))?;
    let interpreter = Interpreter::of(config.words.first().map_or("", String::as_str));
    if has_modules && matches!(interpreter, Interpreter::Perl) {
        files.push((MODULES.to_owned(), format!("{WORKERS}{MODULES}/")));
    }
    Ok(Image {
        interpreter,
        files,
        options: ["--mode", "persistent", "--worker", &command].map(str::to_owned).into(),
        comments: "# Kubernetes and KubeVirt append their arguments, so the worker is set with --worker instead of
# after `--`.
"
        .to_owned(),
    })
}

/// Returns the image of a program that is started for each call.
fn of_program(config: &DockerfileConfig, hooks: &[HookName]) -> Result<Image, String> {
    let file = config.words.first().map(Path::new);
    let name = file.and_then(Path::file_name).and_then(|name| name.to_str());
    let (Some(name), [hook], 1) = (name, hooks, config.words.len()) else {
        return Err(
            "with --exec give --hook once, and its program as the only word after `--`".to_owned()
        );
    };
    check_file_name(name)?;
    let path = &config.words[0];
    let failed = |why: String| format!("program {path}: {why}");
    let metadata = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!(
            "program {path} is not executable, and would not be in the image either: chmod +x {path}"
        ));
    }
    let start = first_line(path).map_err(|error| failed(error.to_string()))?;
    check_first_line(start.as_bytes()).map_err(failed)?;
    Ok(Image {
        interpreter: Interpreter::of(path),
        files: vec![(name.to_owned(), format!("{PROGRAMS}{hook}"))],
        options: vec!["--mode".to_owned(), "exec".to_owned()],
        comments:
            "# The shim starts the program for each call. It finds it by the name of its hook.\n"
                .to_owned(),
    })
}

/// Checks that `COPY` takes the name of a file for this file: it has patterns, variables and flags.
fn check_file_name(name: &str) -> Result<(), String> {
    let is_safe = |char: char| char.is_ascii_alphanumeric() || "._+-".contains(char);
    if name.chars().all(is_safe) && !name.starts_with('-') {
        return Ok(());
    }
    Err(format!(
        "file {name:?} cannot be named in a Dockerfile: rename it, with letters, digits, . _ + and -"
    ))
}
