//! Finds cases in a directory: one that has a VMI is a case, others are searched for cases.

use std::path::{Path, PathBuf};

use super::files::{self, Entry, Root};
use super::read::{self, is_of_case, is_vmi};
use super::{Broken, Case};

/// Maximum number of cases: each takes some milliseconds, and its documents stay in memory.
const MAX_CASES: usize = 10_000;

/// Maximum length of the documents of all cases. Most cases have 10 kB.
const MAX_BYTES: usize = 512 * 1024 * 1024;

/// Maximum depth of directories in each other.
const MAX_DEPTH: usize = 16;

/// Reads the cases in a directory, in the order of their names. `filter` is a text in the paths of
/// those to read, below the directory. An error says why there is none.
pub(crate) fn find(
    directory: &Path,
    filter: Option<&str>,
) -> Result<Vec<Result<Case, Broken>>, String> {
    let shown = directory.display();
    let cannot = |error| format!("cannot read the cases in {shown}: {error}");
    let root = Root::of(directory).map_err(cannot)?;
    if directory.is_file() {
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        return Err(format!("{shown} is a file: give its directory, {}", parent.display()));
    }
    let mut search =
        Search { top: directory, root, filter, found: Vec::new(), bytes: 0, others: 0 };
    search.directory(directory, 0)?;
    match (search.found.is_empty(), search.others) {
        (false, _) => Ok(search.found),
        (true, 0) => Err(format!(
            "there is no case in {shown}: a case is a directory with vmi.json (docs/cases.md)"
        )),
        (true, others) => Err(format!(
            "none of the {others} cases in {shown} has {:?} in its path there",
            filter.unwrap_or_default()
        )),
    }
}

/// Refuses a report whose file belongs to a case, or would be an error among the cases in this
/// directory.
pub(crate) fn check_report(report: &Path, directory: &Path) -> Result<(), String> {
    // What cannot be found cannot be written.
    let Some(report) = real_path(report) else { return Ok(()) };
    let Some(parent) = report.parent() else { return Ok(()) };
    let elsewhere = "name a file in another directory";
    if read::VMI.iter().any(|vmi| parent.join(vmi).exists()) {
        return Err(format!(
            "cannot write the report of --junit: it would be in the case {}: {elsewhere}",
            parent.display()
        ));
    }
    let Ok(directory) = directory.canonicalize() else { return Ok(()) };
    let Ok(below) = report.strip_prefix(&directory) else { return Ok(()) };
    if below.iter().any(|name| files::is_hidden(&name.to_string_lossy())) {
        return Ok(());
    }
    Err(format!(
        "cannot write the report of --junit: it would be among the cases in {}, and be an error \
         there: {elsewhere}",
        directory.display()
    ))
}

/// Returns the path of a file that need not exist, without symbolic links.
fn real_path(path: &Path) -> Option<PathBuf> {
    let directory = || {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).canonicalize().ok()
    };
    path.canonicalize().ok().or_else(|| Some(directory()?.join(path.file_name()?)))
}

struct Search<'a> {
    /// The directory, as the user named it.
    top: &'a Path,
    root: Root,
    filter: Option<&'a str>,
    found: Vec<Result<Case, Broken>>,
    /// Length of their documents.
    bytes: usize,
    /// Number of cases that the filter excludes.
    others: usize,
}

impl Search<'_> {
    fn directory(&mut self, directory: &Path, depth: usize) -> Result<(), String> {
        let entries = match files::list(directory) {
            Ok(entries) => entries,
            Err(why) => return self.broken(directory, why),
        };
        if entries.iter().any(|entry| is_vmi(&entry.name)) {
            return self.push(directory, |root, name| read::case(root, directory, name, &entries));
        }
        if let Some(why) = why_broken(&entries, depth) {
            return self.broken(directory, why);
        }
        entries.iter().try_for_each(|entry| self.directory(&entry.path, depth + 1))
    }

    fn broken(&mut self, directory: &Path, why: String) -> Result<(), String> {
        self.push(directory, |_, _| Err(why))
    }

    fn push(
        &mut self,
        directory: &Path,
        read: impl FnOnce(&Root, &str) -> Result<Case, String>,
    ) -> Result<(), String> {
        let name = directory.components().collect::<PathBuf>().display().to_string();
        let below = directory.strip_prefix(self.top).unwrap_or(directory).to_string_lossy();
        // A directory that is a case has nothing below it.
        let path = if below.is_empty() { name.as_str() } else { &below };
        if self.filter.is_some_and(|filter| !path.contains(filter)) {
            self.others += 1;
            return Ok(());
        }
        if self.found.len() == MAX_CASES {
            return Err(format!("there are more than {MAX_CASES} cases: choose some by --filter"));
        }
        let case = read(&self.root, &name).map_err(|why| Broken { name, why });
        self.bytes += case.as_ref().map_or(0, Case::bytes);
        if self.bytes > MAX_BYTES {
            return Err(format!(
                "the cases hold more than {MAX_BYTES} bytes: choose some by --filter"
            ));
        }
        self.found.push(case);
        Ok(())
    }
}

/// Says what is wrong with a directory that has no VMI, if it is not one of cases.
fn why_broken(entries: &[Entry], depth: usize) -> Option<String> {
    if entries.is_empty() && depth > 0 {
        return Some("is empty: a case has vmi.json or vmi.yaml".to_owned());
    }
    if depth == MAX_DEPTH {
        return Some(format!("is more than {MAX_DEPTH} directories deep"));
    }
    let entry = entries.iter().find(|entry| !entry.is_directory)?;
    let name = &entry.name;
    Some(if is_of_case(name) {
        format!("has {name} and no VMI: a case has vmi.json or vmi.yaml")
    } else if entry.path.is_dir() {
        format!("{name} is a symbolic link to a directory, which is not followed")
    } else {
        format!("has {name}, which does not belong to a case, and no vmi.json or vmi.yaml")
    })
}
