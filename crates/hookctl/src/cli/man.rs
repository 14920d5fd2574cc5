//! Man pages and shell completions of both programs, out of the definitions of their command lines.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::help::EXAMPLES;

/// The section for programs.
const SECTION: &str = "1";

/// The variable for a date that does not change from one build to the next.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Writes the page of each command of both programs into a directory.
pub(crate) fn write(directory: &Path) -> io::Result<()> {
    let programs = [super::command(false), sidecar_shim::cli::command(false)];
    let written = std::fs::create_dir_all(directory).and_then(|()| {
        programs.into_iter().try_for_each(|mut command| {
            command.build();
            write_pages(&command, directory, &date())
        })
    });
    written.map_err(|error| {
        io::Error::other(format!("cannot write man pages to {}: {error}", directory.display()))
    })
}

fn write_pages(command: &clap::Command, directory: &Path, date: &str) -> io::Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_pages(sub, directory, date)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    std::fs::write(directory.join(format!("{name}.{SECTION}")), page(command, date)?)
}

/// Returns a page: what `clap_mangen` makes of the options, and the rest of the help.
fn page(command: &clap::Command, date: &str) -> io::Result<Vec<u8>> {
    // Of the options it would name each, without their values.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let man = Man::new(command.clone().override_usage(usage))
        .title(name.to_uppercase())
        .section(SECTION)
        .date(date)
        .source(concat!("sidecar-shim ", env!("CARGO_PKG_VERSION")))
        .manual("KubeVirt hooks");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (notes, examples) = after.split_once(EXAMPLES).unwrap_or((&after, ""));
    let mut rest = Roff::default();
    if !notes.trim().is_empty() {
        rest.control("SH", ["NOTES"]);
        rest.text([roman(notes.trim())]);
    }
    if !examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
        rest.control("nf", []);
        rest.text([roman(examples.trim_matches('\n'))]);
        rest.control("fi", []);
    }
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// Returns today, or the day that the build is made for.
fn date() -> String {
    let seconds = std::env::var(EPOCH).ok().and_then(|text| text.parse().ok());
    let day = seconds.map_or_else(SystemTime::now, |seconds| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    let date = humantime::format_rfc3339_seconds(day).to_string();
    date.split('T').next().unwrap_or_default().to_owned()
}

/// Returns the script that lets a shell complete hookctl's command line.
pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(false), "hookctl", &mut script);
    script
}
