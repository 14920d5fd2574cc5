//! What to do with a new hook: in its README, and at the end of what `init` prints.

use sidecar_shim::hook::HookKind;

use super::Language;
use super::example::NODE;
use super::project::Project;

impl Project {
    /// Returns the commands, in order. They run in the new directory.
    pub(super) fn steps(&self) -> Vec<String> {
        let (hook, example) = (self.command(), self.example());
        let vmi = format!("--vmi cases/{}/vmi.json", example.cases().0);
        let node = match self.kind {
            HookKind::Node => format!(" --node {NODE}"),
            _ => String::new(),
        };
        let mut steps = self.build();
        steps.push(format!("hookctl call {} {vmi}{node} -- {hook}", example.hook()));
        if self.language != Language::Shell {
            steps.push(format!("hookctl check {vmi}{node} -- {hook}"));
        }
        steps.push(format!("hookctl test -- {hook}"));
        steps.push(self.generate());
        steps
    }

    /// Returns the command that runs the hook.
    pub(super) fn command(&self) -> String {
        match self.language {
            Language::Python => "python3 hook.py".to_owned(),
            Language::Rust => format!("target/release/{}", self.crate_name()),
            Language::Go => format!("./{}", self.program()),
            Language::Perl => "perl hook.pl".to_owned(),
            Language::Shell => format!("./{}", self.example().hook()),
        }
    }

    /// Returns the commands that test and build the program.
    fn build(&self) -> Vec<String> {
        let commands: &[&str] = match self.language {
            Language::Python => &["python3 -m unittest"],
            Language::Rust => &["cargo test", "cargo build --release"],
            Language::Go => &["go test", "CGO_ENABLED=0 go build"],
            Language::Perl => &["prove"],
            Language::Shell => &["./test.sh"],
        };
        commands.iter().map(|&command| command.to_owned()).collect()
    }

    /// Returns the commands that build the image.
    pub(super) fn image_steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        if self.language == Language::Rust {
            // With an explicit target, the flags leave build scripts alone, which cannot be static.
            let target = "$(uname -m)-unknown-linux-gnu";
            steps.push(format!(
                "RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target \"{target}\""
            ));
            steps.push(format!("cp \"target/{target}/release/{}\" .", self.crate_name()));
        }
        steps.push(format!("docker build -t {} .", self.image()));
        steps
    }

    fn image(&self) -> String {
        format!("registry.example/{}:0.1.0", self.name)
    }

    fn generate(&self) -> String {
        let (example, name, image) = (self.example(), &self.name, self.image());
        let annotation = example.annotation();
        let hook = match self.language {
            // A program cannot be asked for its hooks.
            Language::Shell => format!("--hook {}", example.hook()),
            _ => format!("-- {}", self.command()),
        };
        let target = match self.kind {
            HookKind::Domain => "plugin",
            HookKind::Node => "node",
            HookKind::CloudInit => {
                let value = example.value(self.language);
                return format!(
                    "hookctl generate sidecar --image {image} --vm default/my-vm \\\n  \
                     --vm-annotation {annotation}={value} {hook}"
                );
            }
        };
        format!(
            "hookctl generate {target} --name {name} --image {image} \\\n  \
             --annotation {annotation} {hook}"
        )
    }
}
