//! The file of a plugin's socket: when it appears, what it replaces, and who may connect.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::UnixListener;

use crate::support::{Client, Gate, PYTHON, Shim, ShimBuilder, skipped, worker};

/// A shim that serves at this path.
fn at(path: &Path) -> ShimBuilder {
    Shim::builder().no_version().args(["--plugin-socket".as_ref(), path.as_os_str()])
}

/// Asserts that a shim does not start there, and returns why.
async fn refused(path: &Path) -> String {
    let mut shim = at(path).spawn();
    let line = shim.log_line("sidecar-shim: cannot listen on").await;
    assert_eq!(shim.exited().await.code(), Some(1));
    line["msg"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn it_appears_with_its_directory_once_the_shim_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/hook.sock");
    let gate = Gate::new(dir.path().join("gate"));
    let worker = worker(&format!("--wait-for '{}'", gate.0.display()));
    let mut shim = at(&path).worker(&worker).spawn();
    let opener = gate.reached().await;
    assert!(!path.exists(), "its worker has not answered initialize yet");
    drop(opener);
    shim.serving().await;
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["hook.sock"], "no other file may be there");
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn its_path_is_written_as_grpc_clients_write_it_too() {
    for prefix in ["unix:", "unix://"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hook.sock");
        let uri = format!("{prefix}{}", path.display());
        let shim = at(Path::new(&uri)).start().await;
        assert!(path.exists(), "{uri}");
        let mut health = tokio::process::Command::new(crate::support::binary());
        let asked = health.args(["health", "--timeout", "60s", "--socket", &uri]).output().await;
        assert!(asked.unwrap().status.success(), "{uri}");
        drop(shim);
    }
    for refused in ["@hook", "unix-abstract:hook", "tcp:127.0.0.1:1"] {
        let mut shim = at(Path::new(refused)).spawn();
        let name = refused.split(':').next().unwrap();
        shim.log_line(&format!("error: invalid value '{refused}' for '--plugin-socket")).await;
        assert_eq!(shim.exited().await.code(), Some(2));
        shim.assert_logged("not supported");
        shim.assert_logged(name);
    }
}

#[tokio::test]
async fn the_socket_of_a_dead_shim_is_replaced_and_that_of_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hook.sock");
    let mut first = at(&path).start().await;
    let why = refused(&path).await;
    let pid = first.pid();
    assert!(why.contains(&format!("process {pid} listens there: stop it")), "{why}");
    assert!(path.exists());

    first.child.kill().await.unwrap();
    assert!(path.exists(), "a killed shim leaves its socket behind");
    let mut second = at(&path).spawn();
    second.log_line("replacing a stale socket").await;
    second.serving().await;
    let status = Client::dial(&path).await.node_hook("PreVMStart", &json!({})).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn of_many_shims_that_find_a_stale_socket_at_once_only_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hook.sock");
    drop(UnixListener::bind(&path).unwrap());
    let mut shims: Vec<_> = (0..8).map(|_| at(&path).spawn()).collect();
    let mut serving = 0;
    for shim in &mut shims {
        // Either it serves, or it logs why it does not start.
        let mut line = shim.log_line("").await;
        while !(line["msg"] == "serving" || line["level"] == "error") {
            line = shim.log_line("").await;
        }
        serving += usize::from(line["msg"] == "serving");
    }
    assert_eq!(serving, 1);
    Client::dial(&path).await;
}

#[tokio::test]
async fn it_does_not_replace_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("target.sock"), dir.path().join("link.sock"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(refused(&link).await.contains("it is a symbolic link"));
    drop(UnixListener::bind(&target).unwrap());
    assert!(refused(&link).await.contains("it is a symbolic link"), "regardless of its target");
    assert!(target.exists());

    let file = dir.path().join("file.sock");
    std::fs::write(&file, "precious").unwrap();
    assert!(refused(&file).await.contains("a file that is not a socket is there"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert!(refused(&file.join("x.sock")).await.contains("cannot create its directory"));
    for directory in [dir.path(), &dir.path().join("missing/")] {
        assert!(refused(directory).await.contains("it is a directory: name a socket in it"));
    }
}

#[tokio::test]
async fn it_is_not_created_in_the_directory_of_hook_sidecars() {
    // virt-launcher would mistake it for a hook sidecar's.
    let builder = Shim::builder();
    let path = builder.dir().join("plugin/../hooks/hook.sock");
    std::fs::create_dir(builder.dir().join("plugin")).unwrap();
    let mut shim = builder.args(["--plugin-socket".as_ref(), path.as_os_str()]).spawn();
    shim.log_line("as a hook sidecar: use another directory").await;
    assert_eq!(shim.exited().await.code(), Some(1));
    assert!(shim.sockets().is_empty());
}

#[tokio::test]
async fn a_path_has_at_most_107_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let room = 107 - dir.path().as_os_str().len() - 1;
    let why = refused(&dir.path().join("x".repeat(room + 1))).await;
    assert!(why.contains("its path is 108 bytes long; the maximum is 107"), "{why}");
    let longest = dir.path().join("x".repeat(room));
    let _shim = at(&longest).start().await;
    Client::dial(&longest).await;
}

#[tokio::test]
async fn an_option_sets_its_permissions() {
    for mode in ["0660", "666", "600"] {
        let shim = Shim::builder().both_apis().args(["--socket-mode", mode]).start().await;
        for socket in [shim.plugin_socket(), shim.socket()] {
            let found = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, u32::from_str_radix(mode, 8).unwrap(), "{}", socket.display());
        }
    }
}

/// Whether a process of another user gets an answer. Only root can find out.
async fn answers(uid: u32, socket: &Path) -> bool {
    // A refused connection is closed; one that is served receives the server's settings.
    let code = "import os, socket, sys\n\
                os.setuid(int(sys.argv[1]))\n\
                peer = socket.socket(socket.AF_UNIX)\n\
                peer.connect(sys.argv[2])\n\
                try:\n    peer.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0')\n\
                    \x20   print(len(peer.recv(1)))\n\
                except OSError:\n    print(0)\n";
    let mut command = tokio::process::Command::new(&*PYTHON);
    command.args(["-IS", "-c", code, &uid.to_string()]).arg(socket);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout == b"1\n"
}

#[tokio::test]
async fn only_users_that_are_allowed_are_answered() {
    if !nix::unistd::geteuid().is_root() {
        skipped("connections of other users", "only root can open them");
        return;
    }
    let args = ["--socket-mode", "666", "--allow-uid", "107,4711"];
    let builder = Shim::builder().plugin().args(args);
    // tempfile makes directories that only their owner may enter.
    std::fs::set_permissions(builder.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut shim = builder.env("PATH", "/nowhere").start().await;
    let socket = shim.plugin_socket();
    for (uid, expected) in [(107, true), (4711, true), (108, false), (0, true)] {
        assert_eq!(answers(uid, &socket).await, expected, "{uid}");
    }
    let line = shim.log_line("refused a connection").await;
    assert_eq!((&line["uid"], &line["level"]), (&108.into(), &"warning".into()));
}
