//! Streams that cannot be written to.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use super::LIMIT;

/// What may have become of stdout or stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// It takes everything.
    Whole,
    /// The program is started without it.
    Closed,
    /// Each write fails, as on a full disk.
    Full,
    /// Its reader has gone.
    Gone,
}

impl Stream {
    const ALL: [Self; 4] = [Self::Whole, Self::Closed, Self::Full, Self::Gone];

    /// Every pair of stdout and stderr.
    pub fn pairs() -> impl Iterator<Item = (Self, Self)> {
        Self::ALL.into_iter().flat_map(|stdout| Self::ALL.map(|stderr| (stdout, stderr)))
    }

    pub fn stdio(self) -> Stdio {
        match self {
            // A shell closes it.
            Self::Whole | Self::Closed => Stdio::null(),
            Self::Full => OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
            Self::Gone => std::io::pipe().unwrap().1.into(),
        }
    }
}

/// Runs a program with these streams, and returns its exit status.
pub async fn exit_status<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    (stdout, stderr): (Stream, Stream),
) -> Option<i32> {
    let close = |stream, redirection| if stream == Stream::Closed { redirection } else { "" };
    let script = format!("exec \"$@\" {} {}", close(stdout, ">&-"), close(stderr, "2>&-"));
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(program).args(args);
    command.stdin(Stdio::null()).stdout(stdout.stdio()).stderr(stderr.stdio());
    let status = timeout(LIMIT, command.kill_on_drop(true).status()).await;
    status.expect("the program hangs").unwrap().code()
}
