//! The help of a program, as a user reads it.

use std::path::Path;
use std::process::Command;

/// Maximum number of words in the help of an option, without its values and its default.
const MAX_WORDS: usize = 8;

fn help(program: &Path, command: &[String]) -> String {
    let output = Command::new(program).args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the lines of a section, without its heading.
fn section<'a>(text: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    let rest = text.split_once(&format!("\n{heading}:\n")).map_or("", |(_, rest)| rest);
    rest.lines().take_while(|line| line.starts_with(' '))
}

/// Returns each option with its help in one line.
fn options(text: &str) -> Vec<(String, String)> {
    let mut options: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let entry = line.trim_start();
        let indent = line.len() - entry.len();
        if matches!(indent, 2..=6) && entry.starts_with('-') {
            let (name, about) = entry.split_once("  ").unwrap_or((entry, ""));
            options.push((name.to_owned(), about.trim().to_owned()));
        } else if let Some((_, about)) = options.last_mut().filter(|_| indent > 6) {
            *about = format!("{about} {entry}");
        }
    }
    options
}

/// Returns the help without the values after a colon, and without what is in brackets.
fn noun_phrase(about: &str) -> String {
    let phrase = about.split_once(": ").map_or(about, |(phrase, _)| phrase);
    let outside = |text: &str, open: char| text.split(open).next().unwrap().to_owned();
    outside(&outside(phrase, '['), '(')
}

/// Returns the options of a program and its commands whose help is longer than a glance.
pub fn wordy_options(program: &Path) -> Vec<String> {
    let mut wordy = Vec::new();
    let mut commands = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let text = help(program, &command);
        for line in section(&text, "Commands").filter(|line| !line.starts_with("   ")) {
            let name = line.split_whitespace().next().unwrap().to_owned();
            commands.push(command.iter().cloned().chain([name]).collect());
        }
        for (name, about) in options(&text) {
            seen += 1;
            if noun_phrase(&about).split_whitespace().count() > MAX_WORDS {
                wordy.push(format!("{} {name}: {about}", command.join(" ")));
            }
        }
    }
    assert!(seen > 20, "the help has no options that this test can read");
    wordy
}
