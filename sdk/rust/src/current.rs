//! The call that a thread runs, for what is not given a [`Call`]: panics, and the `log` crate.

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::env;
use std::fmt::Write;
use std::panic::{self, PanicHookInfo};

use crate::call::Call;
use crate::level::Level;
use crate::output::{complain, Log};

thread_local! {
    /// The destination of the call's log lines.
    static CALL: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Guard: until it is dropped, this thread runs a call.
pub(crate) struct Running(());

impl Running {
    pub(crate) fn enter(call: &Call) -> Self {
        CALL.set(Some(call.log.clone()));
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        CALL.set(None);
    }
}

/// Returns the destination of this thread's log lines while it runs a call.
pub(crate) fn log() -> Option<Log> {
    // A thread that ends has no calls any more.
    CALL.try_with(|call| call.try_borrow().ok()?.clone()).ok().flatten()
}

/// Makes a panic in a call one record of the log. Other panics are printed as before, with a
/// backtrace unless `RUST_BACKTRACE` is set to choose otherwise.
pub(crate) fn log_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if let Some(log) = log() {
            return record(&log, panic);
        }
        print(panic);
        if env::var_os("RUST_BACKTRACE").is_none() {
            complain(Backtrace::force_capture());
        }
    }));
}

/// Logs where the code panicked. The words may quote a document, so they are for their author only.
fn record(log: &Log, panic: &PanicHookInfo<'_>) {
    let mut text = "panic".to_owned();
    if let Some(location) = panic.location() {
        let _ = write!(text, " at {location}");
    }
    let backtrace = match env::var_os("RUST_BACKTRACE") {
        Some(choice) if choice == "0" => String::new(),
        _ => of_hook(&Backtrace::force_capture().to_string()),
    };
    let _ = write!(text, "\n{backtrace}");
    log.write(Level::Error, &text);
    let payload = panic.payload();
    let words = payload.downcast_ref::<&str>().copied();
    let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    log_words(log, words.unwrap_or("the panic has no text"));
}

/// Logs the words of an error or panic for its author.
pub(crate) fn log_words(log: &Log, words: &str) {
    log.write(Level::Debug, &format!("the error's words, which may quote a document: {words}"));
}

/// Returns the frames of a backtrace between the panic and this library.
fn of_hook(backtrace: &str) -> String {
    let mut frames: Vec<String> = Vec::new();
    for line in backtrace.lines() {
        match frames.last_mut() {
            Some(frame) if line.trim_start().starts_with("at ") => {
                let _ = write!(frame, "\n{line}");
            }
            _ => frames.push(line.to_owned()),
        }
    }
    let is_panic = |frame: &String| frame.contains("panicking") || frame.contains("rust_begin");
    let is_ours = |frame: &String| frame.contains("kubevirt_hook::hook::");
    let start = frames.iter().position(is_panic).map_or(0, |first| {
        first + frames[first..].iter().take_while(|frame| is_panic(frame)).count()
    });
    let end = frames[start..].iter().position(is_ours).map_or(frames.len(), |end| start + end);
    frames[start..end].join("\n")
}
