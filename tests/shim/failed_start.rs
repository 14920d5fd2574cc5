//! Workers that do not start: the shim exits, and says why.

use crate::support::Shim;

#[tokio::test]
async fn if_its_worker_does_not_start_the_shim_exits_and_says_why() {
    for (worker_args, start_timeout, expected) in [
        ("--start exit", "60s", "exited with status 7 before it answered initialize"),
        ("--start hang", "300ms", "did not answer initialize within 300ms (--start-timeout)"),
        ("--start garbage", "60s", "broke the worker protocol: a message is not JSON"),
        ("--start old", "60s", "it speaks protocol versions [7, 8], and this shim speaks [1]"),
        ("--start newer", "60s", "it chose protocol version 2, and this shim speaks 1"),
        ("--hooks ''", "60s", "it declares no hooks"),
        ("--hooks '../sh'", "60s", "a hook whose name is not a lower-case letter"),
        ("--concurrency 0", "60s", "a concurrency of 0"),
        (
            "--start array",
            "60s",
            "the value of capabilities that it declares is JSON, but has the wrong",
        ),
    ] {
        let args = ["--start-timeout", start_timeout, "--kill-grace", "1s"];
        let mut shim = Shim::persistent(worker_args).args(args).spawn();
        assert_eq!(shim.exited().await.code(), Some(1), "{worker_args}");
        shim.assert_logged("cannot start hook worker: /");
        shim.assert_logged(expected);
        assert!(shim.sockets().is_empty());
    }
}

#[tokio::test]
async fn a_failed_start_shows_the_last_lines_of_the_workers_stderr() {
    let mut shim = Shim::persistent("--start exit").spawn();
    shim.exited().await;
    shim.assert_logged("no configuration file");
    for (worker, expected) in [
        (
            "no-such-program",
            "cannot run no-such-program: there is no program of that name in $PATH",
        ),
        ("/no/such/program", "cannot run /no/such/program"),
        ("/etc/passwd", "/etc/passwd: it is not executable"),
        ("true", "exited with status 0 before it answered initialize"),
        ("'open quote", "a quote is not closed"),
        (" ", "--worker is empty"),
    ] {
        let mut shim = Shim::worker(worker).spawn();
        assert_eq!(shim.exited().await.code(), Some(1), "{worker}");
        shim.assert_logged(expected);
    }
}

#[tokio::test]
async fn without_any_worker_it_says_how_to_name_one() {
    let builder = Shim::builder().args(["--mode", "persistent"]);
    let mut shim = builder.env("PATH", "/nonexistent").spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    shim.assert_logged("--worker 'python3 /hooks/h.py'");
    let mut shim = Shim::builder().args(["--worker", "true"]).spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    shim.assert_logged("a worker needs --mode persistent");
}
