//! Checks of how a worker exits.

use super::session::Session;
use super::verdict::{NotPassed, Verdict};

pub(super) async fn end_of_file(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    worker.close_stdin().await;
    let exit = worker.exit_at_eof().await?;
    if exit.success() { Ok(None) } else { Err(worker.fault(format!("at EOF it {exit}"))) }
}

pub(super) async fn end_of_file_in_call(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.worker().await?;
    let (id, bytes) = worker.call_bytes(&call)?;
    worker.send(&bytes);
    worker.close_stdin().await;
    worker.reply(&call, id).await?;
    Ok(None)
}

pub(super) async fn sigterm(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    worker.terminate();
    worker.exit_after("SIGTERM").await.map_err(NotPassed::or_warning)?;
    Ok(None)
}
