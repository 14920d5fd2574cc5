//! The plots: where the time of a boot goes, how the median call grows with the document, and how
//! long the calls of a mass boot take.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::load::Connection;
use crate::markdown::{bytes, number};
use crate::mass::MassRun;
use crate::phases::{self, PHASES, Phases};
use crate::results::{Results, Sections};

const SIZE: (u32, u32) = (900, 560);

/// Space at the right for the legend.
const LEGEND_WIDTH: u32 = 250;

/// Height of a boot's bar, with the space below it.
const BAR_HEIGHT: i32 = 30;

/// Space at the left for the names of the bars.
const NAMES_WIDTH: i32 = 190;

/// A line's points: bytes and milliseconds.
type Points = Vec<(f64, f64)>;

/// Draws what there are results for.
pub fn draw_all(sections: &Sections, directory: &Path) -> Result<()> {
    if let Some(results) = &sections.calls {
        draw(results, &directory.join("performance.svg"))?;
    }
    let failed = |error| anyhow!("cannot draw in {}: {error}", directory.display());
    if let Some(boots) = sections.boot.as_ref().map(phases::of).filter(|boots| !boots.is_empty()) {
        draw_boots(&boots, &directory.join("performance-boot.svg")).map_err(failed)?;
    }
    if let Some(runs) = &sections.mass {
        draw_mass(runs, &directory.join("performance-mass.svg")).map_err(failed)?;
    }
    Ok(())
}

/// A bar for each contestant, of its boot's parts.
fn draw_boots(boots: &[Phases], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let height = BAR_HEIGHT * i32::try_from(boots.len())? + 90;
    let area = SVGBackend::new(path, (SIZE.0, height.cast_unsigned())).into_drawing_area();
    area.fill(&WHITE)?;
    let longest = boots.iter().map(|boot| boot.ms.iter().sum::<f64>()).fold(0.0, f64::max);
    let width = f64::from(SIZE.0.cast_signed() - NAMES_WIDTH - 90);
    #[expect(clippy::cast_possible_truncation, reason = "a picture has less than 2^31 pixels")]
    let x = |ms: f64| NAMES_WIDTH + (ms / longest * width).round() as i32;
    let font = ("sans-serif", 14);
    for (index, phase) in PHASES.iter().enumerate() {
        let left = NAMES_WIDTH + 110 * i32::try_from(index)?;
        let color = Palette99::pick(index).filled();
        area.draw(&Rectangle::new([(left, 14), (left + 14, 28)], color))?;
        area.draw(&Text::new(*phase, (left + 20, 14), font))?;
    }
    for (row, Phases { label, ms }) in boots.iter().enumerate() {
        let top = 48 + BAR_HEIGHT * i32::try_from(row)?;
        area.draw(&Text::new(label.replace('`', ""), (8, top + 3), font))?;
        let mut sum = 0.0;
        for (index, ms) in ms.iter().enumerate() {
            let bar = [(x(sum), top), (x(sum + ms), top + BAR_HEIGHT - 10)];
            area.draw(&Rectangle::new(bar, Palette99::pick(index).filled()))?;
            sum += ms;
        }
        area.draw(&Text::new(format!("{} ms", number(sum)), (x(sum) + 6, top + 3), font))?;
    }
    let note = "fastest boot: from exec to exit, Info and three calls of OnDefineDomain";
    area.draw(&Text::new(note, (NAMES_WIDTH, height - 26), font))?;
    area.present()?;
    Ok(())
}

/// The time of each call, in the order in which they were made.
fn draw_mass(runs: &[MassRun], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (SIZE.0, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let all = || runs.iter().flat_map(|run| &run.calls);
    let last = all().map(|call| call.took_ms).fold(0.0, f64::max);
    let most = runs.iter().map(|run| run.calls.len()).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..float(most), 0.0..last * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("number of the call; all begin within a second")
        .y_desc("time of the call, ms")
        .light_line_style(WHITE)
        .draw()?;
    for (index, run) in runs.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let points = run.calls.iter().enumerate().filter(|(_, call)| call.error.is_none());
        let points = points.map(|(number, call)| (float(number), call.took_ms));
        let label = format!("VMIs of {}", bytes(run.vmi_bytes));
        chart
            .draw_series(points.map(|point| Circle::new(point, 2, color.filled())))?
            .label(label)
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}

/// Draws the medians of all contestants with one client that dials for each call.
fn draw(results: &Results, path: &Path) -> Result<()> {
    let lines = lines(results);
    let all = || lines.iter().flat_map(|(_, points)| points);
    let bound = |of: fn(&(f64, f64)) -> f64, pick: fn(f64, f64) -> f64, start| {
        all().map(of).fold(start, pick)
    };
    let x = bound(|p| p.0, f64::min, f64::MAX)..bound(|p| p.0, f64::max, 0.0);
    let y = bound(|p| p.1, f64::min, f64::MAX) / 1.5..bound(|p| p.1, f64::max, 0.0) * 1.5;
    if lines.iter().all(|(_, points)| points.len() < 2) {
        return Ok(());
    }
    draw_lines(&lines, x, y, path)
        .map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn lines(results: &Results) -> Vec<(String, Points)> {
    let mut lines = Vec::new();
    // In a plot, a program without the shim looks like exec mode.
    let is_shown = |id: &str| !id.starts_with("direct") && !id.starts_with("baseline-exec");
    for (id, label) in results.contestants().into_iter().filter(|(id, _)| is_shown(id)) {
        let mut points: Points = results
            .cells
            .iter()
            .filter(|cell| {
                cell.contestant == id && cell.clients == 1 && cell.connection == Connection::Dialled
            })
            .map(|cell| (float(cell.bytes), cell.summary.p50_ms))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !points.is_empty() {
            lines.push((label.replace('`', ""), points));
        }
    }
    lines
}

fn draw_lines(
    lines: &[(String, Points)],
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    // Pages may be dark.
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut chart = ChartBuilder::on(&left)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("bytes of the domain")
        .y_desc("median call, ms")
        .x_label_formatter(&|bytes| si(*bytes))
        .y_label_formatter(&|ms| format!("{ms}"))
        .light_line_style(WHITE)
        .draw()?;
    for (index, (label, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
        let y = 30 + 24 * i32::try_from(index)?;
        right.draw(&PathElement::new([(0, y + 6), (24, y + 6)], color.stroke_width(3)))?;
        right.draw(&Text::new(label.clone(), (32, y), ("sans-serif", 14)))?;
    }
    area.present()?;
    Ok(())
}

fn si(bytes: f64) -> String {
    if bytes >= 1e6 { format!("{} MB", bytes / 1e6) } else { format!("{} kB", bytes / 1e3) }
}

#[expect(clippy::cast_precision_loss, reason = "documents have less than 2^52 bytes")]
fn float(bytes: usize) -> f64 {
    bytes as f64
}
