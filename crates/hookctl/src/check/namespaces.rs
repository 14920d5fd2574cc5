//! The check of namespaces: a domain as another hook has left it, in each of KubeVirt's spellings.

use super::markers::{self, Places};
use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use crate::rewrite::{QEMU, Receiver};
use sidecar_shim::hook::{HookKind, HookName, HookReply};

/// What another hook left in `metadata`.
const NOTE: &str = "<!-- of another hook --><other:note \
                    xmlns:other=\"https://other-hook.example\"><other:by/></other:note>";

/// What another hook left on QEMU's command line, with `PREFIX` for the prefix.
const ITEMS: &str = "<PREFIX:arg value=\"-fw_cfg\"/><!-- of another hook --><PREFIX:arg \
                     value=\"name=opt/org.example/note,string=kept\"/><PREFIX:env \
                     name=\"NOTE\" value=\"kept\"/>";

/// The spelling of hook sidecars.
const SIDECARS: &str = "<qemu:commandline>";

pub(super) async fn namespaces(session: &mut Session) -> Verdict {
    let is_domain = |hook: &HookName| hook.kind() == HookKind::Domain;
    let Some(hook) = session.hooks()?.into_iter().find(is_domain) else {
        return Err(NotPassed::skipped("no hook gets a domain"));
    };
    let domain = str::from_utf8(&session.documents.domain).unwrap_or_default();
    let spellings = spellings(domain)
        .ok_or_else(|| NotPassed::skipped("the domain has no place for a command line"))?;
    let mut worker = session.worker().await?;
    let (mut first, mut changed) = (None, false);
    for (name, sent) in spellings {
        let reply = worker.call(&session.documents.call_with(&hook, sent.clone())?).await?;
        changed |= matches!(reply, HookReply::Changed(_));
        // Rewritten, the results of all spellings are alike.
        let result = Receiver::SamePlugin.rewrite_document(&reply.or(sent.into()));
        let first = first.get_or_insert_with(|| result.clone());
        if *first != result {
            return Err(worker.warning(format!(
                "{hook} did something else in a domain with {name} than with {SIDECARS}: find \
                 elements by their namespace, {QEMU}"
            )));
        }
    }
    session.release(worker).await?;
    if changed { Ok(None) } else { Err(NotPassed::skipped(super::intact::NOTHING_CHANGED)) }
}

/// Returns the domain with what another hook left in it, each with the name of its spelling. The
/// first is that of hook sidecars. `None` if the domain has no place for that.
fn spellings(domain: &str) -> Option<[(&'static str, String); 3]> {
    let places = markers::places(domain)?;
    let declaration = format!(" xmlns:qemu=\"{QEMU}\"");
    let declaration = if declares_qemu(domain) { "" } else { &declaration };
    let sidecars = left_by_another_hook(domain, &places, "qemu", declaration)?;
    let plugins = Receiver::NextPlugin.rewrite(&sidecars)?;
    let other = left_by_another_hook(domain, &places, "q", &format!(" xmlns:q=\"{QEMU}\""))?;
    Some([
        (SIDECARS, sidecars),
        ("<commandline xmlns=\"…\">, as Plugins get it,", plugins),
        ("<q:commandline>, as another hook may leave it,", other),
    ])
}

/// Returns whether the root declares the prefix `qemu`.
fn declares_qemu(domain: &str) -> bool {
    let root = domain.split_once("<domain").and_then(|(_, rest)| rest.split_once('>'));
    root.is_some_and(|(attributes, _)| attributes.contains("xmlns:qemu="))
}

fn left_by_another_hook(
    domain: &str,
    places: &Places,
    prefix: &str,
    declaration: &str,
) -> Option<String> {
    let line = format!(
        "<{prefix}:commandline{declaration}>{}</{prefix}:commandline>",
        ITEMS.replace("PREFIX", prefix)
    );
    let (before, after) = domain.split_at_checked(places.root_end)?;
    let Some(at) = places.metadata_end else {
        return Some(format!("{before}<metadata>{NOTE}</metadata>{line}{after}"));
    };
    let (start, rest) = before.split_at_checked(at)?;
    Some(format!("{start}{NOTE}{rest}{line}{after}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sidecar_shim::hook::{Checks, HookCall};

    use super::*;

    const SAMPLE: &str = include_str!("../samples/domain.xml");

    #[test]
    fn the_spellings_are_one_domain_that_kubevirt_may_send() {
        let empty = "<domain><name>x</name></domain>";
        for domain in [SAMPLE, empty] {
            let spellings = spellings(domain).unwrap();
            let same = |it: &str| Receiver::SamePlugin.rewrite(it).unwrap();
            for (name, text) in &spellings {
                assert_eq!(same(text), same(&spellings[0].1), "{name}");
                assert!(text.contains(NOTE) && text.contains("string=kept"), "{text}");
                let call = HookCall::on_define_domain(
                    &Bytes::from_static(b"{}"),
                    "domain",
                    Bytes::from_static(b"<domain/>"),
                );
                call.unwrap().check(Bytes::from(text.clone()), Checks::WellFormed).unwrap();
            }
            assert!(spellings[0].1.contains("<qemu:commandline"), "{}", spellings[0].1);
            assert!(spellings[1].1.contains("<commandline xmlns="), "{}", spellings[1].1);
            assert!(spellings[2].1.contains("<q:commandline xmlns:q="), "{}", spellings[2].1);
        }
        assert_eq!(spellings("<domain/>"), None);
    }
}
