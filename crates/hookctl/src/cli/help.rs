//! The help of each command: `-h` fits a screen of 24 lines, and lists what is used most; `--help`
//! fits two, and has everything that the command uses, and examples.

/// Maximum numbers of lines and columns. The tests hold every command to them.
#[cfg(test)]
const MAX_LINES: [usize; 2] = [24, 50];
#[cfg(test)]
const MAX_COLUMNS: usize = 100;

/// Begins the last part of `--help`.
pub(super) const EXAMPLES: &str = "Examples:";

/// What a command's help has in addition to its options.
struct Page {
    /// Its name, with those of the commands above it.
    command: &'static str,
    usage: Option<&'static str>,
    /// The options that `-h` lists, if not all fit.
    most_used: &'static [&'static str],
    /// Options that come with others, and are of no use here.
    unused: &'static [&'static str],
    examples: &'static [&'static str],
}

/// A page without anything special.
const PLAIN: Page = Page { command: "", usage: None, most_used: &[], unused: &[], examples: &[] };

/// Options of a pool that has more than one worker: calls come one after another.
const OF_POOLS: &[&str] =
    &["max-workers", "min-workers", "idle-timeout", "queue-limit", "queue-bytes"];

/// The options of `generate` that each target has.
const OF_TARGETS: &[&str] = &[
    "name",
    "image",
    "annotation",
    "label",
    "all",
    "namespace",
    "vm",
    "vm-annotation",
    "script",
    "worker",
    "hook",
    "kubevirt",
    "output",
];

const PAGES: &[Page] = &[
    Page {
        command: "hookctl",
        examples: &[
            "hookctl init asset-tag --lang python",
            "hookctl call onDefineDomain --watch -- python3 asset-tag/hook.py",
            "hookctl check -- python3 asset-tag/hook.py",
            "hookctl test asset-tag/cases -- python3 asset-tag/hook.py",
            "hookctl generate configmap --help",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl call",
        usage: Some(
            "hookctl call [OPTIONS] HOOK [-- COMMAND...]\n       \
             hookctl call --list [--socket PATH | -- COMMAND...]",
        ),
        most_used: &[
            "socket",
            "list",
            "watch",
            "json",
            "output",
            "repeat",
            "vmi",
            "domain",
            "cloud-init",
            "annotation",
            "mode",
        ],
        unused: OF_POOLS,
        examples: &[
            "hookctl call onDefineDomain --watch -- python3 hook.py",
            "hookctl call OnDefineDomain --annotation example.org/tag=web -- python3 hook.py",
            "hookctl call preCloudInitIso --vmi vm.yaml --output out.json -- ./hook",
        ],
    },
    Page {
        command: "hookctl check",
        most_used: &[
            "only",
            "skip",
            "list",
            "json",
            "timeout",
            "vmi",
            "domain",
            "cloud-init",
            "worker",
            "start-timeout",
            "log-level",
        ],
        examples: &[
            "hookctl check -- python3 hook.py",
            "hookctl check --skip memory --json -- ./hook >report.json",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl test",
        most_used: &[
            "filter",
            "update",
            "junit",
            "libvirt",
            "jobs",
            "color",
            "mode",
            "worker",
            "start-timeout",
            "log-level",
        ],
        examples: &[
            "hookctl test -- python3 hook.py",
            "hookctl test cases/two-nics --update -- python3 hook.py",
            "hookctl test --junit report.xml -- ./hook",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl sample",
        examples: &["hookctl sample vmi >vmi.json", "hookctl sample domain --plugin"],
        ..PLAIN
    },
    Page {
        command: "hookctl generate plugin",
        usage: Some(
            "hookctl generate plugin --name NAME --image IMAGE [OPTIONS]\n              \
             (--annotation K[=V] | --label K[=V] | --all) [-- WORKER...]",
        ),
        most_used: OF_TARGETS,
        examples: &[
            "hookctl generate plugin --name smbios --image registry.example/smbios:1 \\\n      \
             --annotation smbios.example/vendor -- python3 smbios.py | kubectl apply -f -",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl generate node",
        usage: Some(
            "hookctl generate node --name NAME --image IMAGE [OPTIONS]\n              \
             (--annotation K[=V] | --label K[=V] | --all) [-- WORKER...]",
        ),
        most_used: OF_TARGETS,
        examples: &[
            "hookctl generate node --name usage --image registry.example/usage:1 --all \\\n      \
             -- python3 usage.py | kubectl apply -f -",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl generate configmap",
        usage: Some(
            "hookctl generate configmap --name NAME --image IMAGE --script FILE \
             --vm NAMESPACE/NAME\n              [OPTIONS] [-- WORKER...]",
        ),
        most_used: OF_TARGETS,
        examples: &[
            "hookctl generate configmap --name smbios --image registry.example/shim:1 \\\n      \
             --script smbios.py --vm default/web -- python3 smbios.py | kubectl apply -f -",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl generate sidecar",
        most_used: OF_TARGETS,
        examples: &[
            "hookctl generate sidecar --image registry.example/smbios:1 --vm default/web \\\n      \
             --hook onDefineDomain",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl generate dockerfile",
        examples: &[
            "hookctl generate dockerfile --base registry.example/sidecar-shim:1 -- python3 hook.py",
            "hookctl generate dockerfile --base registry.example/sidecar-shim:1 \\\n      \
             --exec --hook onDefineDomain -- ./onDefineDomain",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl generate network-binding",
        most_used: OF_TARGETS,
        examples: &[
            "hookctl generate network-binding --name passt --image registry.example/passt:1 \\\n      \
             -- ./passt-hook",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl generate",
        examples: &[
            "hookctl generate plugin --name smbios --image registry.example/smbios:1 \\\n      \
             --annotation smbios.example/vendor -- python3 smbios.py | kubectl apply -f -",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl init",
        examples: &[
            "hookctl init asset-tag --lang python",
            "hookctl init seed --lang rust --cloud-init --sdk ~/sidecar-shim",
        ],
        ..PLAIN
    },
    Page {
        command: "hookctl completions",
        examples: &["hookctl completions bash >/etc/bash_completion.d/hookctl"],
        ..PLAIN
    },
];

/// Gives each command its help.
pub(super) fn dress(command: clap::Command, wants_short_help: bool) -> clap::Command {
    let name = command.get_name().to_owned();
    dress_named(command, &name, wants_short_help)
}

fn dress_named(command: clap::Command, name: &str, is_short: bool) -> clap::Command {
    let page = PAGES.iter().find(|page| page.command == name).unwrap_or(&PLAIN);
    let mut command = command.mut_args(|arg| {
        let Some(option) = arg.get_long() else { return arg };
        let is_rare = is_short && !page.most_used.is_empty() && !page.most_used.contains(&option);
        let is_hidden = is_rare || page.unused.contains(&option);
        if is_hidden { arg.hide(true) } else { arg }
    });
    if is_short && !page.most_used.is_empty() {
        command = command
            .mut_args(|arg| arg.help_heading(None::<&str>))
            .after_help(format!("Other options, examples: {name} --help"));
    } else if !page.examples.is_empty() {
        let own = command.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
        let examples = if is_short { format!("Examples: {name} --help") } else { page.examples() };
        command = command.after_help(own + &examples);
    }
    if let Some(usage) = page.usage {
        command = command.override_usage(usage);
    }
    command.mut_subcommands(|sub| {
        let name = format!("{name} {}", sub.get_name());
        dress_named(sub, &name, is_short)
    })
}

impl Page {
    fn examples(&self) -> String {
        let lines: Vec<_> = self.examples.iter().map(|line| format!("\n  {line}")).collect();
        format!("{EXAMPLES}{}", lines.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `look` for every command that users see, with its full name.
    fn each(mut command: clap::Command, look: &mut impl FnMut(&mut clap::Command, &str)) {
        fn walk(
            command: &mut clap::Command,
            name: &str,
            look: &mut impl FnMut(&mut clap::Command, &str),
        ) {
            look(command, name);
            for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set()) {
                let name = format!("{name} {}", sub.get_name());
                walk(sub, &name, look);
            }
        }
        command.build();
        walk(&mut command, "hookctl", look);
    }

    fn command(wants_short_help: bool) -> clap::Command {
        crate::cli::command(wants_short_help)
    }

    #[test]
    fn the_help_of_every_command_fits_its_screens() {
        for (is_short, max_lines) in [true, false].into_iter().zip(MAX_LINES) {
            let mut seen = 0;
            each(command(is_short), &mut |command, name| {
                let help = command.render_help().to_string();
                let lines = help.lines().count();
                assert!(lines <= max_lines, "{name} has {lines} lines:\n{help}");
                let longest = help.lines().map(|line| line.chars().count()).max().unwrap();
                assert!(longest <= MAX_COLUMNS, "{name} has {longest} columns:\n{help}");
                seen += 1;
            });
            assert!(seen > 10, "{seen}");
        }
    }

    /// A second value would silently replace the first: a manifest for other VMs than asked for.
    #[test]
    fn every_option_with_one_value_refuses_a_second_one() {
        const VALUES: [&str; 12] =
            ["a", "a=b", "a/b", "1", "1s", "1MiB", "exec", "json", "info", "python", "tap", "Fail"];
        let mut seen = 0;
        each(command(false), &mut |described, name| {
            let path: Vec<_> = name.split(' ').collect();
            let parse = |given: &[String]| {
                let words = path.iter().map(ToString::to_string).chain(given.iter().cloned());
                command(false).try_get_matches_from(words).err().map(|error| error.to_string())
            };
            for arg in described.get_arguments() {
                let (Some(option), clap::ArgAction::Set) = (arg.get_long(), arg.get_action())
                else {
                    continue;
                };
                let default = arg.get_default_values().iter().filter_map(|value| value.to_str());
                let given = VALUES.into_iter().chain(default).map(|it| format!("--{option}={it}"));
                let is_taken = |given: &String| {
                    let error = parse(std::slice::from_ref(given)).unwrap_or_default();
                    !error.contains("invalid value")
                };
                let given = given.into_iter().find(is_taken);
                let given = given.unwrap_or_else(|| panic!("{name} --{option}: no value fits"));
                let error = parse(&[given.clone(), given]).unwrap_or_default();
                let is_refused = error.contains("cannot be used multiple times");
                assert!(is_refused, "{name} --{option}: {error}");
                seen += 1;
            }
        });
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn every_page_is_a_commands_and_its_options_are_there() {
        let mut names = Vec::new();
        each(command(false), &mut |command, name| {
            names.push(name.to_owned());
            let Some(page) = PAGES.iter().find(|page| page.command == name) else { return };
            let has = |option: &&&str| {
                command.get_arguments().any(|arg| arg.get_long() == Some(**option))
            };
            let is_own = page.most_used != OF_TARGETS;
            let missing: Vec<_> =
                page.most_used.iter().chain(page.unused).filter(|it| !has(it)).collect();
            assert!(missing.is_empty() || !is_own, "{name}: {missing:?}");
        });
        for page in PAGES {
            assert!(names.iter().any(|name| name == page.command), "{}", page.command);
        }
    }

    #[test]
    fn every_example_can_be_parsed() {
        let mut seen = 0;
        each(command(false), &mut |described, name| {
            let Some(text) = described.get_after_help().map(ToString::to_string) else { return };
            let Some((_, examples)) = text.split_once(EXAMPLES) else { return };
            for example in examples.replace("\\\n", " ").lines().filter(|line| !line.is_empty()) {
                let words = shlex::split(example).unwrap();
                let is_redirection = |word: &String| word == "|" || word.starts_with('>');
                let words: Vec<_> =
                    words.into_iter().take_while(|it| !is_redirection(it)).collect();
                let asks_for_help = words.iter().any(|word| word == "--help");
                let parsed = command(false).try_get_matches_from(&words);
                assert!(parsed.is_ok() || asks_for_help, "{name}: {example}: {:?}", parsed.err());
                seen += 1;
            }
        });
        assert!(seen > 10, "{seen}");
    }
}
