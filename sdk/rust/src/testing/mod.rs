//! For tests of hooks: [`Call::builder`](crate::Call::builder) makes a call, and
//! [`assert_idempotent`] checks what KubeVirt demands of every domain hook.

mod rewrite;

use crate::call::Call;
use crate::hook::{Reply, Subject};
use crate::worker::{Worker, ON_DEFINE_DOMAIN};

use self::rewrite::Receiver;

/// Asserts that a domain hook finds nothing to do in its own result.
///
/// KubeVirt calls `onDefineDomain` up to three times for one boot, also with the hook's own result,
/// which it has rewritten by then: the Plugins API hands on `<commandline xmlns="…">` without
/// prefixes and indented with two spaces, the API of hook sidecars `<qemu:commandline>` with
/// tabs. This runs the worker's hook, then again on its result as it is and in both spellings.
/// The order of elements, which KubeVirt changes as well, stays.
///
/// ```
/// use kubevirt_hook::{testing, Call, Result, Worker};
/// use kubevirt_hook::xml::Document;
/// use serde_json::json;
///
/// fn no_hpet(_: &Call, doc: &Document) -> Result<()> {
///     let line = doc.ensure("qemu:commandline")?;
///     line.ensure("qemu:arg[@value='-no-hpet']")?;
///     Ok(())
/// }
///
/// let worker = Worker::new("no-hpet").edit_domain(no_hpet);
/// let call = Call::builder(json!({})).build();
/// testing::assert_idempotent(&worker, &call, "<domain><devices/></domain>");
/// ```
///
/// # Panics
///
/// If the hook fails, or changes its own result. The text says in which spelling, and where.
pub fn assert_idempotent(worker: &Worker<'_>, call: &Call, domain: &str) {
    let result = define(worker, call, domain, "").unwrap_or_else(|| domain.to_owned());
    let plugin = rewrite::rewrite(&result, Receiver::Plugin);
    let sidecar = rewrite::rewrite(&result, Receiver::Sidecar);
    for (spelling, sent) in [
        ("as it was", result),
        ("as the Plugins API spells it", plugin),
        ("as the API of hook sidecars spells it", sidecar),
    ] {
        if let Some(changed) = define(worker, call, &sent, spelling) {
            let same = sent.lines().zip(changed.lines()).take_while(|(old, new)| old == new);
            let number = same.count();
            let line = |text: &str| text.lines().nth(number).unwrap_or_default().to_owned();
            let (old, new) = (line(&sent), line(&changed));
            panic!("the hook changes its own result, {spelling}:\n-{old}\n+{new}\nin\n{changed}");
        }
    }
}

/// Runs the hook. Returns the changed domain.
fn define(worker: &Worker<'_>, call: &Call, domain: &str, spelling: &str) -> Option<String> {
    let hook = worker.hooks.get(ON_DEFINE_DOMAIN);
    let hook = hook.unwrap_or_else(|| panic!("the worker has no hook {ON_DEFINE_DOMAIN}"));
    match hook.run(call, Subject::Domain(domain.to_owned())) {
        Ok(Reply::Domain(changed)) => Some(changed),
        Ok(_) => None,
        Err(failure) => {
            let (message, logged) = (failure.message, call.logged());
            let on = if spelling.is_empty() { "" } else { " on its own result, " };
            panic!("the hook fails{on}{spelling}: {message}; it has logged {logged:#?}")
        }
    }
}
