//! `hookctl init`: what it makes passes its unit tests, `call`, `check` and `test` at once, by the
//! commands of its README, in every language and for every kind of hook.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::hookctl;
use crate::support::programs::go_command;
use crate::support::{PYTHON, file, path_with, perl, read, skipped};

const LANGUAGES: [&str; 5] = ["python", "rust", "go", "perl", "shell"];
const KINDS: [&str; 3] = ["", "--cloud-init", "--node"];

/// Runs `hookctl init` in a directory. Rust and Go get this repository as their SDK's.
fn init(directory: &Path, name: &str, language: &str, more: &[&str]) -> Output {
    let mut command = Command::new(hookctl());
    command.current_dir(directory).args(["init", name, "--lang", language]).args(more);
    if matches!(language, "rust" | "go") && !more.contains(&"--sdk") {
        command.arg("--sdk").arg(file("."));
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The commands of a new hook's README.
fn commands(readme: &str) -> String {
    let (_, block) = readme.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// Makes a hook and follows its README, except for `docker`. `check` is what the language's own
/// tools say of the sources.
fn follow(language: &str, kind: &str, programs: &Path, check: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let name = format!("new-{language}");
    let kinds: &[&str] = if kind.is_empty() { &[] } else { &[kind] };
    let made = init(scratch.path(), &name, language, kinds);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let directory = scratch.path().join(&name);
    if language == "rust" {
        // What the hook needs is locked here, and built once for all kinds.
        fs::copy(file("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("init");
        fs::create_dir_all(&target).unwrap();
        std::os::unix::fs::symlink(target, directory.join("target")).unwrap();
    }
    let commands = commands(&fs::read_to_string(directory.join("README.md")).unwrap());
    let (build, (image, rest)) = {
        let (before, after) = commands.split_once("docker").unwrap();
        (before, after.split_once('\n').unwrap())
    };
    assert!(image.starts_with(" build -t registry.example/new-"), "{image}");
    let mut script = format!("{check}\n{build}\n{rest}");
    if std::env::var_os("SHIM_TEST_CARGO").is_none() {
        // It takes longer than all the rest, and is that of the SDKs.
        script = script.replace("hookctl check", "hookctl check --skip memory");
    }
    let path = format!(
        "{}:{}:{}",
        hookctl().parent().unwrap().display(),
        programs.display(),
        std::env::var("PATH").unwrap()
    );
    let done = Command::new("sh")
        .args(["-euc", &script])
        .current_dir(&directory)
        .env("PATH", &path)
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .output()
        .unwrap();
    let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{language} {kind}: {script}\n{stdout}\n{stderr}");
    if language != "shell" {
        assert!(stdout.contains(" passed, 0 warnings, 0 failed"), "{stdout}");
    }
    let called = match kind {
        "" => "1 added",
        "--node" => "preVMStart succeeded",
        _ => "1 altered",
    };
    assert!(stderr.contains(called), "{stderr}");
    assert!(stdout.contains("3 cases: 3 passed"), "{stdout}");
    assert!(stdout.contains("apiVersion: "), "{stdout}");
    if matches!(language, "rust" | "go") {
        // The image has nothing else.
        let program = directory.join(format!("{name}-hook"));
        let headers =
            Command::new("readelf").arg("--program-headers").arg(program).output().unwrap();
        assert!(headers.status.success());
        assert!(!text(&headers.stdout).contains("INTERP"), "the program is not static");
    }
    another_case(&directory, &path);
    image_of(&directory, rest.rsplit(" -- ").next().unwrap().trim());
}

/// Does what the README says for another case.
fn another_case(directory: &Path, path: &str) {
    let readme = fs::read_to_string(directory.join("README.md")).unwrap();
    let command = readme.split('`').find(|text| text.starts_with("hookctl test --update"));
    let copy = "set -- cases/*/unchanged; cp -r \"${1%/*}\" cases/new; rm cases/new/unchanged";
    let done = Command::new("sh")
        .args(["-euc", &format!("{copy}; {}", command.unwrap())])
        .current_dir(directory)
        .env("PATH", path)
        .output()
        .unwrap();
    let report = text(&done.stdout) + &text(&done.stderr);
    assert!(done.status.success(), "{report}");
    assert!(directory.join("cases/new/unchanged").exists(), "{report}");
}

/// The image is the one that `hookctl generate dockerfile` makes of the same command.
fn image_of(directory: &Path, command: &str) {
    let mut arguments = vec!["generate", "dockerfile", "--base", "registry.example/shim:1"];
    let hook = command.rsplit_once("--hook ").map(|(_, hook)| hook);
    let program = hook.map(|hook| format!("./{hook}"));
    if let Some(hook) = hook {
        arguments.extend(["--exec", "--hook", hook]);
    }
    arguments.push("--");
    arguments.extend(program.as_deref().unwrap_or(command).split(' '));
    let done = Command::new(hookctl()).args(arguments).current_dir(directory).output().unwrap();
    let dockerfile = fs::read_to_string(directory.join("Dockerfile")).unwrap();
    let generated = text(&done.stdout);
    assert_eq!(generated.lines().last(), dockerfile.lines().last());
    if command.starts_with("perl ") {
        // What the interpreter needs, and the modules.
        let steps = |text: &str| -> Vec<_> {
            let is_step = |line: &&str| !line.starts_with('#') && !line.starts_with("FROM");
            text.lines().filter(is_step).map(str::to_owned).collect()
        };
        assert_eq!(steps(&generated), steps(&dockerfile));
    }
}

#[test]
fn a_hook_in_python_works_at_once() {
    for kind in KINDS {
        follow("python", kind, Path::new(PYTHON.as_str()).parent().unwrap(), "test -x hook.py");
    }
}

#[test]
fn a_hook_in_perl_works_at_once() {
    if perl("smbios").is_none() {
        return;
    }
    for kind in KINDS {
        follow("perl", kind, Path::new("/nowhere"), "perl -wc hook.pl; test -x hook.pl");
    }
}

#[test]
fn a_hook_in_shell_works_at_once() {
    for kind in KINDS {
        follow("shell", kind, Path::new("/nowhere"), "sh -n test.sh");
    }
}

#[test]
fn a_hook_in_go_works_at_once() {
    let Some(go) = go_command() else { return };
    let root = Command::new(&go).args(["env", "GOROOT"]).output().unwrap();
    let programs = PathBuf::from(text(&root.stdout).trim()).join("bin");
    for kind in KINDS {
        follow("go", kind, &programs, "test -z \"$(gofmt -l .)\"; go vet ./...");
    }
}

/// It takes a minute, and crates that may not be on this machine.
#[test]
fn a_hook_in_rust_works_at_once() {
    let Ok(cargo) = std::env::var("SHIM_TEST_CARGO") else {
        skipped("a new hook in Rust", "SHIM_TEST_CARGO does not name cargo; .ci/init does");
        return;
    };
    let check = "cargo fmt --check; cargo clippy --all-targets -- -D warnings";
    for kind in KINDS {
        follow("rust", kind, Path::new(&cargo).parent().unwrap(), check);
    }
}

#[test]
fn the_last_lines_printed_are_the_commands_of_the_readme() {
    let scratch = tempfile::tempdir().unwrap();
    for language in LANGUAGES {
        for (number, kind) in KINDS.iter().enumerate() {
            let name = format!("{language}-{number}");
            let kinds: &[&str] = if kind.is_empty() { &[] } else { &[kind] };
            let printed = text(&init(scratch.path(), &name, language, kinds).stdout);
            let (_, next) = printed.split_once("Next:\n").unwrap();
            let next: Vec<_> = next.lines().map(str::trim).collect();
            let readme = fs::read_to_string(scratch.path().join(&name).join("README.md")).unwrap();
            assert!(readme.lines().count() <= 22, "{readme}");
            let commands = commands(&readme);
            let is_of_image = |line: &str| {
                ["docker ", "RUSTFLAGS=", "cp "].iter().any(|start| line.starts_with(start))
            };
            let written = commands.lines().filter(|line| !is_of_image(line));
            let written: Vec<_> = written.map(str::trim).collect();
            assert_eq!(next, [&[format!("cd {name}").as_str()], &written[..]].concat());
        }
    }
}

/// Names that a language could take for something else, and the longest one.
#[test]
fn any_name_works_in_every_language() {
    let longest = "x".repeat(58);
    for name in ["1e3", "test", "part-1", "true", "a-b-hook", &longest] {
        let scratch = tempfile::tempdir().unwrap();
        for language in LANGUAGES {
            let done = init(scratch.path(), name, language, &["--cloud-init"]);
            assert!(done.status.success(), "{}", text(&done.stderr));
            let directory = scratch.path().join(name);
            let files = files(&directory);
            assert!(files.iter().any(|file| file.ends_with("Dockerfile")));
            for file in &files {
                let text = fs::read_to_string(file).unwrap();
                assert!(!text.contains('@') || !has_placeholder(&text), "{}", file.display());
            }
            match language {
                "python" => run(&directory, &["python3", "-m", "unittest"]),
                "rust" => {
                    run(&directory, &["cargo", "metadata", "--no-deps", "--format-version=1"]);
                }
                "perl" if perl("smbios").is_some() => run(&directory, &["prove"]),
                "shell" => run(&directory, &["./test.sh"]),
                _ => {}
            }
            fs::remove_dir_all(directory).unwrap();
        }
    }
}

/// Whether a text has a word such as `@NAME@`.
fn has_placeholder(text: &str) -> bool {
    let mut words = text.split('@').skip(1);
    words.any(|word| !word.is_empty() && word.chars().all(|char| char.is_ascii_uppercase()))
}

fn run(directory: &Path, words: &[&str]) {
    let mut command = Command::new(words[0]);
    let done = command.args(&words[1..]).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", text(&done.stderr));
}

fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path);
        }
    }
    found
}

#[test]
fn a_hook_is_short_and_has_three_cases() {
    let scratch = tempfile::tempdir().unwrap();
    for (language, hook) in [
        ("python", ["hook.py"; 3]),
        ("rust", ["src/main.rs"; 3]),
        ("go", ["main.go"; 3]),
        ("perl", ["hook.pl"; 3]),
        ("shell", ["onDefineDomain", "preCloudInitIso", "preVMStart"]),
    ] {
        for (number, kind) in KINDS.iter().enumerate() {
            let name = format!("{language}-{number}");
            let kinds: &[&str] = if kind.is_empty() { &[] } else { &[kind] };
            init(scratch.path(), &name, language, kinds);
            let directory = scratch.path().join(&name);
            let source = fs::read_to_string(directory.join(hook[number])).unwrap();
            let lines = source.lines().filter(|line| !line.trim().is_empty()).count();
            assert!(lines < 40, "{name}: {lines} lines");
            let cases: Vec<_> = files(&directory.join("cases")).into_iter().collect();
            let count = |file: &str| cases.iter().filter(|it| it.ends_with(file)).count();
            assert_eq!(count("vmi.json"), 3);
            assert_eq!(count("error.txt"), 1);
            let changed = count("expected.xml") + count("expected.json");
            assert_eq!((changed, count("unchanged")), if number < 2 { (1, 1) } else { (0, 2) });
        }
    }
}

#[test]
fn the_sdk_in_python_is_this_one() {
    let scratch = tempfile::tempdir().unwrap();
    init(scratch.path(), "new", "python", &["--cloud-init"]);
    let sdk: Vec<_> = files(&scratch.path().join("new"))
        .into_iter()
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .filter(|name| name.starts_with("kubevirt_"))
        .collect();
    assert_eq!(
        sdk,
        ["kubevirt_cloud_init.py", "kubevirt_hook.py", "kubevirt_testing.py", "kubevirt_xml.py"]
    );
    for name in sdk {
        let written = fs::read_to_string(scratch.path().join("new").join(&name)).unwrap();
        assert_eq!(written, read(&format!("sdk/python/{name}")));
    }
}

#[test]
fn what_exists_already_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let taken = scratch.path().join("taken");
    for make in [
        (|path| fs::create_dir(path).unwrap()) as fn(&Path),
        |path| fs::write(path, "mine").unwrap(),
        |path| std::os::unix::fs::symlink("nowhere", path).unwrap(),
    ] {
        make(&taken);
        let done = init(scratch.path(), "taken", "python", &[]);
        assert_eq!(done.status.code(), Some(1));
        let error = text(&done.stderr);
        assert!(error.starts_with("hookctl: taken exists already: choose another name"), "{error}");
        assert!(done.stdout.is_empty());
        if taken.is_dir() {
            assert!(files(&taken).is_empty());
            fs::remove_dir(&taken).unwrap();
        } else {
            fs::remove_file(&taken).unwrap();
        }
    }
}

/// A limit for files that a full disk resembles.
#[test]
fn half_a_directory_is_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -f 8; exec hookctl init new --lang python";
    let done = Command::new("sh")
        .args(["-c", script])
        .current_dir(scratch.path())
        .env("PATH", path_with(hookctl().parent().unwrap()))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done.stdout));
    let error = text(&done.stderr);
    assert!(error.starts_with("hookctl: cannot write new/kubevirt_hook.py: "), "{error}");
    assert!(fs::read_dir(scratch.path()).unwrap().next().is_none());
}

#[test]
fn what_cannot_work_is_refused_in_words() {
    let scratch = tempfile::tempdir().unwrap();
    for (args, status, complaint) in [
        (&["A", "--lang", "go"][..], 2, "not a DNS label"),
        (&["../a", "--lang", "go"], 2, "not a DNS label"),
        (&["a.b", "--lang", "go"], 2, "not a DNS label"),
        (&["-a", "--lang", "go"], 2, "unexpected argument '-a'"),
        (&[&"x".repeat(59), "--lang", "go"], 2, "58 fit"),
        (&["a"], 2, "--lang <LANGUAGE>"),
        (&["a", "--lang", "pyton"], 2, "python"),
        (&["a", "--lang", "python", "--node", "--cloud-init"], 2, "cannot be used with"),
        (&["a", "--lang", "go"], 1, "give --sdk PATH, the directory sdk/go in a clone"),
        (&["a", "--lang", "rust"], 1, "give --sdk PATH, the directory sdk/rust in a clone"),
        (&["a", "--lang", "rust", "--sdk", "/"], 1, "no Cargo.toml with the line"),
        (&["a", "--lang", "shell", "--sdk", "/"], 1, "--sdk goes with --lang rust and --lang go"),
    ] {
        let mut command = Command::new(hookctl());
        let done = command.arg("init").args(args).current_dir(scratch.path()).output().unwrap();
        let error = text(&done.stderr);
        assert_eq!((done.status.code(), done.stdout.len()), (Some(status), 0), "{args:?}: {error}");
        assert!(error.contains(complaint), "{args:?}: {error}");
    }
    assert!(fs::read_dir(scratch.path()).unwrap().next().is_none());
}

/// A relative path is the user's, and the manifest is one directory further down.
#[test]
fn the_sdk_is_found_from_the_new_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let clone = scratch.path().join("a clone");
    std::os::unix::fs::symlink(file("."), &clone).unwrap();
    for (name, language, sdk, manifest, line) in [
        ("a", "rust", "a clone", "Cargo.toml", "{ path = \"../a clone/sdk/rust\" }"),
        ("b", "rust", "./a clone/sdk/rust", "Cargo.toml", "{ path = \"../a clone/sdk/rust\" }"),
        ("c", "go", "a clone", "go.mod", "hook => \"../a clone/sdk/go\""),
    ] {
        let done = init(scratch.path(), name, language, &["--sdk", sdk]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let text = fs::read_to_string(scratch.path().join(name).join(manifest)).unwrap();
        assert!(text.contains(line), "{text}");
    }
    run(&scratch.path().join("a"), &["cargo", "metadata", "--no-deps", "--format-version=1"]);
}

#[test]
fn programs_are_executable() {
    let scratch = tempfile::tempdir().unwrap();
    for (language, programs) in [
        ("python", &["hook.py"][..]),
        ("perl", &["hook.pl"]),
        ("shell", &["onDefineDomain", "test.sh"]),
    ] {
        init(scratch.path(), language, language, &[]);
        for path in files(&scratch.path().join(language)) {
            let is_program = programs.iter().any(|program| path.ends_with(program));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o100 != 0, is_program, "{}", path.display());
        }
    }
}
