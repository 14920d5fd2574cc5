//! Results as tables for people, and the page that holds them.

use std::fmt::Write as _;
use std::fs;
use std::iter::{once, repeat_n};
use std::path::Path;

use anyhow::{Context, Result};

use crate::contestant::AGAINST;
use crate::load::Connection;
use crate::measure::ORDINARY_BYTES;
use crate::results::{Cell, Machine, Results, Sections};
use crate::stats::Spread;
use crate::targets::{self, Bound};
use crate::{boot, constrained, cost, fleet, mass};

const MIB: f64 = 1024.0 * 1024.0;

/// A table, and the mark by which a page names it.
pub struct Table {
    pub name: &'static str,
    pub text: String,
}

impl Table {
    /// With these heads: names in the first column, numbers in the others.
    pub fn new(name: &'static str, heads: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut table = Self { name, text: String::new() };
        let columns = table.row(heads);
        table.row(once("---").chain(repeat_n("--:", columns - 1)));
        table
    }

    /// Adds a row, and returns its number of cells.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) -> usize {
        self.text.push('|');
        let mut count = 0;
        for cell in cells {
            let _ = write!(self.text, " {} |", cell.as_ref());
            count += 1;
        }
        self.text.push('\n');
        count
    }
}

/// All tables of these results.
pub fn tables(sections: &Sections) -> Vec<Table> {
    let mut tables = Vec::new();
    if let Some(results) = &sections.calls {
        tables.extend([
            machine(results),
            ordinary(results),
            sizes("sizes-dialled", results, Connection::Dialled),
            clients(results),
            stages(results),
        ]);
        if results.cells.iter().any(|cell| cell.connection == Connection::Kept) {
            tables.push(sizes("sizes-kept", results, Connection::Kept));
        }
        if results.cells.iter().any(|cell| cell.contestant.starts_with(AGAINST)) {
            tables.push(against(results));
        }
    }
    tables.extend(sections.constrained.as_deref().map(constrained::table));
    tables.extend(sections.boot.iter().flat_map(boot::tables));
    tables.extend(sections.mass.as_deref().map(mass::table));
    tables.extend(sections.fleet.as_deref().map(fleet::table));
    tables.extend(cost::table(sections));
    tables.extend(targets(sections));
    tables
}

fn machine(results: &Results) -> Table {
    let settings = &results.settings;
    let rounds = format!("{} rounds of {} ms", settings.rounds, settings.round_ms);
    let mut text = machine_line(&results.machine, &rounds, &results.skipped);
    if settings.cpus_apart {
        text += "One client and its server have a CPU each; several clients and their server have all.\n";
    }
    Table { name: "machine", text }
}

/// Where and how something was measured, and what was left out.
pub fn machine_line(machine: &Machine, rounds: &str, skipped: &[String]) -> String {
    let Machine { cpu, cores, kernel, load_before, python } = machine;
    let mut text = format!(
        "{cpu}, {cores} cores, Linux {kernel}, {python}; {rounds}; load average before: {load_before:.2}\n"
    );
    for skipped in skipped {
        let _ = writeln!(text, "left out: {skipped}");
    }
    text
}

/// One client, a domain of 8 kB.
fn ordinary(results: &Results) -> Table {
    let heads = ["", "p50", "p99", "calls/s", "CPU/call", "memory", "start to socket"];
    let mut table = Table::new("ordinary", heads);
    for (id, label) in results.contestants() {
        let Some(cell) = results.cell(id, ORDINARY_BYTES, 1, Connection::Dialled) else { continue };
        table.row([
            label,
            &in_ms(cell.summary.p50_ms),
            &cell.summary.p99_ms.map_or_else(dash, in_ms),
            &format!("{:.0}", cell.summary.calls_per_s),
            &in_ms(cell.summary.cpu_ms),
            &results.memory_of(id, ORDINARY_BYTES).map_or_else(dash, |memory| memory.to_string()),
            &results.start_of(id).map_or_else(dash, in_ms),
        ]);
    }
    table
}

/// One client, all lengths.
fn sizes(name: &'static str, results: &Results, connection: Connection) -> Table {
    by(
        name,
        results,
        &sizes_of(results),
        |size| bytes(*size),
        |id, size| results.cell(id, *size, 1, connection),
        |cell| {
            let p99 = cell.summary.p99_ms.map_or_else(dash, number);
            format!("{} / {p99}", number(cell.summary.p50_ms))
        },
    )
}

/// Domains of 8 kB, all numbers of clients.
fn clients(results: &Results) -> Table {
    let mut columns: Vec<(usize, Connection)> = Vec::new();
    for cell in results.cells.iter().filter(|cell| cell.bytes == ORDINARY_BYTES) {
        if !columns.contains(&(cell.clients, cell.connection)) {
            columns.push((cell.clients, cell.connection));
        }
    }
    by(
        "clients",
        results,
        &columns,
        |(clients, connection)| format!("{clients}, {connection}"),
        |id, (clients, connection)| results.cell(id, ORDINARY_BYTES, *clients, *connection),
        |cell| format!("{:.0}", cell.summary.calls_per_s),
    )
}

/// Where the time of a call goes: each step is the difference between two contestants.
fn stages(results: &Results) -> Table {
    let steps = [
        ("gRPC there and back, with connecting and the client's part", "baseline-tuned", None),
        ("to a worker and back: queue, pipes, messages, log", "echo", Some("baseline-tuned")),
        ("the check of the answer", "echo-longer", Some("echo-unchecked")),
        ("a hook's own work, in Rust", "persistent-rust", Some("echo-longer")),
        ("a hook's own work, in Go", "persistent-go", Some("echo-longer")),
        ("a hook's own work, in Python", "persistent-python", Some("echo-longer")),
    ];
    let sizes = sizes_of(results);
    let heads = once("step".to_owned()).chain(sizes.iter().copied().map(bytes));
    let mut table = Table::new("stages", heads);
    for (step, whole, part) in steps {
        let cells = sizes.iter().map(|size| {
            let p50 = |id| Some(results.cell(id, *size, 1, Connection::Dialled)?.summary.p50_ms);
            let rest = part.map_or(Some(0.0), p50);
            p50(whole).zip(rest).map_or_else(dash, |(whole, rest)| in_ms(whole - rest))
        });
        table.row(once(step.to_owned()).chain(cells));
    }
    table
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
    name: &'static str,
    results: &'a Results,
    columns: &[C],
    head: impl Fn(&C) -> String,
    find: impl Fn(&str, &C) -> Option<&'a Cell>,
    show: impl Fn(&Cell) -> String,
) -> Table {
    let mut table = Table::new(name, once(String::new()).chain(columns.iter().map(head)));
    for (id, label) in results.contestants() {
        let cells = columns.iter().map(|column| find(id, column).map_or_else(dash, &show));
        table.row(once(label.to_owned()).chain(cells));
    }
    table
}

/// `None` if these sections have none.
fn targets(sections: &Sections) -> Option<Table> {
    let targets = targets::of(sections);
    if targets.is_empty() {
        return None;
    }
    let mut table =
        Table::new("targets", ["", "wanted", "measured", "least – most of the rounds", ""]);
    for target in targets {
        let unit = target.unit;
        let wanted = match target.wanted {
            Bound::AtMost(most) => format!("≤ {} {unit}", number(most)),
            Bound::AtLeast(least) => format!("≥ {} {unit}", number(least)),
        };
        let spread = target.spread.map(range).unwrap_or_default();
        table.row([
            target.what.as_str(),
            &wanted,
            &format!("**{} {unit}**", number(target.measured)),
            &spread,
            if target.wanted.holds(target.measured) { "✓" } else { "missed" },
        ]);
    }
    Some(table)
}

/// The shim in terms of that of `--against`, for each load.
fn against(results: &Results) -> Table {
    let heads = ["this shim / the other", "domain", "clients", "p50", "least – most of the rounds"];
    let mut table = Table::new("against", heads);
    for other in &results.cells {
        let id = other.contestant.strip_prefix(AGAINST);
        let find = |id| results.cell(id, other.bytes, other.clients, other.connection);
        let Some(cell) = id.and_then(find) else { continue };
        let rounds = |cell: &Cell| cell.summary.rounds_p50_ms.clone();
        let Some(ratio) = Spread::of_ratios(&rounds(cell), &rounds(other)) else { continue };
        table.row([
            cell.label.clone(),
            bytes(cell.bytes),
            format!("{}, {}", cell.clients, cell.connection),
            format!("{} ×", number(ratio.median)),
            range(ratio),
        ]);
    }
    table
}

/// Puts each table between its marks in a page, `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.
/// Tables that the page does not name are ignored.
pub fn update(page: &Path, tables: &[Table]) -> Result<()> {
    let mut text =
        fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
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

pub fn dash() -> String {
    "–".to_owned()
}

pub fn range(Spread { min, max, .. }: Spread) -> String {
    format!("{} – {}", number(min), number(max))
}

pub fn in_ms(value: f64) -> String {
    format!("{} ms", number(value))
}

/// With three significant digits.
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

pub fn bytes(count: usize) -> String {
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
    fn names_stand_at_the_left_and_numbers_at_the_right() {
        let mut table = Table::new("x", ["", "ms"]);
        table.row(["shim", "1.00"]);
        assert_eq!(table.text, "|  | ms |\n| --- | --: |\n| shim | 1.00 |\n");
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let shown = [0.123_4, 1.234, 12.34, 123.4].map(number);
        assert_eq!(shown, ["0.123", "1.23", "12.3", "123"]);
    }
}
