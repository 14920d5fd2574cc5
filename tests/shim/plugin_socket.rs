//! The file of a plugin's socket: when it appears, what it replaces, who may connect.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::UnixListener;

use crate::support::{Client, Meeting, PYTHON, Shim, worker};

/// Starts a shim that is to serve at this path.
fn spawn_at(path: &Path, args: &[&str]) -> Shim {
    Shim::spawn(&[&["--version", ""], args].concat(), |command, _| {
        command.arg("--plugin-socket").arg(path);
    })
}

/// Asserts that a shim does not start there, and returns why.
async fn refused(path: &Path) -> String {
    let mut shim = spawn_at(path, &[]);
    let line = shim.log_line("sidecar-shim: cannot listen on").await;
    assert_eq!(shim.ended().await.code(), Some(1));
    line.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn it_appears_with_its_directory_when_the_shim_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/hook.sock");
    let fifo = Meeting::new(dir.path().join("fifo"));
    let worker = worker(&format!("--wait-for '{}'", fifo.0.display()));
    let mut shim = spawn_at(&path, &["--mode", "persistent", "--worker", &worker]);
    let joined = fifo.joined().await;
    assert!(!path.exists(), "its worker has not come up");
    drop(joined);
    shim.serving().await;
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["hook.sock"], "nothing else may be there");
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.ended().await.code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn that_of_a_dead_shim_is_replaced_and_that_of_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hook.sock");
    let mut first = spawn_at(&path, &[]);
    first.serving().await;
    let why = refused(&path).await;
    let pid = first.pid();
    assert!(why.contains(&format!("process {pid} listens there: stop it")), "{why}");
    assert!(path.exists());

    first.child.kill().await.unwrap();
    assert!(path.exists(), "who is killed removes nothing");
    let mut second = spawn_at(&path, &[]);
    second.log_line("replacing a stale socket").await;
    second.serving().await;
    let status = Client::dial(&path).await.node_hook("PreVMStart", &json!({})).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn of_many_that_start_at_once_over_a_dead_one_a_single_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hook.sock");
    drop(UnixListener::bind(&path).unwrap());
    let mut shims: Vec<_> = (0..8).map(|_| spawn_at(&path, &[])).collect();
    let mut serving = 0;
    for shim in &mut shims {
        // Whatever comes of it is the line that has one of these words.
        let line = shim.log_line("ing").await;
        let mut line = line;
        while !(line["msg"] == "serving" || line.is_string()) {
            line = shim.log_line("").await;
        }
        serving += usize::from(line["msg"] == "serving");
    }
    assert_eq!(serving, 1);
    Client::dial(&path).await;
}

#[tokio::test]
async fn it_is_not_made_where_something_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("target.sock"), dir.path().join("link.sock"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(refused(&link).await.contains("it is a symbolic link"));
    drop(UnixListener::bind(&target).unwrap());
    assert!(refused(&link).await.contains("it is a symbolic link"), "whatever it leads to");
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
async fn it_is_not_made_among_those_of_hook_sidecars() {
    // virt-launcher would dial it for one of them.
    let mut shim = Shim::spawn(&["--version", "v1alpha3"], |command, dir| {
        command.arg("--plugin-socket").arg(dir.join("plugin/../hooks/hook.sock"));
        std::fs::create_dir(dir.join("plugin")).unwrap();
    });
    shim.log_line("as a hook sidecar: use another directory").await;
    assert_eq!(shim.ended().await.code(), Some(1));
    assert!(shim.sockets().is_empty());
}

#[tokio::test]
async fn a_path_has_at_most_107_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let room = 107 - dir.path().as_os_str().len() - 1;
    let why = refused(&dir.path().join("x".repeat(room + 1))).await;
    assert!(why.contains("its path is 108 bytes long; the maximum is 107"), "{why}");
    let longest = dir.path().join("x".repeat(room));
    let mut shim = spawn_at(&longest, &[]);
    shim.serving().await;
    Client::dial(&longest).await;
}

#[tokio::test]
async fn its_permissions_are_those_that_were_asked_for() {
    for mode in ["0660", "666", "600"] {
        let args = ["--version", "v1alpha3", "--socket-mode", mode];
        let shim = Shim::plugin(&args, |_, _| {}).await;
        for socket in [shim.plugin_socket(), shim.socket()] {
            let found = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, u32::from_str_radix(mode, 8).unwrap(), "{}", socket.display());
        }
    }
}

/// Whether a process of another user gets an answer. It is root who can tell.
async fn answers(uid: u32, socket: &Path) -> bool {
    // A connection that was refused is closed; one that is served hears the server's settings.
    let code = "import os, socket, sys\n\
                os.setuid(int(sys.argv[1]))\n\
                peer = socket.socket(socket.AF_UNIX)\n\
                peer.connect(sys.argv[2])\n\
                try:\n    peer.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0')\n\
                    \x20   print(len(peer.recv(1)))\n\
                except OSError:\n    print(0)\n";
    let mut command = tokio::process::Command::new(&*PYTHON);
    command.args(["-c", code, &uid.to_string()]).arg(socket);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout == b"1\n"
}

#[tokio::test]
async fn only_users_that_are_allowed_are_answered() {
    if !nix::unistd::geteuid().is_root() {
        let note = "skipped: connections of other users, because only root can become them\n";
        std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes()).unwrap();
        return;
    }
    let args = ["--socket-mode", "666", "--allow-uid", "107,4711"];
    let mut shim = Shim::plugin(&args, |command, dir| {
        // A directory of tempfile's is its owner's alone.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        command.env("PATH", "/nowhere");
    })
    .await;
    let socket = shim.plugin_socket();
    for (uid, expected) in [(107, true), (4711, true), (108, false), (0, true)] {
        assert_eq!(answers(uid, &socket).await, expected, "{uid}");
    }
    let line = shim.log_line("refused a connection").await;
    assert_eq!((&line["uid"], &line["level"]), (&108.into(), &"warning".into()));
}
