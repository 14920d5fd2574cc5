//! Results as tables for people, and the page that holds them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::load::Connection;
use crate::measure::ORDINARY_BYTES;
use crate::results::{Cell, Results};
use crate::targets::{self, Bound};

const MIB: f64 = 1024.0 * 1024.0;

/// A table, and the mark by which a page names it.
pub struct Table {
    pub name: &'static str,
    pub text: String,
}

/// All tables of these results.
pub fn tables(results: &Results) -> Vec<Table> {
    let table = |name, text| Table { name, text };
    let mut tables = vec![
        table("machine", machine(results)),
        table("ordinary", ordinary(results)),
        table("sizes-dialled", sizes(results, Connection::Dialled)),
        table("clients", clients(results)),
        table("stages", stages(results)),
        table("targets", targets(results)),
    ];
    if results.cells.iter().any(|cell| cell.connection == Connection::Kept) {
        tables.push(table("sizes-kept", sizes(results, Connection::Kept)));
    }
    tables
}

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "{}, {} cores, Linux {}, {}; {} rounds of {} ms; load average before: {:.2}\n",
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.python,
        results.settings.rounds,
        results.settings.round_ms,
        machine.load_before
    );
    if results.settings.cpus_apart {
        text += "One client and its server have a CPU each; several clients and their server have all.\n";
    }
    for skipped in &results.skipped {
        let _ = writeln!(text, "left out: {skipped}");
    }
    text
}

/// One client, a domain of 8 kB.
fn ordinary(results: &Results) -> String {
    let mut text = row(["", "p50", "p99", "calls/s", "CPU/call", "memory", "start to socket"]);
    text += &row(["---", "--:", "--:", "--:", "--:", "--:", "--:"]);
    for (id, label) in results.contestants() {
        let Some(cell) = results.cell(id, ORDINARY_BYTES, 1, Connection::Dialled) else { continue };
        let memory = results.memory_of(id, ORDINARY_BYTES).map_or_else(dash, |memory| {
            let server = mib(memory.server);
            match memory.worker_count {
                0 => format!("{server} MiB"),
                _ => format!("{server} + {} MiB", mib(memory.workers)),
            }
        });
        let start = results.start_of(id).map_or_else(dash, |ms| format!("{} ms", number(ms)));
        text += &row([
            label,
            &format!("{} ms", number(cell.summary.p50_ms)),
            &p99(cell),
            &format!("{:.0}", cell.summary.calls_per_s),
            &format!("{} ms", number(cell.summary.cpu_ms)),
            &memory,
            &start,
        ]);
    }
    text
}

/// One client, all lengths.
fn sizes(results: &Results, connection: Connection) -> String {
    let sizes = sizes_of(results);
    by(
        results,
        &sizes,
        |size| bytes(*size),
        |id, size| results.cell(id, *size, 1, connection),
        |cell| {
            format!(
                "{} / {}",
                number(cell.summary.p50_ms),
                cell.summary.p99_ms.map_or_else(dash, number)
            )
        },
    )
}

/// Domains of 8 kB, all numbers of clients.
fn clients(results: &Results) -> String {
    let mut columns: Vec<(usize, Connection)> = Vec::new();
    for cell in results.cells.iter().filter(|cell| cell.bytes == ORDINARY_BYTES) {
        if !columns.contains(&(cell.clients, cell.connection)) {
            columns.push((cell.clients, cell.connection));
        }
    }
    let name = |(clients, connection): &(usize, Connection)| match connection {
        Connection::Dialled => format!("{clients}, dialled"),
        Connection::Kept => format!("{clients}, kept"),
    };
    let find = |id: &str, (clients, connection): &(usize, Connection)| {
        results.cell(id, ORDINARY_BYTES, *clients, *connection)
    };
    by(results, &columns, name, find, |cell| format!("{:.0}", cell.summary.calls_per_s))
}

/// Where the time of a call goes: each step is what one contestant takes more than another.
fn stages(results: &Results) -> String {
    let steps = [
        ("gRPC there and back, with connecting and the client's part", "baseline-tuned", None),
        ("to a worker and back: queue, pipes, messages, log", "echo", Some("baseline-tuned")),
        ("the check of the answer", "echo-longer", Some("echo-unchecked")),
        ("a hook's own work, in Rust", "persistent-rust", Some("echo-longer")),
        ("a hook's own work, in Go", "persistent-go", Some("echo-longer")),
        ("a hook's own work, in Python", "persistent-python", Some("echo-longer")),
    ];
    let sizes = sizes_of(results);
    let mut text = row(std::iter::once("step".to_owned()).chain(sizes.iter().copied().map(bytes)));
    text += &row(std::iter::once("---").chain(sizes.iter().map(|_| "--:")));
    for (step, whole, part) in steps {
        let cells = sizes.iter().map(|size| {
            let p50 = |id| Some(results.cell(id, *size, 1, Connection::Dialled)?.summary.p50_ms);
            let rest = part.map_or(Some(0.0), p50);
            let step = p50(whole).zip(rest).map(|(whole, rest)| whole - rest);
            step.map_or_else(dash, |ms| format!("{} ms", number(ms)))
        });
        text += &row(std::iter::once(step.to_owned()).chain(cells));
    }
    text
}

/// All lengths of domains, the shortest first.
fn sizes_of(results: &Results) -> Vec<usize> {
    let mut sizes: Vec<usize> = results.cells.iter().map(|cell| cell.bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// A table with a row for each contestant.
fn by<'a, C>(
    results: &'a Results,
    columns: &[C],
    name: impl Fn(&C) -> String,
    find: impl Fn(&str, &C) -> Option<&'a Cell>,
    show: impl Fn(&Cell) -> String,
) -> String {
    let heads: Vec<String> =
        std::iter::once(String::new()).chain(columns.iter().map(name)).collect();
    let mut text = row(&heads);
    text += &row(std::iter::once("---").chain(columns.iter().map(|_| "--:")));
    for (id, label) in results.contestants() {
        let cells = columns.iter().map(|column| find(id, column).map_or_else(dash, &show));
        text += &row(std::iter::once(label.to_owned()).chain(cells));
    }
    text
}

fn targets(results: &Results) -> String {
    let mut text = row(["", "wanted", "measured", "least – most of the rounds", ""]);
    text += &row(["---", "--:", "--:", "--:", "---"]);
    for target in targets::of(results) {
        let unit = target.unit;
        let wanted = match target.wanted {
            Bound::AtMost(most) => format!("≤ {} {unit}", number(most)),
            Bound::AtLeast(least) => format!("≥ {} {unit}", number(least)),
        };
        let spread = target
            .spread
            .map_or_else(String::new, |(min, max)| format!("{} – {}", number(min), number(max)));
        text += &row([
            target.what.as_str(),
            &wanted,
            &format!("**{} {unit}**", number(target.measured)),
            &spread,
            if target.wanted.holds(target.measured) { "✓" } else { "missed" },
        ]);
    }
    text
}

/// Puts each table between its marks in a page, `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`. A
/// page needs not hold all of them.
pub fn update(page: &Path, tables: &[Table]) -> Result<()> {
    let text =
        fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let mut text = text;
    for Table { name, text: table } in tables {
        text = put(&text, name, table)?;
    }
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn put(page: &str, name: &str, table: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench:{name} -->\n"), format!("<!-- /bench:{name} -->"));
    let Some((before, rest)) = page.split_once(&begin) else { return Ok(page.to_owned()) };
    let (_, after) = rest.split_once(&end).with_context(|| format!("the page has no {end}"))?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

pub fn row<S: AsRef<str>>(cells: impl IntoIterator<Item = S>) -> String {
    let mut text = "|".to_owned();
    for cell in cells {
        let _ = write!(text, " {} |", cell.as_ref());
    }
    text.push('\n');
    text
}

pub fn dash() -> String {
    "–".to_owned()
}

fn p99(cell: &Cell) -> String {
    cell.summary.p99_ms.map_or_else(dash, |ms| format!("{} ms", number(ms)))
}

/// With three digits that count.
pub fn number(value: f64) -> String {
    match value {
        _ if value < 1.0 => format!("{value:.3}"),
        _ if value < 10.0 => format!("{value:.2}"),
        _ if value < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a process has less than 2^52 bytes")]
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}

fn bytes(count: usize) -> String {
    match count {
        _ if count.is_multiple_of(1_000_000) => format!("{} MB", count / 1_000_000),
        _ if count.is_multiple_of(1_000) => format!("{} kB", count / 1_000),
        _ => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let page = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n";
        let new = "a\n<!-- bench:x -->\nnew\n<!-- /bench:x -->\nb\n";
        assert_eq!(put(page, "x", "new\n").unwrap(), new);
        assert_eq!(put(page, "y", "new\n").unwrap(), page);
        assert!(put("<!-- bench:x -->\n", "x", "new\n").is_err());
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.123_4, 1.234, 12.34, 123.4].map(number);
        assert_eq!(shown, ["0.123", "1.23", "12.3", "123"]);
    }
}
