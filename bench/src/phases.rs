//! Where the time of a boot goes: the fastest boots of the contestants, subtracted from each other.

use crate::boot::{Boot, BootRow, Boots, Environment};
use crate::contestant::Probe;
use crate::markdown::{Table, dash, number};

/// The parts of a boot, in their order.
pub const PHASES: [&str; 6] = ["shim", "interpreter", "imports", "handshake", "calls", "end"];

/// The time of a part that a contestant does not have.
const NONE: f64 = 0.0;

/// The boot of one contestant.
pub struct Phases {
    pub label: String,
    /// Milliseconds of each of [`PHASES`].
    pub ms: [f64; 6],
}

/// All contestants without limits whose boots have parts. Network bindings have no place among
/// them: theirs is another edit.
pub fn of(boots: &Boots) -> Vec<Phases> {
    let rows = || boots.rows.iter().filter(|row| row.environment == Environment::Unrestricted);
    let find = |id: &str| rows().find(|row| row.contestant == id);
    let exit = |id| Some(least(find(id)?, |boot| Some(boot.exit_ms)));
    let (Some(bare), Some(sdk)) = (exit(Probe::Bare.id()), exit(Probe::Sdk.id())) else {
        return Vec::new();
    };
    // In exec mode the shim waits for nothing before its socket.
    let shim = find("exec-rust").map_or(NONE, |row| least(row, |boot| Some(boot.calls?.socket_ms)));
    let is_shown = |row: &&BootRow| !row.contestant.contains("binding");
    rows().filter(is_shown).filter_map(|row| phases(row, shim, bare, sdk)).collect()
}

fn phases(row: &BootRow, shim: f64, bare: f64, sdk: f64) -> Option<Phases> {
    row.boots.first()?.calls?;
    let socket = least(row, |boot| Some(boot.calls?.socket_ms));
    let answered = least(row, |boot| boot.calls?.answers_ms.last().copied());
    let exit = least(row, |boot| Some(boot.exit_ms));
    let before = match row.contestant.as_str() {
        "persistent-python" => [shim, bare, sdk - bare, (socket - shim - sdk).max(NONE)],
        "python-server" => [NONE, bare, socket - bare, NONE],
        id if id.starts_with("persistent") => [shim, NONE, NONE, (socket - shim).max(NONE)],
        _ => [socket, NONE, NONE, NONE],
    };
    let [shim, interpreter, imports, handshake] = before;
    let ms = [shim, interpreter, imports, handshake, answered - socket, exit - answered];
    Some(Phases { label: row.label.clone(), ms })
}

/// Of the fastest boot: other load on the machine makes differences of medians negative.
fn least(row: &BootRow, of: impl Fn(&Boot) -> Option<f64>) -> f64 {
    row.boots.iter().filter_map(of).fold(f64::INFINITY, f64::min)
}

/// As a table for people.
pub fn table(boots: &Boots) -> Option<Table> {
    let all = of(boots);
    if all.is_empty() {
        return None;
    }
    let mut table = Table::new(
        "boot-phases",
        ["", "shim", "interpreter", "imports", "handshake", "calls", "end"],
    );
    for Phases { label, ms } in all {
        let cells = ms.iter().map(|ms| if *ms == NONE { dash() } else { number(*ms) });
        table.row(std::iter::once(label).chain(cells));
    }
    Some(table)
}
