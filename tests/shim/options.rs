//! Options whose effect is seen from outside.

use serde_json::json;

use crate::support::{DOMAIN, Shim, comment, path_with, script};

#[tokio::test]
async fn hooks_cannot_gain_privileges_if_that_is_wanted() {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("NoNewPrivs:\t")).unwrap();
    for (args, variable, expected) in [
        (&[][..], None, own),
        (&["--no-new-privs"], None, "1"),
        (&[], Some("true"), "1"),
        (&[], Some("1"), "1"),
        (&[], Some("false"), own),
        (&[], Some("0"), own),
        (&["--no-new-privs"], Some("false"), "1"),
    ] {
        let text = "#!/bin/sh\nprivs=$(grep NoNewPrivs /proc/self/status)\n\
                    printf '<domain><!-- %d --></domain>' ${privs##*:}\n";
        let mut shim = Shim::spawn(args, |command, dir| {
            script(&dir.join("bin"), "onDefineDomain", text);
            command.env("PATH", path_with(&dir.join("bin")));
            command.envs(variable.map(|value| ("SIDECAR_SHIM_NO_NEW_PRIVS", value)));
        });
        shim.serving().await;
        let seen = comment(&shim.define(&json!({}), DOMAIN).await.unwrap());
        assert_eq!(seen.to_string(), expected, "{args:?} {variable:?}");
    }
}
