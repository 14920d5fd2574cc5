//! A hook and how it runs, both in a worker and in argv style.

use std::error::Error;
use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe};

use serde_json::Value;

use crate::call::Call;
use crate::error::Failure;
use crate::output::complain;
use crate::Result;

type OfText<'h, R> = Box<dyn Fn(&Call, &str) -> Result<R> + Send + Sync + 'h>;
type OfJson<'h, R> = Box<dyn Fn(&Call, Value) -> Result<R> + Send + Sync + 'h>;

/// A registered function, by the kind of its document.
pub(crate) enum Hook<'h> {
    Domain(OfText<'h, Option<String>>),
    CloudInit(OfJson<'h, Option<Value>>),
    Node(OfText<'h, ()>),
}

/// Kind of document that a hook gets in addition to the VMI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Domain,
    CloudInit,
    Node,
}

/// The document of a call.
pub(crate) enum Subject {
    Domain(String),
    CloudInit(Value),
    Node(String),
}

/// The result of a hook.
#[derive(Debug)]
pub(crate) enum Reply {
    Unchanged,
    Domain(String),
    CloudInit(Value),
    /// A node hook has no result.
    Done,
}

impl Hook<'_> {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Domain(_) => Kind::Domain,
            Self::CloudInit(_) => Kind::CloudInit,
            Self::Node(_) => Kind::Node,
        }
    }

    /// Runs the hook. If it fails or panics, the cause goes to stderr.
    pub(crate) fn run(&self, call: &Call, subject: Subject) -> std::result::Result<Reply, Failure> {
        // Unwind safe: the state of this call is dropped, and state that the hook shares between
        // calls is behind locks, which a panic poisons.
        match panic::catch_unwind(AssertUnwindSafe(|| self.reply(call, subject))) {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                let failure = Failure::of_hook(&*error);
                if failure.code == Failure::FAULT.code && !call.cancellation.is_cancelled() {
                    complain(format_args!("{}: {}", call.hook, with_sources(&*error)));
                }
                Err(failure)
            }
            // The panic hook has printed the cause.
            Err(_) => Err(Failure::FAULT),
        }
    }

    fn reply(&self, call: &Call, subject: Subject) -> Result<Reply> {
        Ok(match (self, subject) {
            (Self::Domain(run), Subject::Domain(domain)) => match run(call, &domain)? {
                Some(changed) if changed != domain => Reply::Domain(changed),
                _ => Reply::Unchanged,
            },
            (Self::CloudInit(run), Subject::CloudInit(data)) => match run(call, data.clone())? {
                Some(changed) if changed != data => Reply::CloudInit(changed),
                _ => Reply::Unchanged,
            },
            (Self::Node(run), Subject::Node(node)) => {
                run(call, &node)?;
                Reply::Done
            }
            _ => unreachable!("the subject was read for this kind of hook"),
        })
    }
}

/// Formats an error and its chain of sources in one line.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
