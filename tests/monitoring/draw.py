"""Draws the dashboard's panels as an SVG, for the documentation. It is no Grafana: it shows which panels there
are, and what they say of the load of live.py."""

from xml.sax.saxutils import escape

import grafana
import queries
from common import ROOT, fail

PICTURE = ROOT / "docs/dashboard.svg"
COLUMN, ROW, GAP = 50, 28, 4  # pixels of one unit of the grid, and between panels
COLORS = ["#56a64b", "#e0b400", "#3274d9", "#fa6400", "#e02f44", "#a352cc", "#37872d", "#b877d9", "#1f60c4", "#c4162a"]
NAMED = {"green": "#37872d", "orange": "#c45000", "red": "#c4162a", "blue": "#1f60c4"}
MAX_LINES = 8  # of a legend; the others are counted


def text_of(value, unit):
    """A value as people read it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    text = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{text}/s" if unit == "reqps" else text


def label(x, y, words, size=11, color="#24292e", more=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{color}" {more}>{escape(words)}</text>'


def stat(panel, lines, x, y, width, height):
    value, defaults = lines[0][1][-1][1], panel["fieldConfig"]["defaults"]
    steps = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    middle = 'text-anchor="middle" font-weight="bold"'
    return [label(x + width / 2, y + height / 2 + 22, text_of(value, defaults["unit"]), 26, NAMED[steps[-1]["color"]], middle)]


def stacked(lines):
    """The lines, each on top of those before."""
    sums, result = {}, []
    for name, points in lines:
        result.append((name, []))
        for at, value in points:
            sums[round(at)] = sums.get(round(at), 0) + value
            result[-1][1].append((at, sums[round(at)]))
    return result


def timeseries(panel, lines, x, y, width, height, seconds):
    defaults = panel["fieldConfig"]["defaults"]
    drawn = stacked(lines) if defaults["custom"]["stacking"]["mode"] == "normal" else lines
    top = defaults.get("max") or max(value for _, points in drawn for _, value in points) * 1.1 or 1
    left, right, low, high = x + 62, x + width - 250, y + height - 22, y + 34

    def path(points):
        """A line, with a gap where there is no value."""
        out, before = [], None
        for at, value in points:
            move = "M" if before is None or at - before > 1.5 else "L"
            across, up = at / seconds * (right - left), min(value, top) / top * (low - high)
            out.append(f"{move}{left + across:.0f} {low - up:.1f}")
            before = at
        return "".join(out)

    out = []
    for part in (0, 0.5, 1):
        at = low - part * (low - high)
        out.append(f'<path d="M{left} {at:.0f}H{right}" stroke="#d8d9da"/>')
        out.append(label(left - 5, at + 4, text_of(top * part, defaults["unit"]), 10, "#6a7079", 'text-anchor="end"'))
    for part in (0, 0.5, 1):
        middle = 'text-anchor="middle"'
        out.append(label(left + part * (right - left), low + 14, f"{seconds * part:.0f} s", 10, "#6a7079", middle))
    for number, (name, points) in enumerate(drawn):
        color = COLORS[number % len(COLORS)]
        out.append(f'<path d="{path(points)}" fill="none" stroke="{color}" stroke-width="1.3"/>')
        if number < MAX_LINES:
            at = high + 4 + 18 * number
            last = text_of(lines[number][1][-1][1], defaults["unit"])
            out.append(f'<path d="M{right + 10} {at - 4}h12" stroke="{color}" stroke-width="3"/>')
            out.append(label(right + 26, at, f"{name}  {last}", 10))
    if len(drawn) > MAX_LINES:
        out.append(label(right + 26, high + 4 + 18 * MAX_LINES, f"and {len(drawn) - MAX_LINES} more", 10, "#6a7079"))
    return out


def table(rows, x, y):
    """The rows of the two queries, joined as the dashboard's transformations do."""
    up = {metric["pod"]: float(value[1]) for metric, value in rows if "node" not in metric}
    heads = ["daemon", "namespace", "pod", "node", "version", "mode", "up for"]
    lines = [heads]
    for metric, _ in sorted(rows, key=lambda row: row[0]["pod"]):
        if "node" in metric:
            keys = ("job", "namespace", "pod", "node", "version", "mode")
            lines.append([*(metric[key] for key in keys), f"{up[metric['pod']]:.0f} s"])
    return [
        label(x + 14 + 168 * column, y + 46 + 22 * row, cell, 11, "#6a7079" if row == 0 else "#24292e")
        for row, line in enumerate(lines) for column, cell in enumerate(line)
    ]


def draw(prometheus, seconds):
    """Draws what the panels show of the last seconds."""
    panels = grafana.panels()
    width = 24 * COLUMN + 2 * GAP
    height = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in panels) * ROW + 2 * GAP
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#f4f5f5"/>',  # pages may be dark
    ]
    for panel in panels:
        place = panel["gridPos"]
        box = (place["x"] * COLUMN + 2 * GAP, place["y"] * ROW + 2 * GAP, place["w"] * COLUMN - 2 * GAP, place["h"] * ROW - 2 * GAP)
        x, y, w, h = box
        found = queries.data(prometheus, panel, seconds)
        out.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="white" stroke="#d8d9da" rx="2"/>')
        out.append(label(x + 10, y + 20, panel["title"], 13, more='font-weight="bold"'))
        if panel["type"] == "stat":
            out += stat(panel, found, *box)
        elif panel["type"] == "table":
            out += table(found, x, y)
        else:
            out += timeseries(panel, found, *box, seconds)
    PICTURE.write_text("\n".join([*out, "</svg>", ""]), encoding="utf-8")


def check():
    """Whether the picture in the documentation shows the panels that there are."""
    text = PICTURE.read_text(encoding="utf-8")
    for panel in grafana.panels():
        if f">{escape(panel['title'])}</text>" not in text:
            fail(f"docs/dashboard.svg does not show the panel {panel['title']}: run .ci/monitoring --record")
