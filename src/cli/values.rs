//! Values of options: times, sizes, permissions, names of hooks.

use std::time::Duration;

use crate::error::StartError;
use crate::hook::HookName;
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
