//! The error of a hook: any error, with its type and the place where it came up.

use std::any::{type_name, Any};
use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write;
use std::io;
use std::panic::Location;

use crate::error::{InvalidParams, Refused};

/// The error of a hook. `?` makes it of any error, of texts and of `anyhow::Error`, and notes the
/// error's type and the line of the `?`, which the log has if it is a fault.
///
/// ```
/// # use kubevirt_hook::Result;
/// fn rack() -> Result<String> {
///     Ok(std::fs::read_to_string("/run/no-such-rack")?)
/// }
/// # assert!(rack().unwrap_err().is::<std::io::Error>());
/// # assert!(format!("{:?}", rack().unwrap_err()).contains("std::io::error::Error at "));
/// ```
///
/// Like `anyhow::Error`, it implements no `std::error::Error`, which would be ambiguous for `?`.
pub struct Error(Box<Inner>);

struct Inner {
    error: Box<dyn StdError + Send + Sync>,
    type_name: &'static str,
    location: &'static Location<'static>,
    verdict: Verdict,
    /// The backtrace that an `anyhow::Error` may have.
    backtrace: Option<String>,
}

/// What the caller of the hook gets.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Refused(Refused),
    InvalidParams(InvalidParams),
    Fault,
}

impl Verdict {
    /// Looks at one error, and not at its sources.
    fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Some(Self::Refused(refused.clone()));
        }
        #[cfg(feature = "xml")]
        if let Some(error) = error.downcast_ref::<crate::xml::ParseError>() {
            return Some(Self::InvalidParams(error.clone().into()));
        }
        error.downcast_ref::<InvalidParams>().cloned().map(Self::InvalidParams)
    }
}

impl<E> From<E> for Error
where
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    #[track_caller]
    fn from(error: E) -> Self {
        let (of_anyhow, backtrace) = of_anyhow(&error);
        let error = error.into();
        let found = || chain(&*error).find_map(Verdict::of);
        let verdict = of_anyhow.or_else(found).unwrap_or(Verdict::Fault);
        let (type_name, location) = (type_name::<E>(), Location::caller());
        Self(Box::new(Inner { error, type_name, location, verdict, backtrace }))
    }
}

/// Looks into an `anyhow::Error`, which hides its contents once it is boxed.
#[cfg(feature = "anyhow")]
fn of_anyhow(error: &dyn Any) -> (Option<Verdict>, Option<String>) {
    let Some(error) = error.downcast_ref::<anyhow::Error>() else { return (None, None) };
    let refused = error.downcast_ref().cloned().map(Verdict::Refused);
    let invalid = || error.downcast_ref().cloned().map(Verdict::InvalidParams);
    let found = || error.chain().find_map(Verdict::of);
    let backtrace = error.backtrace();
    let is_captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    (refused.or_else(invalid).or_else(found), is_captured.then(|| backtrace.to_string()))
}

#[cfg(not(feature = "anyhow"))]
fn of_anyhow(_: &dyn Any) -> (Option<Verdict>, Option<String>) {
    (None, None)
}

/// Maximum number of errors that are followed from one to its source. Some have themselves as one.
const MAX_SOURCES: usize = 64;

/// Returns an error and its sources.
fn chain<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
    .take(MAX_SOURCES)
}

impl Error {
    /// Returns the refusal, if there is one in this error or behind it.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        match &self.0.verdict {
            Verdict::Refused(refused) => Some(refused),
            _ => None,
        }
    }

    /// Returns the first error of a type, among this one and its sources.
    #[must_use]
    pub fn downcast_ref<T: StdError + 'static>(&self) -> Option<&T> {
        chain(&*self.0.error).find_map(|error| error.downcast_ref())
    }

    /// Whether this error or one of its sources is of a type.
    #[must_use]
    pub fn is<T: StdError + 'static>(&self) -> bool {
        self.downcast_ref::<T>().is_some()
    }

    pub(crate) fn verdict(&self) -> &Verdict {
        &self.0.verdict
    }

    /// Describes the error without its words, which may quote a document.
    pub(crate) fn described(&self) -> String {
        let Inner { error, type_name, location, backtrace, .. } = &*self.0;
        let mut text = format!("{type_name} at {location}");
        if let Some(known) = known(&**error) {
            let _ = write!(text, " ({known})");
        }
        for source in chain(&**error).skip(1) {
            let known = known(source).unwrap_or_else(|| "another error".to_owned());
            let _ = write!(text, ", caused by {known}");
        }
        if let Some(backtrace) = backtrace {
            let _ = write!(text, "\n{backtrace}");
        }
        text
    }

    /// Returns the description if there is more to say of a refusal than its own message.
    pub(crate) fn behind_refusal(&self) -> Option<String> {
        let is_alone = self.0.error.is::<Refused>() && self.0.error.source().is_none();
        (!is_alone).then(|| self.described())
    }

    /// Returns the words of the error and of its sources in one line.
    pub(crate) fn words(&self) -> String {
        let words: Vec<_> = chain(&*self.0.error).map(ToString::to_string).collect();
        words.join(": ")
    }
}

/// Describes errors of types that are common, and those of this crate.
fn known(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(match error.raw_os_error() {
            Some(number) => format!("std::io::Error {:?}, errno {number}", error.kind()),
            None => format!("std::io::Error {:?}", error.kind()),
        });
    }
    if let Some(error) = error.downcast_ref::<serde_json::Error>() {
        let (line, column) = (error.line(), error.column());
        let kind = error.classify();
        return Some(format!("serde_json::Error {kind:?}, line {line}, column {column}"));
    }
    if let Some(error) = error.downcast_ref::<crate::cloud_init::InvalidPart>() {
        return Some(error.to_string()); // one of a few texts
    }
    #[cfg(feature = "xml")]
    if let Some(error) = error.downcast_ref::<crate::xml::EditError>() {
        return Some(error.harmless().to_owned());
    }
    #[cfg(feature = "xml")]
    if let Some(error) = error.downcast_ref::<crate::xml::InvalidPath>() {
        return Some(error.harmless().to_owned());
    }
    let names = [
        (error.is::<Refused>(), type_name::<Refused>()),
        (error.is::<InvalidParams>(), type_name::<InvalidParams>()),
        (error.is::<std::num::ParseIntError>(), "std::num::ParseIntError"),
        (error.is::<std::str::Utf8Error>(), "std::str::Utf8Error"),
        (error.is::<fmt::Error>(), "std::fmt::Error"),
    ];
    names.iter().find(|(is_it, _)| *is_it).map(|(_, name)| (*name).to_owned())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.error.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.described(), self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;

    /// An error that has another one as its source.
    #[derive(Debug)]
    struct Wrapper(Refused);

    impl fmt::Display for Wrapper {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl StdError for Wrapper {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_refusal_is_found_wherever_it_is() {
        let refused = || Refused::new("disk a is not allowed");
        let boxed: Box<dyn StdError + Send + Sync> = Wrapper(refused()).into();
        let errors: [Error; 3] = [refused().into(), Wrapper(refused()).into(), boxed.into()];
        for error in errors {
            let found = error.refused().map(ToString::to_string);
            assert_eq!(found.as_deref(), Some("disk a is not allowed"), "{error:?}");
        }
        assert!(Error::from("disk a is not allowed").refused().is_none());
    }

    #[cfg(feature = "anyhow")]
    #[test]
    fn anyhow_hides_no_refusal() {
        use anyhow::Context;
        fn inner(context: bool) -> anyhow::Result<()> {
            let refused = Err(Refused::new("disk a is not allowed").retryable());
            if context {
                refused.context("while it looked at disks")
            } else {
                Ok(refused?)
            }
        }
        fn invalid() -> anyhow::Result<()> {
            Err(InvalidParams::new("no domain"))?
        }
        for context in [false, true] {
            let hook = || -> Result<()> { Ok(inner(context)?) };
            let error = hook().unwrap_err();
            assert_eq!(error.refused().unwrap().to_string(), "disk a is not allowed");
        }
        let as_context = anyhow::anyhow!("cause").context(Refused::new("refused"));
        assert_eq!(Error::from(as_context).refused().unwrap().to_string(), "refused");
        let error = Error::from(invalid().unwrap_err());
        assert!(matches!(error.verdict(), Verdict::InvalidParams(_)));
    }

    #[test]
    fn a_description_has_type_and_place_and_no_words() {
        let hook = || -> Result<()> { Err(io::Error::other("<secret/>"))? };
        let error = hook().unwrap_err();
        let described = error.described();
        assert!(described.starts_with("std::io::error::Error at "), "{described}");
        assert!(described.contains("fault.rs:") && described.contains("Other"), "{described}");
        assert!(!described.contains("secret") && error.words().contains("<secret/>"));
        let caused = Refused::new("no").caused_by(io::Error::from(io::ErrorKind::NotFound));
        assert!(Error::from(caused).behind_refusal().unwrap().contains("NotFound"));
        assert!(Error::from(Refused::new("no")).behind_refusal().is_none());
    }

    #[test]
    fn errors_of_this_crate_say_why_but_quote_nothing_from_outside() {
        let part = || -> Result<()> { Ok(crate::cloud_init::Part::new("a", "secret").map(drop)?) };
        let described = part().unwrap_err().described();
        assert!(described.ends_with(')') && described.contains("(the content of a part starts"));
        assert!(!described.contains("secret"), "{described}");
    }

    #[cfg(feature = "xml")]
    #[test]
    fn errors_of_edits_say_why_but_quote_nothing_from_outside() {
        use crate::xml::{Document, Element};
        type Edit = fn(&Document, Element<'_>) -> Result<()>;
        let edits: [(Edit, &str); 7] = [
            (|doc, _| Ok(doc.ensure("secret[2]").map(drop)?), "(character 8: \"@\" expected)"),
            (
                |doc, _| Ok(doc.find("secret/").map(drop)?),
                "(character 8: a name or \"*\" expected)",
            ),
            (
                |doc, _| Ok(doc.find(("a[@b='secret'][@c=?]", ["1", "2"])).map(drop)?),
                "(\"?\" stands in it 1 times, and 2 values came)",
            ),
            (
                |doc, _| Ok(doc.find("app:a[@b='secret']").map(drop)?),
                "(the prefix \"app\" is unknown: name its namespace with Document::namespace)",
            ),
            (
                |doc, _| Ok(doc.namespace("app", "")?),
                "(its namespace is empty, or XML cannot hold it)",
            ),
            (
                |_, root| Ok(root.set_text("secret\0").map(drop)?),
                "XML cannot hold the character U+0000)",
            ),
            (|_, root| Ok(root.remove()?), "(the root cannot be removed)"),
        ];
        for (edit, why) in edits {
            let doc = Document::parse("<domain/>").unwrap();
            let described = edit(&doc, doc.root()).unwrap_err().described();
            assert!(described.ends_with(why), "{described}");
            assert!(!described.contains("secret"), "{described}");
        }
    }
}
