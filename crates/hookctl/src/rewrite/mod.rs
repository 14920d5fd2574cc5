//! A hook's result as it comes back. KubeVirt never sends a domain on as a hook wrote it: it reads
//! the domain into its types, and writes those. So elements have other prefixes, and what the types
//! have no field for is gone.
//!
//! - To the next Plugin, in the same round of hooks: prefixes of libvirt's namespaces are gone
//!   (`<qemu:arg>` is `<arg>` in `<commandline xmlns="…">`), the root declares nothing, `metadata`
//!   is verbatim, the indentation is two spaces.
//! - To the same Plugin, in the next round: of the elements with a namespace only QEMU's command
//!   line is left, written in the same way, and in `metadata`, without white space, KubeVirt's own.
//! - To the same sidecar, in the next round: the same elements are left. The command line has the
//!   prefix `qemu`, which the root then declares. The indentation is a tab.
//!
//! In all of them a domain has at most one QEMU command line; comments, elements in foreign
//! namespaces or with an undeclared prefix, and attributes with any prefix are gone; empty elements
//! have two tags, and quotes, tabs and line breaks are numeric references. (In truth a foreign
//! element stays if libvirt has one of that name.)
//!
//! [`NOT_MODELLED`] says what differs from the real thing. `.ci/kubevirt` compares the two.

#[cfg(test)]
mod tests;
mod writer;

use bytes::Bytes;
use quick_xml::NsReader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use quick_xml::name::ResolveResult;
use sidecar_shim::service::Api;

use self::writer::Writer;

/// What KubeVirt does and the model does not.
pub(crate) const NOT_MODELLED: &str =
    "the order of elements, fields that KubeVirt's types lack, and empty elements that they add";

/// How libvirt's namespaces for drivers begin.
const LIBVIRT: &str = "http://libvirt.org/schemas/domain/";

/// The namespace of QEMU's command line.
pub(crate) const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// The namespace of KubeVirt's own metadata.
pub(crate) const KUBEVIRT: &str = "http://kubevirt.io";

/// The hook that gets a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// The next Plugin's, in the same round of hooks.
    NextPlugin,
    /// The same one of a Plugin, in the next round of the same boot.
    SamePlugin,
    /// The same one of a sidecar, in the next round.
    SameSidecar,
}

impl Receiver {
    /// Returns the hook itself.
    pub(crate) fn same(api: Api) -> Self {
        match api {
            Api::Legacy(_) => Self::SameSidecar,
            Api::Plugins => Self::SamePlugin,
        }
    }

    /// Rewrites a domain. Returns `None` for one that cannot be parsed.
    pub(crate) fn rewrite_document(self, domain: &[u8]) -> Option<Bytes> {
        str::from_utf8(domain).ok().and_then(|domain| self.rewrite(domain)).map(Bytes::from)
    }

    /// Rewrites a domain's text.
    pub(crate) fn rewrite(self, domain: &str) -> Option<String> {
        let domain = domain.strip_prefix('\u{feff}').unwrap_or(domain);
        let mut reader = NsReader::from_str(domain);
        reader.config_mut().expand_empty_elements = true;
        let mut writer = Writer::new(self);
        // Elements in the root's namespace count as libvirt's.
        let mut roots = None;
        loop {
            let (namespace, event) = reader.read_resolved_event().ok()?;
            let namespace = owned(&namespace);
            match event {
                Event::Start(tag) => {
                    roots.get_or_insert_with(|| namespace.clone());
                    let namespace = if Some(&namespace) == roots.as_ref() {
                        Some(String::new())
                    } else {
                        namespace
                    };
                    match self.fate(&writer, namespace, tag.local_name().as_ref()) {
                        Fate::Dropped => {
                            reader.read_to_end(tag.name()).ok()?;
                        }
                        Fate::Kept(namespace) => writer.start(&tag, namespace)?,
                        Fate::Verbatim => {
                            writer.start(&tag, String::new())?;
                            let content = reader.read_to_end(tag.name()).ok()?;
                            let range = usize::try_from(content.start).ok()?
                                ..usize::try_from(content.end).ok()?;
                            writer.verbatim(domain.get(range)?);
                            writer.end()?;
                        }
                        Fate::CommandLine => self.collect_command_line(&mut reader, &mut writer)?,
                    }
                }
                Event::End(_) => writer.end()?,
                Event::Text(piece) => writer.text(&piece.xml10_content()),
                Event::CData(piece) => writer.text(&piece.xml10_content()),
                Event::GeneralRef(reference) => match reference.resolve_char_ref().ok()? {
                    Some(character) => writer.text(character.encode_utf8(&mut [0; 4])),
                    None => writer.text(resolve_predefined_entity(&reference)?),
                },
                Event::Empty(_) | Event::Comment(_) | Event::PI(_) | Event::Decl(_) => {}
                Event::DocType(_) => return None,
                Event::Eof => return writer.finish(),
            }
        }
    }

    /// Decides about an element by its place and name. `namespace` is `None` if its prefix is not
    /// declared.
    fn fate(self, writer: &Writer, namespace: Option<String>, name: &str) -> Fate {
        let Some(namespace) = namespace else { return Fate::Dropped };
        match writer.depth() {
            1 if namespace == QEMU && name == "commandline" => Fate::CommandLine,
            1 if namespace.is_empty() && name == "metadata" && self == Self::NextPlugin => {
                Fate::Verbatim
            }
            2 if writer.is_in_metadata() => {
                if namespace == KUBEVIRT && name == "kubevirt" {
                    Fate::Kept(namespace)
                } else {
                    Fate::Dropped
                }
            }
            // KubeVirt compares the name alone here.
            _ if writer.is_in_metadata() => Fate::Kept(KUBEVIRT.to_owned()),
            _ if namespace.is_empty() => Fate::Kept(namespace),
            _ if self == Self::NextPlugin && namespace.starts_with(LIBVIRT) => {
                Fate::Kept(namespace)
            }
            _ => Fate::Dropped,
        }
    }

    /// Reads a QEMU command line up to its end tag.
    fn collect_command_line(self, reader: &mut NsReader<&[u8]>, writer: &mut Writer) -> Option<()> {
        writer.command_line.get_or_insert_default();
        loop {
            match reader.read_resolved_event().ok()? {
                (namespace, Event::Start(tag)) => {
                    let name = tag.local_name();
                    let is_known = matches!(name.as_ref(), "arg" | "env");
                    // The types of the Plugins API compare the name alone here.
                    let is_plugin = self != Self::SameSidecar;
                    if is_known && (is_plugin || owned(&namespace).as_deref() == Some(QEMU)) {
                        writer.command_line.get_or_insert_default().push(Writer::item(&tag)?);
                    }
                    reader.read_to_end(tag.name()).ok()?;
                }
                (_, Event::End(_)) => return Some(()),
                (_, Event::Eof) => return None,
                _ => {}
            }
        }
    }
}

/// What becomes of an element.
enum Fate {
    Dropped,
    /// Written in this namespace. Its content is decided about separately.
    Kept(String),
    /// Written with its content as it is.
    Verbatim,
    /// Added to the domain's one QEMU command line.
    CommandLine,
}

fn owned(namespace: &ResolveResult<'_>) -> Option<String> {
    match namespace {
        ResolveResult::Bound(namespace) => Some(namespace.0.to_owned()),
        ResolveResult::Unbound => Some(String::new()),
        ResolveResult::Unknown(_) => None,
    }
}
