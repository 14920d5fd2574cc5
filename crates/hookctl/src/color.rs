//! When output is coloured.

use std::io::IsTerminal;

use clap::ColorChoice;

/// Whether a stream's output is coloured: automatically on a terminal, unless `NO_COLOR` is set.
pub(crate) fn is_on(choice: ColorChoice, stream: &impl IsTerminal) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    }
}
