//! `docs/cases.md` shows what happens.

use tokio::process::Command;

use super::run;
use crate::hookctl;
use crate::support::{file, read};

/// The blocks of code of the page, with their languages.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    page.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap()).collect()
}

/// Replaces what differs from run to run: times.
fn masked(text: &str) -> String {
    let lines = text.lines().map(|line| match line.rsplit_once([' ', '(']) {
        Some((rest, "ms)" | "s")) => rest.trim_end_matches(|c: char| "0123456789. (".contains(c)),
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_first_examples_print_what_the_page_shows() {
    let page = read("docs/cases.md");
    let blocks = blocks(&page);
    for (at, status) in [(0, 0), (2, 1)] {
        let [("sh", command), (_, shown)] = blocks[at..at + 2] else { panic!("{:?}", blocks[at]) };
        let words = shlex::split(command.strip_prefix("hookctl ").unwrap()).unwrap();
        let mut hookctl = Command::new(hookctl());
        hookctl.args(words).current_dir(file("."));
        let tested = run(hookctl).await;
        assert_eq!(tested.status, Some(status), "{}", tested.stderr);
        assert_eq!(masked(&tested.stdout), masked(shown));
    }
}
