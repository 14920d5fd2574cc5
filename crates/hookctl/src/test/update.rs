//! Writes what is expected of a case from what the hook returns, if it returns that in every way in
//! which KubeVirt may call it.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use sidecar_shim::hook::HookKind;

use super::details::WORKER_DIED;
use super::run::{Demand, Outcome, Runner, Way};
use super::{Fault, Verdict, says};
use crate::cases::{Case, ERROR, Expected, FILES};
use crate::json::Json;

/// The status of a call that the hook refuses.
const REFUSED: &str = "FAILED_PRECONDITION";

/// Permissions of a new file, of which the umask removes some.
const NEW_FILE: u32 = 0o666;

/// Runs a case. If that does not do what is expected, or nothing is, writes what it does.
pub(super) async fn update(runner: &Runner, case: &Case) -> Verdict {
    let mut calls = 0;
    if let Some(expected) = &case.expected {
        let outcome = runner.run(case, Demand::OfCase(expected)).await;
        calls = outcome.calls;
        // What a hook does whose worker dies is not to be expected from now on.
        let has_died = outcome.faults.iter().any(|(_, fault)| *fault == Fault::WorkerDied);
        if outcome.faults.is_empty() || has_died {
            return Verdict::Ran(outcome);
        }
    }
    calls += 1;
    let (expected, contents) = match first(runner, case).await {
        Ok(found) => found,
        Err(why) => return failed(runner, case, why, calls),
    };
    // Not written if the hook does not do it in another way as well.
    let mut outcome = runner.run(case, Demand::OfFirstCall(&expected)).await;
    outcome.calls += calls;
    if !outcome.faults.is_empty() {
        outcome.not_written = Some(why_not_written(runner.first_way(case), &outcome));
        return Verdict::Ran(outcome);
    }
    let file = expected.file(case.hook.kind());
    match write(&case.directory, file, &contents) {
        Ok(()) => Verdict::Written(file, outcome),
        Err(error) => failed(runner, case, format!("cannot write {file}: {error}"), outcome.calls),
    }
}

/// Calls the hook once. Returns what is to be expected from now on, and the contents of its file.
async fn first(runner: &Runner, case: &Case) -> Result<(Expected, Bytes), String> {
    let kind = case.hook.kind();
    let answer = runner.first(case).await?;
    if answer.is_of_second_worker {
        return Err(WORKER_DIED.to_owned());
    }
    let document = match answer.reply {
        Ok(document) => document,
        Err(error) => {
            let (status, message) = match error.status() {
                Some((REFUSED, message)) => (REFUSED, message),
                // A misspelt command would otherwise become what is expected of every case.
                Some((status, _)) => {
                    return Err(format!(
                        "the hook fails: {error}\n--update writes refusals only: if this failure \
                         is meant, write {ERROR} with the line {status}"
                    ));
                }
                None => return Err(error.to_string()),
            };
            let text = Expected::error_text(&case.hook, status, message);
            return Ok((Expected::parse_error(&text)?, text.into()));
        }
    };
    if says::compare(kind, &case.subject, &document)?.is_none() {
        return Ok((Expected::Unchanged, Bytes::new()));
    }
    let contents = written(kind, &document);
    Ok((Expected::Document(contents.clone()), contents))
}

/// Returns a document as it is written to a file: a domain as the hook wrote it, JSON in lines.
fn written(kind: HookKind, document: &Bytes) -> Bytes {
    let lines = match kind {
        HookKind::CloudInit => Json::parse(document).ok().map(|json| json.to_string().into_bytes()),
        HookKind::Domain | HookKind::Node => None,
    };
    let mut contents = lines.unwrap_or_else(|| document.to_vec());
    if !contents.ends_with(b"\n") {
        contents.push(b'\n');
    }
    contents.into()
}

/// Says why the hook's first result is not expected from now on.
fn why_not_written(first: Way, outcome: &Outcome) -> String {
    if outcome.faults.iter().all(|(way, _)| way.again) {
        return "the hook does something else with its own result".to_owned();
    }
    format!("the hook does not do in these calls what it did in the first one ({first})")
}

fn failed(runner: &Runner, case: &Case, why: String, calls: usize) -> Verdict {
    let faults = vec![(runner.first_way(case), Fault::Text(why))];
    Verdict::Ran(Outcome { calls, faults, ..Outcome::default() })
}

/// Writes the file, and removes the others that said what is expected. A symbolic link in its place
/// is replaced, not followed.
fn write(directory: &Path, file: &str, contents: &[u8]) -> io::Result<()> {
    let mut new = tempfile::Builder::new()
        .prefix(".hookctl-")
        .permissions(Permissions::from_mode(NEW_FILE))
        .tempfile_in(directory)?;
    new.write_all(contents)?;
    new.persist(directory.join(file))?;
    for other in FILES.into_iter().filter(|other| *other != file) {
        match std::fs::remove_file(directory.join(other)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
