//! Which file is run: the one that the search in `$PATH` has found.

use serde_json::json;

use crate::support::{DOMAIN, Shim, ShimBuilder, script, worker};

/// `$PATH` begins with a relative directory and has an absolute one behind it. Each has a program of
/// this name.
fn two_programs(name: &str, relative: &str, absolute: &str) -> ShimBuilder {
    let builder = Shim::builder().program(name, absolute);
    let (dir, bin) = (builder.dir().to_owned(), builder.dir().join("bin"));
    std::fs::create_dir(dir.join("rel")).unwrap();
    script(&dir.join("rel"), name, relative);
    let path = format!("rel:{}:/usr/bin:/bin", bin.display());
    builder.current_dir(dir).env("PATH", path)
}

const OTHER: &str = "#!/bin/sh\necho 'the program in the relative directory' >&2; exit 9\n";

#[tokio::test]
async fn a_program_in_a_relative_directory_of_path_is_not_run() {
    let answers = "#!/bin/sh\nprintf '<domain>absolute</domain>'\n";
    let exec = two_programs("onDefineDomain", OTHER, answers);
    let text = format!("#!/bin/sh\nexec {}\n", worker(""));
    let in_path = two_programs("onDefineDomain", OTHER, &text).args(["--mode", "persistent"]);
    let named = two_programs("my-worker", OTHER, &text).worker("my-worker");
    let value = "<domain>absolute</domain>";
    for builder in [exec, in_path, named] {
        let shim = builder.start().await;
        let answer = shim.define(&json!({"do": "answer", "value": value}), DOMAIN).await;
        assert_eq!(answer.unwrap(), value);
    }
}

#[tokio::test]
async fn a_worker_that_only_a_relative_directory_has_does_not_start() {
    let builder = two_programs("other", OTHER, OTHER).worker("my-worker");
    script(&builder.dir().join("rel"), "my-worker", OTHER);
    let mut shim = builder.spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    shim.assert_logged(
        "cannot run my-worker: rel/my-worker is not used: only absolute directories of $PATH are \
         searched",
    );
}

#[tokio::test]
async fn a_program_is_started_under_its_name_and_not_under_its_path() {
    let shim = Shim::builder().link("onDefineDomain", "/bin/cat").start().await;
    let status = shim.fails(&json!({})).await;
    let line = "\nonDefineDomain: unrecognized option '--vmi'";
    assert!(status.message().contains(line), "{status:?}");
}
