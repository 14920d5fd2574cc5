//! Argv style, one process per call: the documents are arguments, the result goes to stdout.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::call::{Call, Context};
use crate::error::Failure;
use crate::hook::{Hook, Kind, Reply, Subject};
use crate::output::{complain, Log};
use crate::worker::{Worker, ON_DEFINE_DOMAIN, PRE_CLOUD_INIT_ISO};

/// Environment variable with the context of the call; workers get it in `invocation.context`.
const CONTEXT: &str = "KUBEVIRT_HOOK_CONTEXT";

/// Runs the hook that the arguments select, and returns the exit status.
pub(crate) fn run(worker: &Worker<'_>, arguments: &[OsString], mut output: File) -> ExitCode {
    if matches!(arguments, [_, only] if only == "--help" || only == "-h") {
        return print(worker, &mut output, &format!("{}\n", usage(worker)));
    }
    let once = match Once::parse(worker, arguments) {
        Ok(once) => once,
        Err(reason) => {
            complain(format_args!("{}: {reason}\n{}", worker.name, usage(worker)));
            return ExitCode::from(2);
        }
    };
    match once.run() {
        Ok(result) => print(worker, &mut output, &result),
        Err(failure) => {
            complain(format_args!("{}: {}", worker.name, failure.message));
            ExitCode::FAILURE
        }
    }
}

fn print(worker: &Worker<'_>, output: &mut File, text: &str) -> ExitCode {
    match output.write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{}: cannot write the result: {error}", worker.name));
            ExitCode::FAILURE
        }
    }
}

/// The one call that the command line describes.
struct Once<'w, 'h> {
    name: &'w str,
    hook: &'w Hook<'h>,
    vmi: OsString,
    subject: OsString,
}

impl<'w, 'h> Once<'w, 'h> {
    fn parse(worker: &'w Worker<'h>, arguments: &[OsString]) -> Result<Self, String> {
        let (program, arguments) = arguments.split_first().ok_or("no arguments")?;
        let mut options = Options::default();
        options.read(arguments)?;
        let Options { vmi, subject } = options;
        let vmi = vmi.ok_or("--vmi is missing")?;
        let (kind, subject) = subject.ok_or("--domain, --cloud-init or --node is missing")?;
        // The program's file name decides; without a match, the options imply one of two hooks.
        let program = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
        let name = match kind {
            _ if worker.hooks.contains_key(program) => program,
            _ if [ON_DEFINE_DOMAIN, PRE_CLOUD_INIT_ISO].contains(&program) => program,
            Kind::Domain => ON_DEFINE_DOMAIN,
            Kind::CloudInit => PRE_CLOUD_INIT_ISO,
            Kind::Node => {
                return Err("--node does not select a hook: start this program through a link \
                            named after the hook"
                    .to_owned())
            }
        };
        let (name, hook) = worker
            .hooks
            .get_key_value(name)
            .ok_or_else(|| format!("this program has no hook {name}"))?;
        if hook.kind() != kind {
            return Err(format!("{name} takes {}", kind_option(hook.kind())));
        }
        Ok(Self { name, hook, vmi, subject })
    }

    fn run(self) -> Result<String, Failure> {
        let Self { name, hook, vmi, subject } = self;
        let vmi = object(&vmi, Failure::invalid_params("vmi is missing or not an object"))?;
        let context = env::var(CONTEXT).ok().filter(|context| !context.is_empty());
        let mut call = Call::builder(vmi).hook(name).build();
        (call.context, call.log) = (context.as_deref().map(Context::from), Log::Stderr);
        let not_text = match hook.kind() {
            Kind::Domain => "domain is not UTF-8",
            Kind::CloudInit => "cloudInitData is missing or not an object",
            Kind::Node => "nodeName is missing or not a string",
        };
        let text = subject.into_string().map_err(|_| Failure::invalid_params(not_text))?;
        let subject = match hook.kind() {
            Kind::Domain => Subject::Domain(text.clone()),
            Kind::CloudInit => {
                Subject::CloudInit(object(OsStr::new(&text), Failure::invalid_params(not_text))?)
            }
            Kind::Node => Subject::Node(text.clone()),
        };
        Ok(match hook.run(&call, subject)? {
            Reply::Unchanged => text,
            Reply::Domain(domain) => domain,
            Reply::CloudInit(data) => data.to_string(),
            Reply::Done => String::new(),
        })
    }
}

fn object(text: &OsStr, otherwise: Failure) -> Result<Value, Failure> {
    let value = text.to_str().and_then(|text| serde_json::from_str(text).ok());
    value.filter(Value::is_object).ok_or(otherwise)
}

/// The values of the options.
#[derive(Default)]
struct Options {
    vmi: Option<OsString>,
    subject: Option<(Kind, OsString)>,
}

impl Options {
    fn read(&mut self, arguments: &[OsString]) -> Result<(), String> {
        let mut arguments = arguments.iter();
        while let Some(option) = arguments.next() {
            // An unknown argument may be a document, so the error does not quote it.
            let option = option.to_str().unwrap_or_default();
            let (option, value) = match option.split_once('=') {
                Some((option, value)) => (option, Some(OsString::from(value))),
                None => (option, None),
            };
            let kind = match option {
                "--vmi" => None,
                "--domain" => Some(Kind::Domain),
                "--cloud-init" => Some(Kind::CloudInit),
                "--node" => Some(Kind::Node),
                _ => return Err("unknown argument".to_owned()),
            };
            let value = value
                .or_else(|| arguments.next().cloned())
                .ok_or_else(|| format!("{option} has no value"))?;
            let twice = match kind {
                None => self.vmi.replace(value).is_some(),
                Some(kind) => self.subject.replace((kind, value)).is_some(),
            };
            if twice {
                return Err(format!("{option} conflicts with an earlier option"));
            }
        }
        Ok(())
    }
}

fn kind_option(kind: Kind) -> &'static str {
    match kind {
        Kind::Domain => "--domain XML",
        Kind::CloudInit => "--cloud-init JSON",
        Kind::Node => "--node NAME",
    }
}

fn usage(worker: &Worker<'_>) -> String {
    let mut lines = vec!["usage:".to_owned()];
    for (name, hook) in &worker.hooks {
        lines.push(format!("  {name} --vmi JSON {}", kind_option(hook.kind())));
    }
    lines.push("or as a worker of sidecar-shim --mode persistent".to_owned());
    lines.join("\n")
}
