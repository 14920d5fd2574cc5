//! What a process does right now, as far as the kernel says: for the log line about a call that
//! takes long.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;

use crate::text::{clip, escape_line};

/// Maximum number of bytes that are read of a file in `/proc`.
const MAX_BYTES: u64 = 1024;

/// Maximum number of child processes that are named.
const MAX_CHILDREN: usize = 3;

/// Maximum length of the name of a process or of a kernel function.
const MAX_NAME_BYTES: usize = 64;

/// Returns what a process does, in words that continue "it". `None` if it does not exist.
#[must_use]
pub fn activity(pid: i32) -> Option<String> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    let mut text = match state {
        'R' => "is running".to_owned(),
        'S' => "sleeps".to_owned(),
        'D' => "waits for a device".to_owned(),
        'T' | 't' => "is stopped by a signal".to_owned(),
        'Z' | 'X' => "has exited".to_owned(),
        other => format!("is in state {other}"),
    };
    if "SD".contains(state)
        && let Some(function) = name(&format!("/proc/{pid}/wchan")).filter(|name| name != "0")
    {
        let _ = write!(text, " (in the kernel's {function})");
    }
    let children = read(&format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<_> = children
        .split_ascii_whitespace()
        .take(MAX_CHILDREN)
        .filter_map(|child| Some(format!("{} ({child})", name(&format!("/proc/{child}/comm"))?)))
        .collect();
    if !children.is_empty() {
        let _ = write!(text, "; it has the child processes {}", children.join(", "));
    }
    Some(text)
}

/// Reads a name. `None` if there is none, or if it may not be read.
fn name(path: &str) -> Option<String> {
    let text = read(path)?;
    let text = clip(&escape_line(text.trim()), MAX_NAME_BYTES).to_owned();
    (!text.is_empty()).then_some(text)
}

fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_waits_for_another_names_it() {
        let script = "sleep 600 & echo started; read _; kill $!; wait";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let text = activity(pid).unwrap();
        assert!(text.contains("it has the child processes "), "{text}");
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child.wait().unwrap();
        assert_eq!(activity(pid), None);
    }

    #[test]
    fn a_process_that_runs_is_running() {
        let mut child = Command::new("sh")
            .args(["-c", "echo started; while :; do :; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let text = activity(i32::try_from(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(text.as_deref(), Some("is running"));
    }

    #[test]
    fn a_process_that_waits_for_input_sleeps() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Until it reads; a busy machine takes its time.
        while !activity(pid).unwrap().starts_with("sleeps") {
            assert!(child.try_wait().unwrap().is_none());
            std::thread::yield_now();
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
