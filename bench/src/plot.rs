//! The plot: how the median call grows with the document.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::load::Connection;
use crate::results::Results;

const SIZE: (u32, u32) = (900, 560);

/// Space at the right for the legend.
const LEGEND_WIDTH: u32 = 250;

/// A line's points: bytes and milliseconds.
type Points = Vec<(f64, f64)>;

/// Draws the medians of all contestants with one client that dials for each call.
pub fn draw(results: &Results, path: &Path) -> Result<()> {
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
