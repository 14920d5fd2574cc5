//! The status as a page of 80 columns.

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;

use crate::service::proto::status::{
    EndedCall, GetResponse, Hook, Pool, RunningCall, StatusCount, Vm, Worker,
};
use crate::text::escape_line;

/// Width of a terminal.
const COLUMNS: usize = 80;

const HEADING: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// Returns the page, with colours if `styled`.
pub(super) fn page(status: &GetResponse, styled: bool) -> String {
    let mut page = Page { text: String::new(), styled };
    page.shim(status);
    page.hooks(status);
    status.pools.iter().for_each(|pool| page.pool(pool));
    page.calls(status);
    page.files(status);
    page.text
}

struct Page {
    text: String,
    styled: bool,
}

impl Page {
    /// Adds a line, cut to the width.
    fn line(&mut self, text: &str) {
        self.styled_line(text, Style::new());
    }

    fn styled_line(&mut self, text: &str, style: Style) {
        let text = cut(text.trim_end(), COLUMNS);
        self.text += &self.painted(&text, style);
        self.text.push('\n');
    }

    /// Adds a line of parts that fit, and may be painted.
    fn push(&mut self, parts: &[&str]) {
        self.text.extend(parts.iter().copied().chain(["\n"]));
    }

    fn heading(&mut self, text: &str) {
        self.text.push('\n');
        self.styled_line(text, HEADING);
    }

    fn painted(&self, text: &str, style: Style) -> String {
        if self.styled { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Adds a text in as many lines as it takes, broken between words.
    fn wrapped(&mut self, indent: usize, text: &str, style: Style) {
        let (mut line, width) = (String::new(), COLUMNS - indent);
        for word in text.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                self.styled_line(&format!("{:indent$}{line}", ""), style);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        if !line.is_empty() {
            self.styled_line(&format!("{:indent$}{line}", ""), style);
        }
    }

    fn shim(&mut self, status: &GetResponse) {
        let state = escape_line(&status.state);
        let head = format!("sidecar-shim {}  ", escape_line(&status.version));
        let rest = format!(
            "  {}  up {}  pid {}  {}",
            escape_line(&status.mode),
            age(status.uptime_seconds),
            status.pid,
            size(status.resident_bytes),
        );
        let state = self.painted(&state, style_of(&status.state));
        let head = self.painted(&head, HEADING);
        self.push(&[&head, &state, &rest]);
        let memory = status.memory.unwrap_or_default();
        self.line(&format!(
            "calls  {} running, {} waiting, at most {} at once   budget  {} of {}",
            status.calls_running,
            status.calls_waiting,
            status.max_workers,
            size(memory.used_bytes),
            size(memory.budget_bytes),
        ));
        if !status.refusals.is_empty() {
            let refusals = status.refusals.iter();
            let refusals: Vec<_> = refusals
                .map(|refusal| format!("{} {}", escape_line(&refusal.why), refusal.count))
                .collect();
            let text = format!("refused by the shim: {}", refusals.join(", "));
            self.wrapped(0, &text, WARNING);
        }
    }

    fn hooks(&mut self, status: &GetResponse) {
        self.heading(&format!(
            "{:<23}{:>10}{:>8}{:>9}{:>10}{:>10}{:>10}",
            "HOOK", "CALLS", "FAILED", "RETRIED", "P50", "P99", "MAX"
        ));
        // Calls of other hooks are shown if there are some.
        let shown = |hook: &&Hook| hook.calls > 0 || !hook.name.starts_with('_');
        let hooks: Vec<_> = status.hooks.iter().filter(shown).collect();
        let all = status.all.iter().filter(|_| hooks.len() > 1);
        for hook in hooks.iter().copied().chain(all) {
            let name = cut(&escape_line(&hook.name), 22);
            self.line(&format!(
                "{name:<23}{:>10}{:>8}{:>9}{:>10}{:>10}{:>10}",
                hook.calls,
                hook.failed,
                hook.retried,
                optional_time(hook.p50_ms),
                optional_time(hook.p99_ms),
                optional_time(hook.max_ms),
            ));
        }
        let not_ok = |count: &&StatusCount| count.status != "OK";
        for hook in hooks {
            let counts: Vec<_> = hook
                .statuses
                .iter()
                .filter(not_ok)
                .map(|count| format!("{} {}", escape_line(&count.status), count.count))
                .collect();
            if !counts.is_empty() {
                let text = format!("{}: {}", escape_line(&hook.name), counts.join(", "));
                self.wrapped(2, &text, WARNING);
            }
        }
    }

    fn pool(&mut self, pool: &Pool) {
        self.heading(&format!("POOL  {}", escape_line(&pool.command)));
        let sdk = pool.sdk.as_deref().map(|sdk| format!("SDK {}", escape_line(sdk)));
        let said = pool.program.as_deref().map(|name| escape_line(name).into_owned());
        let said: Vec<_> = said.into_iter().chain(sdk).collect();
        if !said.is_empty() {
            self.line(&format!("  {}", said.join(", ")));
        }
        let counts = pool.worker_counts.unwrap_or_default();
        let state = self.painted(&escape_line(&pool.state), style_of(&pool.state));
        let meaning = match &*pool.state {
            "down" => ": calls fail at once",
            "failing" => ": calls wait for the next worker",
            _ => "",
        };
        let next = pool.back_off_seconds.map(|wait| format!(", next start in {}", age(wait)));
        self.push(&["  ", &state, meaning, &next.unwrap_or_default()]);
        if let Some(fault) = &pool.last_fault {
            self.wrapped(4, &format!("last fault: {}", escape_line(fault)), BAD);
        }
        self.line(&format!(
            "  workers  {} starting, {} ready, {} busy, {} stopping; at most {}",
            counts.starting, counts.ready, counts.busy, counts.stopping, pool.max_workers
        ));
        self.line(&format!(
            "  calls  {} running, {} waiting with {} of documents",
            pool.calls_running,
            pool.calls_waiting,
            size(pool.waiting_bytes)
        ));
        let exits = pool.exits.unwrap_or_default();
        self.line(&format!(
            "  started {}; exited: {} stopped, {} idle, {} over a call",
            pool.starts, exits.stopped, exits.idle, exits.call
        ));
        if exits.failed_idle + exits.failed_start > 0 {
            let (idle, start) = (exits.failed_idle, exits.failed_start);
            let text = format!("  failed: {idle} while idle, {start} before they had started");
            self.styled_line(&text, WARNING);
        }
        if !pool.workers.is_empty() {
            self.line(&format!(
                "  {:>8}  {:<9}{:>10}{:>10}{:>12}  RUNS",
                "PID", "STATE", "AGE", "CALLS", "MEMORY"
            ));
        }
        pool.workers.iter().for_each(|it| self.worker(it));
    }

    fn worker(&mut self, worker: &Worker) {
        let pid = worker.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let memory = worker.resident_bytes.map_or("-".to_owned(), size);
        let runs = worker.busy_seconds.map(|busy| {
            let calls = worker.calls_running;
            format!("{calls} call{}, {}", if calls == 1 { "" } else { "s" }, age(busy))
        });
        let state = format!("{:<9}", escape_line(&worker.state));
        let state = self.painted(&state, style_of(&worker.state));
        let row = format!(
            "  {pid:>8}  {state}{:>10}{:>10}{memory:>12}  {}",
            age(worker.age_seconds),
            worker.calls,
            runs.unwrap_or_default()
        );
        self.push(&[row.trim_end()]);
    }

    fn calls(&mut self, status: &GetResponse) {
        if !status.running.is_empty() {
            self.heading("RUNNING  the oldest calls");
        }
        for call in &status.running {
            let RunningCall { call, hook, vm, seconds, pid, attempt } = call;
            let process = pid.map_or("waits".to_owned(), |pid| format!("pid {pid}"));
            let again = attempt.filter(|attempt| *attempt > 1);
            let again = again.map(|attempt| format!("  attempt {attempt}")).unwrap_or_default();
            let head = format!(
                "  {:>9}  {}  call {call}  {process}{again}",
                age(*seconds),
                escape_line(hook)
            );
            self.entry(&head, vm.as_ref());
        }
        let lists = [("FAILED  the last ones", &status.failures), ("SLOWEST", &status.slowest)];
        for (heading, calls) in lists {
            if !calls.is_empty() {
                self.heading(heading);
            }
            for call in calls {
                self.ended(call);
            }
        }
    }

    fn ended(&mut self, ended: &EndedCall) {
        let hook = ended.hook.as_deref().map_or("(no hook)".into(), escape_line);
        let head = format!(
            "  {:>7} ago  {:>9}  {}  {hook}",
            age(ended.ago_seconds),
            time(ended.took_ms),
            escape_line(&ended.status)
        );
        self.entry(&head, ended.vm.as_ref());
    }

    /// Adds a line about a call, and its VM on the same line if that is wide enough.
    fn entry(&mut self, head: &str, vm: Option<&Vm>) {
        let name = vm.map(|vm| format!("{}/{}", escape_line(&vm.namespace), escape_line(&vm.name)));
        match name.filter(|name| name != "/") {
            None => self.line(head),
            Some(name) if head.chars().count() + 2 + name.chars().count() <= COLUMNS => {
                self.line(&format!("{head}  {name}"));
            }
            Some(name) => {
                self.line(head);
                self.line(&format!("      {name}"));
            }
        }
    }

    fn files(&mut self, status: &GetResponse) {
        if !status.files.is_empty() {
            self.heading("FILES  with the SHA-256 that they have now");
        }
        for file in &status.files {
            self.line(&format!("  {}", escape_line(&file.path)));
            match (&file.sha256, &file.error) {
                (Some(sha256), _) => self.line(&format!("    {}", escape_line(sha256))),
                (None, error) => {
                    let why = error.as_deref().unwrap_or("unknown");
                    self.wrapped(4, &format!("no digest: {}", escape_line(why)), WARNING);
                }
            }
        }
    }
}

fn style_of(state: &str) -> Style {
    match state {
        "serving" | "ready" => GOOD,
        "failing" | "starting" | "stopping" => WARNING,
        "down" => BAD,
        _ => Style::new(),
    }
}

/// Cuts a text to this many characters.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}

fn size(bytes: u64) -> String {
    format!("{:.1}", ByteSize::b(bytes).display().iec())
}

fn optional_time(milliseconds: Option<f64>) -> String {
    milliseconds.map_or("-".to_owned(), time)
}

fn time(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{:.1} s", milliseconds / 1000.0)
    }
}

/// Returns a time in its two largest units.
fn age(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is positive, and its decimals are not shown"
    )]
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {}m", minutes % 60)
    } else {
        format!("{minutes}m {}s", seconds % 60)
    }
}
