//! The lines of a hook's message.

use super::looks::{begins_secret, looks_secret};

/// Returns the lines that do not look secret. If one does and the secret may go on below it, the
/// rest is left out, too.
pub(super) fn lines(message: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in message.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !looks_secret(line) {
            lines.push(line.to_owned());
        } else if begins_secret(line) || !line.ends_with(char::is_alphanumeric) {
            break;
        }
    }
    lines
}
