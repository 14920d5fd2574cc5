//! The exit status is the documented one, whatever becomes of stdout and stderr.

use nix::sys::signal::Signal;

use crate::support::{Shim, Stream, binary, exit_status, worker};

#[tokio::test]
async fn every_command_keeps_its_exit_status_without_its_streams() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let serve = ["--version", "v1alpha3", "--socket-dir", dir, "--mode", "persistent", "--worker"];
    let failing = worker("--start exit");
    let exits = [&serve[..], &[failing.as_str()]].concat();
    let missing = [&serve[..], &["/nowhere/worker"]].concat();
    let healthy = Shim::builder().plugin().program("preVMStart", "#!/bin/sh\n").start().await;
    let socket = healthy.plugin_socket();
    let socket = socket.to_str().unwrap();
    for (args, expected) in [
        (&["--help"][..], 0),
        (&["-h"], 0),
        (&["-V"], 0),
        (&["health", "--help"], 0),
        (&["health", "--socket", socket], 0),
        (&["health", "--socket", "/nowhere"], 1),
        (&["health"], 1),
        (&[], 1),
        (&["--version", "v1alpha9"], 1),
        (&["--version", "v1alpha3", "--socket-dir", "/nowhere"], 1),
        (&exits, 1),
        (&missing, 1),
        (&["--no-such-option"], 2),
        (&["--max-workers", "none"], 2),
        (&["call", "onDefineDomain"], 2),
        (&["check"], 2),
    ] {
        for streams in Stream::pairs() {
            let status = exit_status(&binary(), args, streams).await;
            assert_eq!(status, Some(expected), "{args:?} with {streams:?}");
        }
    }
}

#[tokio::test]
async fn it_serves_and_stops_with_status_0_without_its_streams() {
    for redirections in [">&- 2>&-", ">/dev/full 2>/dev/full"] {
        let script = format!("exec \"$@\" {redirections}");
        let words = ["sh", "-c", &script, "sh"];
        let mut shim = Shim::persistent("").args(["--log-level", "debug"]).under(&words).spawn();
        shim.has_socket().await;
        shim.still_works().await;
        shim.signal(Signal::SIGTERM);
        assert_eq!(shim.exited().await.code(), Some(0), "{redirections}");
    }
}

/// A stalled log reader must not keep a container from restarting.
#[tokio::test]
async fn a_failed_start_does_not_wait_for_a_reader_of_stderr() {
    let fill = "import os, sys\n\
                os.set_blocking(2, False)\n\
                try:\n while True: os.write(2, b'x' * 4096)\n\
                except BlockingIOError: os.set_blocking(2, True)\n\
                os.execvp(sys.argv[1], sys.argv[1:])";
    let mut shim = Shim::builder().version("v1alpha9").under(&["python3", "-c", fill]).spawn();
    let exited = tokio::time::timeout(crate::support::LIMIT, shim.child.wait()).await;
    assert_eq!(exited.expect("it waits for the reader").unwrap().code(), Some(1));
}
