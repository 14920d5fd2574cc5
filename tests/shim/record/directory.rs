//! The directory of the cases: its limits, who else uses it, and what can happen to it.

use super::*;

#[tokio::test]
async fn the_limits_hold_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let cases_in = directory.path().join("cases");
    let start = async |args: [&str; 2]| {
        let builder = Shim::builder().program("onDefineDomain", ECHO).args(args);
        builder.args(["--record".as_ref(), cases_in.as_os_str()]).start().await
    };
    let mut first = start(["--record-limit", "3"]).await;
    first.still_works().await;
    stop(&mut first).await;
    assert_eq!(first.count("recording has stopped"), 0);
    let mut second = start(["--record-limit", "3"]).await;
    for _ in 0..5 {
        second.still_works().await;
    }
    stop(&mut second).await;
    assert_eq!(second.count("recording has stopped"), 1);
    second.assert_logged("is full (--record-limit)");
    assert_eq!(cases(&cases_in).len(), 3);
    // Others have taken a case away: there is place for one.
    std::fs::remove_dir_all(cases_in.join(&names(&cases_in)[0])).unwrap();
    let mut third = start(["--record-limit", "3"]).await;
    third.still_works().await;
    third.log_line("recording has stopped").await;
    third.still_works().await;
    stop(&mut third).await;
    assert_eq!(cases(&cases_in).len(), 3);
    let bytes: usize =
        cases(&cases_in).iter().flat_map(|(_, files)| files.values()).map(String::len).sum();
    let mut fourth = start(["--record-bytes", &bytes.to_string()]).await;
    fourth.still_works().await;
    stop(&mut fourth).await;
    fourth.assert_logged("is full (--record-bytes)");
    assert_eq!(cases(&cases_in).len(), 3);
}

#[tokio::test]
async fn two_shims_share_a_directory_and_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let cases_in = directory.path().join("cases");
    let start = async || {
        let builder = Shim::builder().program("onDefineDomain", ECHO);
        let builder = builder.args(["--record-limit", "4", "--record"]);
        builder.args([cases_in.as_os_str()]).start().await
    };
    let (mut source, mut target) = (start().await, start().await);
    for number in 0..4 {
        let shim = [&source, &target][number % 2];
        shim.still_works().await;
        eventually("the case is written", || {
            let names = names(&cases_in);
            names.len() == number + 1 && names.iter().all(|name| name.starts_with('2'))
        })
        .await;
    }
    source.still_works().await;
    source.log_line("recording has stopped").await;
    stop(&mut source).await;
    stop(&mut target).await;
    assert_eq!(cases(&cases_in).len(), 4);
}

#[tokio::test]
async fn a_shim_that_is_killed_leaves_no_half_case() {
    let directory = tempfile::tempdir().unwrap();
    let cases_in = directory.path().join("cases");
    let domain = domain_of(1_500_000);
    let start = || {
        let builder = Shim::persistent("").args(["--memory-budget", "256MiB"]);
        builder.args(["--record".as_ref(), cases_in.as_os_str()]).start()
    };
    let is_partial = |name: &String| name.starts_with(".partial-");
    let mut killed_in_mid_write = 0;
    for _ in 0..200 {
        let mut shim = start().await;
        let client = shim.dial().await;
        let call = client.define("v1alpha3", vmi("vm").to_string(), domain.clone());
        let whole = || names(&cases_in).iter().filter(|name| !is_partial(name)).count();
        let before = whole();
        // Some cases are whole before anyone sees their beginning.
        let writes = eventually("a case is written", || {
            names(&cases_in).iter().any(is_partial) || whole() > before
        });
        let (answer, ()) = tokio::join!(call, writes);
        assert_eq!(answer.unwrap(), domain);
        shim.signal(Signal::SIGKILL);
        shim.exited().await;
        killed_in_mid_write += usize::from(names(&cases_in).iter().any(is_partial));
        for name in names(&cases_in).iter().filter(|name| !is_partial(name)) {
            let case = cases_in.join(name);
            assert_eq!(names(&case), ["domain.xml", "unchanged", "vmi.json"], "{name}");
            assert_eq!(case.join("domain.xml").metadata().unwrap().len(), domain.len() as u64);
        }
        if killed_in_mid_write == 2 {
            break;
        }
    }
    assert_eq!(killed_in_mid_write, 2, "no shim was killed while it wrote");
    let mut shim = start().await;
    assert!(!names(&cases_in).iter().any(is_partial), "what the killed ones left is still there");
    stop(&mut shim).await;
}

#[tokio::test]
async fn a_directory_that_is_gone_or_a_disk_that_is_full_costs_a_warning() {
    let (builder, directory) = recording(Shim::builder().program("onDefineDomain", ECHO));
    let mut shim = builder.start().await;
    std::fs::remove_dir_all(&directory).unwrap();
    for _ in 0..3 {
        shim.still_works().await;
    }
    stop(&mut shim).await;
    assert_eq!(shim.count("calls are not recorded: cannot write there"), 1);

    let builder = Shim::builder().program("onDefineDomain", ECHO);
    let disk = builder.dir().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = "mount -t tmpfs -o size=64k,mode=700 tmpfs \"$0\" && exec \"$@\"";
    let under = ["unshare", "-rm", "sh", "-c", mount, disk.to_str().unwrap()];
    let mut probe = std::process::Command::new(under[0]);
    if !probe.args(&under[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        skipped("a full disk", "no file system can be mounted here");
        return;
    }
    let builder = builder.under(&under).args(["--record".as_ref(), disk.as_os_str()]);
    let mut shim = builder.start().await;
    let large = domain_of(50_000);
    for _ in 0..3 {
        assert_eq!(shim.define(&json!({}), &large).await.unwrap(), large);
    }
    stop(&mut shim).await;
    let complaint = "cannot write there: No space left on device";
    assert_eq!(shim.count(complaint), 1, "{}", shim.log_text());
}

#[tokio::test]
async fn a_directory_that_is_not_safe_is_refused_at_the_start_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o2770)).unwrap();
    symlink(dir.path(), dir.path().join("link")).unwrap();
    for (path, expected) in [
        (
            open.clone(),
            format!(
                "cannot record into {0}: other users may write to it: name a directory in it, \
                 which the shim creates for itself: {0}/cases (--record)",
                open.display()
            ),
        ),
        (dir.path().join("link"), "it is a symbolic link".to_owned()),
        (dir.path().join("a/b"), "a does not exist: mount or create it".to_owned()),
        ("/proc".into(), String::new()),
    ] {
        // Before a worker is started, which would not start.
        let builder = Shim::persistent("--start exit");
        let builder = builder.args(["--record".as_ref(), path.as_os_str()]);
        let mut shim = builder.spawn();
        assert_eq!(shim.exited().await.code(), Some(1));
        shim.assert_logged(&format!("cannot record into {}", path.display()));
        shim.assert_logged(&expected);
    }
    // The advice is good, also below a directory with the set-group-id bit, as volumes have it.
    let builder = Shim::builder().program("onDefineDomain", ECHO);
    let cases_in = open.join("cases");
    let mut shim = builder.args(["--record".as_ref(), cases_in.as_os_str()]).start().await;
    shim.still_works().await;
    stop(&mut shim).await;
    assert_private(&cases_in);
    assert_eq!(cases(&cases_in).len(), 1);
    // What kubelet does to the volume of the next pod.
    for path in [cases_in.clone(), cases_in.join(&names(&cases_in)[0])] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o2770)).unwrap();
    }
    let builder = Shim::builder().program("onDefineDomain", ECHO);
    let mut shim = builder.args(["--record".as_ref(), cases_in.as_os_str()]).start().await;
    shim.still_works().await;
    stop(&mut shim).await;
    assert_eq!(cases(&cases_in).len(), 2);
}

#[tokio::test]
async fn a_case_that_is_larger_than_the_limit_is_left_out_and_others_are_recorded() {
    let (builder, directory) = recording(Shim::builder().program("onDefineDomain", ECHO));
    let mut shim = builder.args(["--record-bytes", "20000"]).start().await;
    let large = domain_of(50_000);
    assert_eq!(shim.define(&json!({}), &large).await.unwrap(), large);
    shim.still_works().await;
    stop(&mut shim).await;
    assert_eq!(shim.count("which is more than --record-bytes"), 1, "{}", shim.log_text());
    shim.assert_not_logged("recording has stopped");
    assert_eq!(cases(&directory).len(), 1);
}
