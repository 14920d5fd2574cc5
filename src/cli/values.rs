//! Values of options: times, sizes, permissions, names of hooks.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::error::StartError;
use crate::hook::HookName;
use crate::metrics::Address;
use crate::server::SocketMode;

/// Maximum time that an option accepts: longer than any sensible wait, and far from the end of the
/// clock.
const LONGEST_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

pub fn usage(text: impl Into<String>) -> StartError {
    StartError::Usage(text.into())
}

/// Returns a size as the number of bytes that memory can have.
pub(super) fn saturating(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

pub fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() {
        return Err("must be greater than zero".to_owned());
    }
    if time > LONGEST_TIME {
        let longest = humantime::format_duration(LONGEST_TIME);
        return Err(format!("must not be longer than {longest}"));
    }
    Ok(time)
}

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let size = text
        .parse::<bytesize::ByteSize>()
        .map_err(|_| "not a size: sizes are written 64MiB, 1GiB".to_owned())?
        .as_u64();
    if size == 0 {
        return Err("must be greater than zero".to_owned());
    }
    Ok(size)
}

pub(super) fn parse_socket_mode(text: &str) -> Result<SocketMode, String> {
    SocketMode::parse(text)
        .ok_or_else(|| "not permissions: those are octal digits, such as 0660".to_owned())
}

/// Returns the parser for where metrics are served.
pub(super) fn metrics_parser() -> impl TypedValueParser<Value = Address> {
    OsStringValueParser::new().try_map(|text: OsString| parse_metrics(&text))
}

fn parse_metrics(text: &OsStr) -> Result<Address, String> {
    if scheme_of(text.as_bytes()).is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix")) {
        return parse_socket(text).map(Address::Unix);
    }
    let address = text.to_str().and_then(|text| text.parse().ok()).map(Address::Tcp);
    address.ok_or_else(|| {
        "is not an address: write IP:PORT, such as 0.0.0.0:9105 or [::1]:9105, or unix:PATH"
            .to_owned()
    })
}

/// Returns the parser for the path of a Unix socket. gRPC clients write it as `unix:PATH` or
/// `unix:///PATH`, and so may the shim's options.
#[must_use]
pub fn socket_parser() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text: OsString| parse_socket(&text))
}

fn parse_socket(text: &OsStr) -> Result<PathBuf, String> {
    const UNIX: &str = "unix";
    let bytes = text.as_bytes();
    let (scheme, rest) = match scheme_of(bytes) {
        Some(scheme) => (Some(scheme), bytes.get(scheme.len() + 1..).unwrap_or_default()),
        None => (None, bytes),
    };
    let path = match scheme {
        None => rest,
        Some(unix) if unix.eq_ignore_ascii_case(UNIX) => match rest.strip_prefix(b"//") {
            Some(path) if path.starts_with(b"/") => path,
            Some(_) => {
                return Err("has a host name: write unix:///PATH, or unix:PATH".to_owned());
            }
            None => rest,
        },
        Some(other) => {
            return Err(format!(
                "the scheme {other:?} is not supported: write PATH, unix:PATH or unix:///PATH (for \
                 a file of that name, ./{other}:…)"
            ));
        }
    };
    match path.first() {
        None => Err("is empty: it must be a path".to_owned()),
        Some(b'@') => Err("abstract sockets (@name) are not supported, because KubeVirt connects \
                           to files: write a path (for a file of that name, ./@name)"
            .to_owned()),
        Some(_) => Ok(PathBuf::from(OsStr::from_bytes(path))),
    }
}

/// Returns the scheme of a URI, which begins with a letter. A path with a colon behind its first
/// slash has none.
fn scheme_of(text: &[u8]) -> Option<&str> {
    let colon = memchr::memchr(b':', text)?;
    let scheme = std::str::from_utf8(text.get(..colon)?).ok()?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte));
    is_scheme.then_some(scheme)
}

/// Values separated by commas. As with every option the last one wins; an empty one undoes an
/// earlier one.
#[derive(Clone, Default)]
pub(super) struct List<T>(pub(super) Vec<T>);

fn parse_list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<List<T>, String> {
    let words = text.split(',').filter(|_| !text.is_empty());
    words.map(|word| parse(word.trim())).collect::<Result<_, _>>().map(List)
}

/// Parses names of hook points (`PreVMStart`) or of their hooks (`preVMStart`).
pub(super) fn parse_node_hooks(text: &str) -> Result<List<HookName>, String> {
    parse_list(text, |word| {
        HookName::of_node_hook_point(word)
            .ok_or_else(|| format!("{word:?} is not a node hook: write it like preVMStart"))
    })
}

/// Parses user ids. An empty list is rejected: it would allow everyone, which cannot be intended.
pub(super) fn parse_uids(text: &str) -> Result<List<u32>, String> {
    if text.is_empty() {
        return Err("names no user; without the option, the permissions decide".to_owned());
    }
    parse_list(text, |word| {
        word.parse().map_err(|_| format!("{word:?} is not a user id, such as 107"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_served_at_an_address_or_a_socket() {
        let parse = |text: &str| parse_metrics(text.as_ref());
        for address in ["127.0.0.1:9105", "[::1]:0", "0.0.0.0:1"] {
            assert_eq!(parse(address), Ok(Address::Tcp(address.parse().unwrap())));
        }
        for unix in ["unix:/run/m.sock", "unix:///run/m.sock"] {
            assert_eq!(parse(unix), Ok(Address::Unix("/run/m.sock".into())));
        }
        for text in ["", ":9105", "9105", "localhost:9105", "http://127.0.0.1:9105", "/run/m.sock"]
        {
            assert!(parse(text).unwrap_err().contains("write IP:PORT"), "{text}");
        }
        assert!(parse("unix:@m").unwrap_err().contains("abstract sockets"));
    }

    #[test]
    fn a_socket_is_a_path_or_a_uri_of_the_scheme_unix() {
        let parse = |text: &'static [u8]| parse_socket(OsStr::from_bytes(text));
        for (text, path) in [
            (&b"a.sock"[..], &b"a.sock"[..]),
            (b"/run/a:b.sock", b"/run/a:b.sock"),
            (b"./tcp:a", b"./tcp:a"),
            (b"./@a", b"./@a"),
            (b"8:a", b"8:a"),
            (b"/\xff", b"/\xff"),
            (b"unix:a.sock", b"a.sock"),
            (b"unix:/run/a.sock", b"/run/a.sock"),
            (b"unix:///run/a.sock", b"/run/a.sock"),
            (b"UNIX:///run/\xff", b"/run/\xff"),
        ] {
            assert_eq!(parse(text).unwrap().as_os_str().as_bytes(), path);
        }
        for (text, expected) in [
            (&b"@name"[..], "abstract sockets (@name) are not supported"),
            (b"unix:@name", "abstract sockets (@name) are not supported"),
            (b"unix-abstract:name", "the scheme \"unix-abstract\" is not supported"),
            (b"tcp:127.0.0.1:80", "the scheme \"tcp\" is not supported"),
            (b"http://[::1]/", "the scheme \"http\" is not supported"),
            (b"vsock:2:1", "./vsock:…"),
            (b"unix://run/a.sock", "has a host name: write unix:///PATH"),
            (b"unix://", "has a host name: write unix:///PATH"),
            (b"unix:", "is empty"),
            (b"", "is empty"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
