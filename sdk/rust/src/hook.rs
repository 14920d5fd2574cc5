//! A hook and how it runs, both in a worker and in argv style.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use serde_json::Value;

use crate::call::Call;
use crate::current::{log_words, Running};
use crate::error::Failure;
use crate::fault::{Error, Verdict};
use crate::level::Level;
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

    /// Runs the hook. If it fails or panics, the cause goes to the log.
    pub(crate) fn run(&self, call: &Call, subject: Subject) -> std::result::Result<Reply, Failure> {
        let running = Running::enter(call);
        let outcome = guarded(|| self.reply(call, subject)).unwrap_or_else(|| Err(Fault.into()));
        let outcome = outcome.map_err(|error| {
            let failure = Failure::of_hook(&error);
            // The error's methods are the author's as well.
            if !call.cancellation.is_cancelled() && !error.is::<Fault>() {
                guarded(|| log_error(call, &error));
            }
            guarded(move || drop(error));
            failure
        });
        drop(running);
        outcome
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

/// Runs code of the hook's author. Returns `None` if it panics, which the panic hook logs.
fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    // Unwind safe: the state of this call is dropped, and state that the hook shares between calls
    // is behind locks, which a panic poisons.
    let panicked = match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => return Some(value),
        Err(panicked) => panicked,
    };
    // Its destructor may panic, and so may that of the second panic.
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(panicked))) {
        std::mem::forget(second);
    }
    None
}

/// A panic, which is in the log already.
#[derive(Debug)]
struct Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a panic")
    }
}

impl std::error::Error for Fault {}

/// Logs a fault, or the cause of a refusal, without words, which may quote a document.
fn log_error(call: &Call, error: &Error) {
    match error.verdict() {
        Verdict::Fault => {
            call.log(Level::Error, format_args!("fault: {}", error.described()));
        }
        Verdict::Refused(_) => {
            let Some(cause) = error.behind_refusal() else { return };
            call.log(Level::Info, format_args!("refused because of {cause}"));
        }
        Verdict::InvalidParams(_) => return,
    }
    if call.log.takes(Level::Debug) {
        log_words(&call.log, &error.words());
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::json;

    use super::*;
    use crate::{Refused, Worker};

    /// Runs the domain hook of a worker. Returns the failure and what was logged.
    fn fails(worker: &Worker<'_>, domain: &str) -> (Failure, Vec<(Level, String)>) {
        let call = Call::builder(json!({})).build();
        let subject = Subject::Domain(domain.to_owned());
        let failure = worker.hooks["onDefineDomain"].run(&call, subject).unwrap_err();
        (failure, call.logged())
    }

    #[test]
    fn a_fault_is_one_record_and_its_words_are_for_the_author() {
        let worker = Worker::new("test").on_define_domain(|_, _| Err(io::Error::other("secret"))?);
        let (failure, logged) = fails(&worker, "<domain/>");
        assert_eq!(failure.code, -32603);
        assert_eq!(
            logged.iter().map(|line| line.0).collect::<Vec<_>>(),
            [Level::Error, Level::Debug]
        );
        assert!(logged[0].1.starts_with("fault: std::io::error::Error at "), "{logged:?}");
        assert!(!logged[0].1.contains("secret") && logged[1].1.contains("secret"), "{logged:?}");
    }

    #[test]
    fn a_refusal_is_for_the_owner_and_its_cause_for_the_log() {
        let worker = Worker::new("test").on_define_domain(|_, _| {
            let cause = io::Error::from(io::ErrorKind::NotFound);
            Err(Refused::new("no such disk").retryable().caused_by(cause).into())
        });
        let (failure, logged) = fails(&worker, "<domain/>");
        assert_eq!((failure.code, &*failure.message), (-32000, "no such disk"));
        assert_eq!(failure.data, Some(r#"{"retryable":true}"#));
        assert_eq!(logged[0].0, Level::Info);
        assert!(logged[0].1.contains("NotFound"), "{logged:?}");
        let alone = Worker::new("test").on_define_domain(|_, _| crate::refuse!("no"));
        assert!(fails(&alone, "<domain/>").1.is_empty());
    }

    /// An error whose methods panic, or the payload of a panic whose destructor does.
    #[derive(Debug)]
    struct Bomb;

    impl fmt::Display for Bomb {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("secret")
        }
    }

    impl std::error::Error for Bomb {}

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic::resume_unwind(Box::new(()));
        }
    }

    #[test]
    fn an_error_that_panics_fails_one_call() {
        let worker = Worker::new("test").on_define_domain(|_, domain| match domain {
            "error" => Err(Bomb)?,
            "refused" => Err(Refused::new("no").caused_by(Bomb).into()),
            _ => panic::panic_any(Bomb),
        });
        for (domain, code, levels) in [
            ("error", -32603, &[Level::Error][..]),
            ("refused", -32000, &[Level::Info]),
            ("panic", -32603, &[]),
        ] {
            let (failure, logged) = fails(&worker, domain);
            assert_eq!(failure.code, code);
            assert_eq!(logged.iter().map(|line| line.0).collect::<Vec<_>>(), levels, "{domain}");
        }
    }

    #[test]
    fn a_refusal_without_a_message_says_so() {
        let worker = Worker::new("test").on_define_domain(|_, _| crate::refuse!(""));
        assert_eq!(fails(&worker, "").0.message, "the hook refuses, and gives no reason");
    }

    #[test]
    fn a_cancelled_call_has_no_fault() {
        let call = Call::builder(json!({})).cancelled(true).build();
        let worker = Worker::new("test").on_node("preVMStart", |call, _| {
            call.cancellation().check()?;
            Ok(())
        });
        let hook = &worker.hooks["preVMStart"];
        assert!(hook.run(&call, Subject::Node("n".to_owned())).is_err());
        assert!(call.logged().is_empty());
    }

    #[cfg(feature = "xml")]
    #[test]
    fn a_domain_that_cannot_be_read_is_the_callers_fault() {
        let worker = Worker::new("test").edit_domain(|_, _| unreachable!("it gets no document"));
        let (failure, logged) = fails(&worker, "<domain><secret></domain>");
        let why = "domain: line 1, column 17: an end tag that does not match its start tag";
        assert_eq!((failure.code, &*failure.message), (-32602, why));
        assert!(logged.is_empty());
        let other = Worker::new("test").on_define_domain(|_, _| {
            crate::xml::Document::parse("<a")?;
            Ok(None)
        });
        assert_eq!(fails(&other, "<domain/>").0.code, -32602);
    }
}
