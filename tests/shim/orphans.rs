//! Processes that hooks leave behind become children of the shim, which reaps them.

use serde_json::{Value, json};

use crate::support::{
    Client, DOMAIN, Gate, Shim, ShimBuilder, children, eventually, exists, skipped, stat,
};

/// A hook that leaves a process behind, in its own session, until the gate `$GATE` is opened.
const LEAVES_ONE: &str = "#!/bin/sh\n\
    setsid sh -c 'echo \"orphan $$\" >&2; exec >/dev/null 2>&1; exec <\"$GATE\"; read -r line\n\
                  cut -d\" \" -f4 /proc/$$/stat >\"$GATE.parent\"; exit 3' &\n\
    printf '%s' \"$4\"\n";

/// Exec mode with a hook that leaves a process behind, and the gate at which that waits.
fn leaves_one() -> (ShimBuilder, Gate) {
    let builder = Shim::builder().program("onDefineDomain", LEAVES_ONE);
    let gate = Gate::new(builder.dir().join("gate"));
    (builder.env("GATE", &gate.0).args(["--log-level", "debug"]), gate)
}

/// The number at the end of a log line.
fn number(line: &Value) -> u64 {
    line["msg"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until an orphan is reaped.
async fn reaped(shim: &mut Shim, orphan: u64, how: &str) {
    loop {
        let line = shim.log_line("reaped an orphan").await;
        if line["pid"] == orphan {
            assert_eq!(line["msg"], format!("reaped an orphan: it {how}"));
            return;
        }
    }
}

/// Waits until the shim has no children, neither running nor zombies.
async fn childless(shim: &Shim) {
    let parent = u64::try_from(shim.pid().as_raw()).unwrap();
    eventually("the shim has no children", || children(parent).is_empty()).await;
}

#[tokio::test]
async fn a_process_that_a_program_leaves_behind_is_reaped_by_the_shim() {
    let (builder, gate) = leaves_one();
    let mut shim = builder.start().await;
    shim.still_works().await;
    let orphan = number(&shim.log_line("orphan ").await);
    let parent = u64::try_from(shim.pid().as_raw()).unwrap();
    assert_eq!(stat(orphan).map(|(_, parent)| parent), Some(parent), "it has another parent");
    drop(gate.reached().await);
    reaped(&mut shim, orphan, "exited with status 3").await;
    assert!(!exists(orphan));
    childless(&shim).await;
}

#[tokio::test]
async fn a_process_that_a_worker_leaves_behind_is_reaped_by_the_shim() {
    let mut shim = Shim::persistent("").args(["--log-level", "debug"]).start().await;
    let gate = shim.gate();
    let vmi = json!({"do": "daemon", "path": gate.0});
    shim.define(&vmi, DOMAIN).await.unwrap();
    let orphan = number(&shim.log_line("daemon ").await);
    let parent = u64::try_from(shim.pid().as_raw()).unwrap();
    assert_eq!(stat(orphan).map(|(_, parent)| parent), Some(parent), "it has another parent");
    drop(gate.reached().await);
    reaped(&mut shim, orphan, "exited with status 0").await;
    assert!(!exists(orphan));
    shim.still_works().await;
}

#[tokio::test]
async fn many_exits_at_once_lose_no_status() {
    // A third of the hooks each answers, fails or is killed, and each leaves two processes behind.
    let text = "#!/bin/sh\nn=${2#*:}; n=${n%?}\n\
                setsid sh -c 'sleep 0.05' >/dev/null 2>&1 &\nsetsid true >/dev/null 2>&1 &\n\
                case $((n % 3)) in\n\
                0) printf '<domain><!-- %s --></domain>' \"$n\";;\n\
                1) exit \"$n\";;\n\
                2) kill -9 $$;;\nesac\n";
    let builder = Shim::builder().program("onDefineDomain", text);
    let shim = builder.args(["--max-workers", "30"]).start().await;
    let socket = shim.socket();
    let calls: Vec<_> = (1..=30)
        .map(|n| {
            let socket = socket.clone();
            tokio::spawn(async move {
                let client = Client::dial(&socket).await;
                (n, client.define("v1alpha3", format!("{{\"n\":{n}}}"), DOMAIN).await)
            })
        })
        .collect();
    for call in calls {
        let (n, answer) = call.await.unwrap();
        let answer = answer.map_err(|status| status.message().to_owned());
        match n % 3 {
            0 => assert_eq!(answer, Ok(format!("<domain><!-- {n} --></domain>"))),
            1 => {
                let expected = format!("exited with status {n};");
                assert!(answer.as_ref().unwrap_err().contains(&expected), "{n}: {answer:?}");
            }
            _ => assert!(answer.as_ref().unwrap_err().contains("was killed by SIGKILL")),
        }
    }
    childless(&shim).await;
}

#[tokio::test]
async fn orphans_that_were_killed_by_any_signal_do_not_block_the_reaper() {
    let text = "#!/bin/sh\nsetsid sh -c 'kill -40 $$' &\nsetsid sh -c 'kill -9 $$' &\n\
                printf '%s' \"$4\"\n";
    let shim = Shim::builder().program("onDefineDomain", text).start().await;
    for _ in 0..2 {
        shim.still_works().await;
        childless(&shim).await;
    }
}

#[tokio::test]
async fn an_orphan_that_was_killed_by_a_real_time_signal_is_reaped_like_others() {
    // They live longer than the script: a shell reaps children that exit before it does.
    let text = "#!/bin/sh\nfor signal in 40 9; do\n\
                setsid sh -c 'exec >/dev/null 2>&1; read -r line <\"$GATE-$0\"; kill -$0 $$' $signal &\n\
                done\nprintf '%s' \"$4\"\n";
    let builder = Shim::builder().program("onDefineDomain", text).args(["--log-level", "debug"]);
    let path = builder.dir().join("gate");
    let gates = ["gate-40", "gate-9"].map(|name| Gate::new(builder.dir().join(name)));
    let mut shim = builder.env("GATE", path).start().await;
    for _ in 0..2 {
        shim.still_works().await;
        let mut how = Vec::new();
        for gate in &gates {
            drop(gate.reached().await);
            how.push(shim.log_line("reaped an orphan").await["msg"].as_str().unwrap().to_owned());
        }
        assert_eq!(how[0], "reaped an orphan: it ended with signal: 40");
        assert!(how[1].starts_with("reaped an orphan: it was killed by SIGKILL"), "{how:?}");
        childless(&shim).await;
    }
}

#[tokio::test]
async fn as_process_1_it_reaps_orphans_and_shuts_down_in_order() {
    let words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let tried = std::process::Command::new(words[0]).args(&words[1..]).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        skipped("the test as process 1", "unshare --pid does not work here");
        return;
    }
    let (builder, gate) = leaves_one();
    let mut shim = builder.under(&words).start().await;
    shim.still_works().await;
    let orphan = number(&shim.log_line("orphan ").await);
    drop(gate.reached().await);
    reaped(&mut shim, orphan, "exited with status 3").await;
    let parent = std::fs::read_to_string(gate.0.with_extension("parent")).unwrap();
    assert_eq!(parent.trim(), "1");
    shim.dial().await.shutdown().await.unwrap();
    assert_eq!(shim.exited().await.code(), Some(0));

    // A worker must exit before the shim: the kernel kills what is left when process 1 exits.
    let mut shim = Shim::persistent("").under(&words).start().await;
    shim.still_works().await;
    shim.dial().await.shutdown().await.unwrap();
    assert_eq!(shim.exited().await.code(), Some(0));
    shim.assert_logged("end of file");
}
