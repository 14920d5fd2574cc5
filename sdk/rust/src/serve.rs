//! The worker: responds to messages until EOF.
//!
//! There is one thread more than concurrent calls, and the threads take turns reading. The thread
//! that has read a call runs the hook itself, while another one reads on, for cancellations. A
//! call therefore never waits for a thread to wake up. When all threads are busy, further calls
//! stay in the pipe.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{json, Value};

use crate::call::Call;
use crate::cancellation::Cancellation;
use crate::error::Failure;
use crate::hook::{Hook, Reply};
use crate::level::{set_least, Level};
use crate::message::{self, Message};
use crate::output::{quoted, Log, Output};
use crate::vmi::Vmi;
use crate::worker::Worker;

/// Serves requests until EOF. The error says which read or write failed.
pub(crate) fn serve(
    worker: &Worker<'_>,
    input: impl Read + Send,
    output: &Arc<Output>,
) -> Result<(), String> {
    let session = Session {
        worker,
        output: output.clone(),
        input: Mutex::new(Input { stream: input, end: None, attaches: false }),
        open: Mutex::default(),
    };
    thread::scope(|scope| {
        for _ in 0..worker.concurrency {
            let thread = thread::Builder::new().name("hook".to_owned());
            if let Err(error) = thread.spawn_scoped(scope, || session.work()) {
                lock(&session.input).end = Some(Err(format!("cannot start a thread: {error}")));
                break;
            }
        }
        session.work();
    });
    let input = session.input.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = output.fault() {
        return Err(format!("cannot write to the shim: {error}"));
    }
    input.end.unwrap_or(Ok(()))
}

struct Session<'s, R> {
    worker: &'s Worker<'s>,
    output: Arc<Output>,
    input: Mutex<Input<R>>,
    /// Cancellations of the calls in flight, by their ids.
    open: Mutex<HashMap<String, Cancellation>>,
}

struct Input<R> {
    stream: R,
    /// Set once reading has stopped, with the reason.
    end: Option<Result<(), String>>,
    /// Whether the shim accepts attachments, by its `initialize` request.
    attaches: bool,
}

/// A request that waits for its response.
struct Request {
    message: Message,
    id: Value,
    cancellation: Cancellation,
    attaches: bool,
}

impl<R: Read> Session<'_, R> {
    fn work(&self) {
        while let Some(request) = self.next() {
            self.answer(request);
        }
    }

    /// Reads the next request, and handles the notifications before it.
    fn next(&self) -> Option<Request> {
        let mut input = lock(&self.input);
        while input.end.is_none() {
            match message::read(&mut input.stream) {
                _ if self.output.fault().is_some() => input.end = Some(Ok(())),
                Ok(Some(message)) => {
                    if let Some(request) = self.sort(message, &mut input.attaches) {
                        return Some(request);
                    }
                }
                Ok(None) => input.end = Some(Ok(())),
                Err(error) => {
                    input.end = Some(Err(format!("cannot read from the shim: {error}")));
                }
            }
        }
        None
    }

    /// Handles a notification, or returns a request.
    fn sort(&self, mut message: Message, attaches: &mut bool) -> Option<Request> {
        let Some(id) = message.id.take() else {
            if message.method == "$/cancelRequest" {
                let open = lock(&self.open);
                if let Some(cancellation) = open.get(&message.param("id").to_string()) {
                    cancellation.cancel();
                }
            }
            return None;
        };
        if message.method == "initialize" {
            *attaches = message.param("capabilities")["attachments"] == true;
        }
        // Registered while the stream is still locked, so that a cancellation that follows finds
        // the call.
        let cancellation = Cancellation::default();
        lock(&self.open).insert(id.to_string(), cancellation.clone());
        Some(Request { message, id, cancellation, attaches: *attaches })
    }

    fn answer(&self, request: Request) {
        let Request { mut message, id, cancellation, attaches } = request;
        let outcome = match (message.method.as_str(), self.worker.hooks.get(&message.method)) {
            ("initialize", _) => self.initialize(&message),
            (_, Some(hook)) => self.run(hook, &mut message, &id, cancellation.clone()),
            (_, None) => Err(Failure::UNKNOWN_METHOD),
        };
        // A cancellation read before this line is reported; a later one finds no call.
        lock(&self.open).remove(&id.to_string());
        match outcome {
            _ if cancellation.is_cancelled() => self.output.error(&id, &Failure::CANCELLED),
            Err(failure) => self.output.error(&id, &failure),
            Ok(Answer::Json(result)) => self.output.result(&id, &result, None),
            Ok(Answer::Domain(domain)) if attaches && !domain.is_empty() => {
                self.output.result(&id, "{}", Some(&domain));
            }
            Ok(Answer::Domain(domain)) => {
                let result = format!(r#"{{"domain":{}}}"#, quoted(&domain));
                self.output.result(&id, &result, None);
            }
        }
    }

    fn initialize(&self, message: &Message) -> Result<Answer, Failure> {
        let offered = message.param("protocolVersions");
        if !offered.as_array().is_some_and(|versions| versions.contains(&json!(1))) {
            return Err(Failure::NO_COMMON_VERSION);
        }
        if self.worker.log_level.is_none() {
            let level = message.param("logLevel").as_str().and_then(Level::of);
            set_least(level.unwrap_or(Level::Info));
        }
        let Worker { name, version, concurrency, hooks, .. } = self.worker;
        let (name, version) = (quoted(name), quoted(version));
        let hooks = json!(hooks.keys().collect::<Vec<_>>());
        let sdk = concat!(r#"{"name":"rust","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
        Ok(Answer::Json(format!(
            r#"{{"protocolVersion":1,"worker":{{"name":{name},"version":{version}}},"sdk":{sdk},"hooks":{hooks},"capabilities":{{"attachments":true,"cancel":true,"concurrency":{concurrency}}}}}"#
        )))
    }

    fn run(
        &self,
        hook: &Hook<'_>,
        message: &mut Message,
        id: &Value,
        cancellation: Cancellation,
    ) -> Result<Answer, Failure> {
        let (vmi, subject) = message.take_documents(hook.kind())?;
        let (attempt, context, deadline) = message.invocation();
        let log = Log::Shim(self.output.clone(), id.clone());
        let hook_name = message.method.clone();
        let vmi = Vmi::new(vmi);
        let call = Call { hook: hook_name, vmi, attempt, context, deadline, cancellation, log };
        Ok(match hook.run(&call, subject)? {
            Reply::Unchanged => Answer::Json(r#"{"unchanged":true}"#.to_owned()),
            Reply::Domain(domain) => Answer::Domain(domain),
            Reply::CloudInit(data) => Answer::Json(format!(r#"{{"cloudInitData":{data}}}"#)),
            Reply::Done => Answer::Json("{}".to_owned()),
        })
    }
}

enum Answer {
    /// The `result`, as JSON text.
    Json(String),
    /// A domain, sent as an attachment if the shim accepts them.
    Domain(String),
}

/// Locks a mutex. Poisoning is ignored: no code in this file panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
