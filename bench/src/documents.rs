//! The documents of the calls: the sample VM, with enough disks for the length that is wanted.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;

const DOMAIN: &str = include_str!("../../crates/hookctl/src/samples/domain.xml");
const VMI: &str = include_str!("../../crates/hookctl/src/samples/vmi.json");

/// A VM whose interface on the pod network has the binding `passt`.
const BOUND_DOMAIN: &str = include_str!("../../tests/fixtures/network_binding/domain.xml");
const BOUND_VMI: &str = include_str!("../../tests/fixtures/network_binding/vmi.json");

/// What the hooks put into the domain, from the annotation of the sample VMI.
const EDIT: &str = ">Copper Lantern Works</entry>";

/// What a network binding puts into the domain, in the quotes of any XML library.
const BINDING: [&str; 3] = ["vhostuser", "/var/run/kubevirt/passt.log", "memfd"];

/// The end of the element that contains the disks.
const DEVICES_END: &str = "\t</devices>";

/// A VMI and a domain.
#[derive(Clone)]
pub struct Documents {
    /// Kubernetes JSON.
    pub vmi: Bytes,
    /// libvirt XML.
    pub domain: Bytes,
}

/// What the server has to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The domain as it was sent.
    Same,
    /// The domain and a line break.
    Longer,
    /// The domain with the manufacturer set.
    Edited,
    /// The domain with the interface of a network binding.
    Bound,
    /// Anything.
    Any,
}

impl Documents {
    /// A domain of exactly `bytes`, and the VMI.
    pub fn of_size(bytes: usize) -> Result<Self> {
        Self::padded(DOMAIN, VMI, bytes)
    }

    /// Those of a VM with a network binding, with a domain of exactly `bytes`.
    pub fn with_binding(bytes: usize) -> Result<Self> {
        Self::padded(BOUND_DOMAIN, BOUND_VMI, bytes)
    }

    fn padded(domain: &str, vmi: &str, bytes: usize) -> Result<Self> {
        let (head, tail) = domain.split_once(DEVICES_END).unwrap_or((domain, ""));
        ensure!(!tail.is_empty(), "the sample domain has no devices");
        let mut domain = head.to_owned();
        let rest = DEVICES_END.len() + tail.len();
        let mut number = 0;
        // The last disk is padded to the exact length.
        while domain.len() + rest + 2 * disk(number, 0).len() <= bytes {
            domain.push_str(&disk(number, 0));
            number += 1;
        }
        let left = bytes.checked_sub(domain.len() + rest + disk(number, 0).len());
        let Some(left) = left else {
            anyhow::bail!("a domain of {bytes} bytes is shorter than the sample with one more disk")
        };
        domain.push_str(&disk(number, left));
        domain.push_str(DEVICES_END);
        domain.push_str(tail);
        ensure!(domain.len() == bytes, "the domain has {} bytes, not {bytes}", domain.len());
        // KubeVirt sends no white space between the tokens.
        let vmi: Value = serde_json::from_str(vmi).context("the sample VMI is not JSON")?;
        Ok(Self { vmi: Bytes::from(vmi.to_string()), domain: Bytes::from(domain) })
    }

    /// Checks an answer: all of it if `thorough`, else the length, which takes no time between the
    /// calls of a measurement.
    pub fn check(&self, answer: &[u8], expected: Expected, thorough: bool) -> Result<()> {
        match expected {
            Expected::Any => {}
            Expected::Same => {
                ensure!(answer.len() == self.domain.len(), "{} bytes came back", answer.len());
                ensure!(!thorough || answer == self.domain, "another document came back");
            }
            Expected::Longer => {
                let text = answer.strip_suffix(b"\n").unwrap_or_default();
                return self.check(text, Expected::Same, thorough);
            }
            Expected::Edited | Expected::Bound => {
                // A library may write `<a></a>` as `<a/>`.
                ensure!(answer.len() > self.domain.len() / 2, "{} bytes came back", answer.len());
                let text = if thorough { std::str::from_utf8(answer)? } else { return Ok(()) };
                let edits = if expected == Expected::Bound { &BINDING[..] } else { &[EDIT] };
                let is_edited = edits.iter().all(|edit| text.contains(edit));
                ensure!(is_edited, "the domain came back without the edit");
                let disks = |text: &str| text.matches("<disk ").count();
                let sent = disks(std::str::from_utf8(&self.domain)?);
                ensure!(disks(text) == sent, "{} of {sent} disks came back", disks(text));
            }
        }
        Ok(())
    }
}

/// The sample VMI with this name and exactly this length, as an annotation makes it longer.
pub fn vmi_of_size(name: &str, bytes: usize) -> Result<Bytes> {
    let mut vmi: Value = serde_json::from_str(VMI).context("the sample VMI is not JSON")?;
    vmi["metadata"]["name"] = name.into();
    vmi["metadata"]["annotations"]["padding"] = "".into();
    let padding = bytes.checked_sub(vmi.to_string().len());
    let padding = padding.with_context(|| format!("a VMI is longer than {bytes} bytes"))?;
    vmi["metadata"]["annotations"]["padding"] = "x".repeat(padding).into();
    Ok(Bytes::from(vmi.to_string()))
}

/// A disk, as KubeVirt writes one, whose serial number has `padding` digits more.
fn disk(number: usize, padding: usize) -> String {
    let mut serial = String::new();
    let _ = write!(serial, "{number:06}");
    serial.extend(std::iter::repeat_n('0', padding));
    format!(
        "\t\t<disk device=\"disk\" type=\"block\" model=\"virtio-non-transitional\">\n\
         \t\t\t<source dev=\"/dev/volume-{number:06}\"></source>\n\
         \t\t\t<target bus=\"virtio\" dev=\"vd-{number:06}\"></target>\n\
         \t\t\t<serial>{serial}</serial>\n\
         \t\t\t<driver cache=\"none\" error_policy=\"stop\" name=\"qemu\" type=\"raw\"></driver>\n\
         \t\t\t<alias name=\"ua-volume-{number:06}\"></alias>\n\
         \t\t</disk>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_have_the_size_that_was_asked_for() {
        for bytes in [4_000, 4_001, 8_000, 128_000, 1_000_000] {
            let documents = Documents::of_size(bytes).unwrap();
            assert_eq!(documents.domain.len(), bytes);
            assert!(documents.check(&documents.domain, Expected::Same, true).is_ok());
            assert!(documents.check(&documents.domain, Expected::Edited, true).is_err());
        }
        let bound = Documents::with_binding(8_000).unwrap();
        assert_eq!(bound.domain.len(), 8_000);
        assert!(bound.check(&bound.domain, Expected::Bound, true).is_err());
        assert!(Documents::of_size(3_000).is_err());
    }

    #[test]
    fn vmis_have_the_size_and_the_name_that_were_asked_for() {
        for bytes in [8_000, 1_000_000] {
            let vmi = vmi_of_size("7", bytes).unwrap();
            assert_eq!(vmi.len(), bytes);
            let vmi: Value = serde_json::from_slice(&vmi).unwrap();
            assert_eq!(vmi["metadata"]["name"], "7");
        }
        assert!(vmi_of_size("7", 100).is_err());
    }

    #[test]
    fn a_vmi_is_in_the_order_in_which_kubevirt_writes_it() {
        let documents = Documents::of_size(8_000).unwrap();
        for vmi in [documents.vmi, vmi_of_size("vm", 8_000).unwrap()] {
            let vmi = String::from_utf8(vmi.to_vec()).unwrap();
            let at = |name: &str| vmi.find(&format!("\"{name}\":")).unwrap();
            let names = ["kind", "metadata", "name", "namespace", "uid", "annotations", "spec"];
            assert!(names.map(at).is_sorted(), "{vmi}");
        }
    }

    #[test]
    fn a_shorter_answer_and_another_one_are_not_taken() {
        let documents = Documents::of_size(4_000).unwrap();
        assert!(documents.check(b"<domain/>", Expected::Same, false).is_err());
        assert!(documents.check(b"<domain/>", Expected::Edited, false).is_err());
        let other = String::from_utf8(documents.domain.to_vec()).unwrap().replace("vda", "vdx");
        assert!(documents.check(other.as_bytes(), Expected::Same, true).is_err());
        let longer = [&documents.domain[..], b"\n"].concat();
        assert!(documents.check(&longer, Expected::Longer, true).is_ok());
        assert!(documents.check(&documents.domain, Expected::Longer, true).is_err());
    }
}
