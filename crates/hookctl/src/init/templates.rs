//! The files of a new hook, in each language.

use sidecar_shim::hook::HookKind;

use super::Language;

pub(super) const README: &str = include_str!("templates/README.md");

/// The files of the Python SDK that every hook has, and the one for user data.
const PYTHON_SDK: [(&str, &str); 3] = [
    ("kubevirt_hook.py", include_str!("sdk/kubevirt_hook.py")),
    ("kubevirt_xml.py", include_str!("sdk/kubevirt_xml.py")),
    ("kubevirt_testing.py", include_str!("sdk/kubevirt_testing.py")),
];
const PYTHON_CLOUD_INIT: (&str, &str) =
    ("kubevirt_cloud_init.py", include_str!("sdk/kubevirt_cloud_init.py"));

/// The templates of one language and one kind of hook.
pub(super) struct Templates {
    /// The hook and its unit tests: file and text.
    pub(super) hook: (&'static str, &'static str),
    pub(super) tests: (&'static str, &'static str),
    /// What else the language wants.
    pub(super) others: Vec<(&'static str, &'static str)>,
    pub(super) dockerfile: &'static str,
    /// Files for `COPY`: the builder gets nothing else.
    pub(super) image_files: &'static [&'static str],
    /// What git leaves out.
    pub(super) ignored: &'static [&'static str],
}

/// Returns the hook and its tests, for each kind of hook.
macro_rules! sources {
    ($kind:expr, $folder:literal, $extension:literal, $tests:literal) => {
        match $kind {
            HookKind::Domain => sources!(@of $folder, "domain", $extension, $tests),
            HookKind::CloudInit => sources!(@of $folder, "cloud_init", $extension, $tests),
            HookKind::Node => sources!(@of $folder, "node", $extension, $tests),
        }
    };
    (@of $folder:literal, $name:literal, $extension:literal, $tests:literal) => {
        (
            include_str!(concat!("templates/", $folder, "/", $name, ".", $extension)),
            include_str!(concat!("templates/", $folder, "/test_", $name, ".", $tests)),
        )
    };
}

impl Templates {
    pub(super) fn of(language: Language, kind: HookKind) -> Self {
        match language {
            Language::Python => Self::python(kind),
            Language::Rust => Self::rust(kind),
            Language::Go => Self::go(kind),
            Language::Perl => Self::perl(kind),
            Language::Shell => Self::shell(kind),
        }
    }

    fn python(kind: HookKind) -> Self {
        let (hook, tests) = sources!(kind, "python", "py", "py");
        let mut others = PYTHON_SDK.to_vec();
        if kind == HookKind::CloudInit {
            others.push(PYTHON_CLOUD_INIT);
        }
        Self {
            hook: ("hook.py", hook),
            tests: ("test_hook.py", tests),
            others,
            dockerfile: include_str!("templates/python/Dockerfile"),
            image_files: &["hook.py", "kubevirt_*.py"],
            ignored: &["__pycache__/"],
        }
    }

    fn rust(kind: HookKind) -> Self {
        let (hook, tests) = sources!(kind, "rust", "rs", "rs");
        Self {
            hook: ("src/main.rs", hook),
            tests: ("src/tests.rs", tests),
            others: vec![("Cargo.toml", include_str!("templates/rust/manifest.toml"))],
            dockerfile: include_str!("templates/rust/Dockerfile"),
            image_files: &["@CRATE@"],
            ignored: &["/target", "/@CRATE@"],
        }
    }

    fn go(kind: HookKind) -> Self {
        let (hook, tests) = sources!(kind, "go", "go", "go");
        Self {
            hook: ("main.go", hook),
            tests: ("main_test.go", tests),
            others: vec![("go.mod", include_str!("templates/go/module.txt"))],
            dockerfile: include_str!("templates/go/Dockerfile"),
            image_files: &["@PROGRAM@"],
            ignored: &["/@PROGRAM@"],
        }
    }

    fn perl(kind: HookKind) -> Self {
        let (hook, tests) = sources!(kind, "perl", "pl", "t");
        Self {
            hook: ("hook.pl", hook),
            tests: ("t/hook.t", tests),
            others: vec![("lib/KubevirtHook.pm", include_str!("templates/perl/KubevirtHook.pm"))],
            dockerfile: include_str!("templates/perl/Dockerfile"),
            image_files: &["hook.pl", "lib"],
            ignored: &[],
        }
    }

    fn shell(kind: HookKind) -> Self {
        let (hook, tests) = sources!(kind, "shell", "sh", "sh");
        Self {
            hook: ("@HOOK@", hook),
            tests: ("test.sh", tests),
            others: Vec::new(),
            dockerfile: include_str!("templates/shell/Dockerfile"),
            image_files: &["@HOOK@"],
            ignored: &[],
        }
    }
}
