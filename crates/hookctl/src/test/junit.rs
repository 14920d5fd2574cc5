//! The results as an XML report in the form of `JUnit`, which CI systems read.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use sidecar_shim::text::escape;

use super::report::{CaseResult, Ended};

/// Name of the suite.
const SUITE: &str = "hookctl test";

/// Writes the report. Every case is a test: its directory is the class, a broken one is an error.
pub(super) fn write<'a>(
    path: &Path,
    cases: &(impl Iterator<Item = (&'a str, &'a Ended)> + Clone),
    took: Duration,
) -> io::Result<()> {
    let count = |is: fn(&CaseResult) -> bool| {
        cases.clone().filter(|(_, ended)| is(&ended.result)).count().to_string()
    };
    let counts = [
        ("tests", count(|_| true)),
        ("failures", count(|result| matches!(result, CaseResult::Failed { .. }))),
        ("errors", count(|result| matches!(result, CaseResult::Broken(_)))),
        ("time", seconds(took)),
    ];
    let started = humantime::format_rfc3339_seconds(SystemTime::now() - took).to_string();
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let attributes = || counts.iter().map(|(name, value)| (*name, value.as_str()));
    let suites = writer.create_element("testsuites").with_attribute(("name", SUITE));
    suites.with_attributes(attributes()).write_inner_content(|writer| {
        let suite = writer.create_element("testsuite").with_attribute(("name", SUITE));
        suite
            .with_attributes(attributes())
            .with_attribute(("timestamp", started.trim_end_matches('Z')))
            .write_inner_content(|writer| {
                cases.clone().try_for_each(|(name, ended)| case(writer, name, ended))
            })?;
        Ok(())
    })?;
    let mut report = writer.into_inner();
    report.push(b'\n');
    std::fs::write(path, report)
}

fn case(writer: &mut Writer<Vec<u8>>, name: &str, ended: &Ended) -> io::Result<()> {
    let shown = plain(name);
    let (directory, test) = shown.rsplit_once('/').unwrap_or((SUITE, &shown));
    let element = writer
        .create_element("testcase")
        .with_attribute(("classname", directory))
        .with_attribute(("name", test))
        .with_attribute(("time", seconds(ended.took).as_str()));
    let (element_name, fault, message, details) = match &ended.result {
        CaseResult::Broken(why) => ("error", "broken", why, why),
        CaseResult::Failed { headline, details } => ("failure", "failed", headline, details),
        CaseResult::Passed | CaseResult::Written(_) => {
            element.write_empty()?;
            return Ok(());
        }
    };
    element.write_inner_content(|writer| {
        writer
            .create_element(element_name)
            .with_attribute(("message", plain(message).as_str()))
            .with_attribute(("type", fault))
            .write_text_content(BytesText::new(&plain(details)))?;
        Ok(())
    })?;
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// Returns a text without characters that XML does not have.
fn plain(text: &str) -> String {
    escape(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}
