"""The Grafana dashboard's questions, and a picture of the answers to them: drawn here, not by Grafana, whose image may be
out of reach where tests run."""

import html
import json
import math
import re

import chart_tools as chart

PATH = chart.CHART / "dashboards" / "signalbox.json"
VARIABLES = {"$job": ".*", "$__rate_interval": "1m"}
COLUMNS, COLUMN_PX, ROW_PX, GAP_PX, HEAD_PX = 24, 60, 30, 6, 44
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#c4a7e7", "#96d98d", "#ffcb7d")
SERIES_MAX = len(COLOURS)
CAPTION = ("Answers of a real Prometheus during scripts/test deploy, with people in calls, each tier scaled from 2 to 4 and back, and one "
           "container of each killed. Drawn by tests/deploy/dashboard.py with the dashboard's own queries; not a screenshot of Grafana.")


def bare(query):
    """Without an alert's limit and without the 0 that stands in for no answer: what is left must have one."""
    return re.sub(r" (?:>|<|==) [\d.]+(?=\s|$)", "", query).replace(" or vector(0)", "")


def concrete(query):
    """As Grafana asks it."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def panels():
    """Title, and name and query of each question."""
    return [(panel["title"], [(target["refId"], concrete(target["expr"])) for target in panel.get("targets", [])])
            for panel in json.loads(PATH.read_text())["panels"]]


def short(value, unit):
    """4200 -> 4.2k; seconds and shares by their unit."""
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}" + (" s" if unit == "s" else "")


def name_of(series, legend):
    name = re.sub(r"{{\s*(\w+)\s*}}", lambda match: series["metric"].get(match[1], "-"), legend)
    return name if name and name != "__auto" else ", ".join(series["metric"].values()) or "all"


def finite(series):
    return [(at, float(value)) for at, value in series["values"] if math.isfinite(float(value))]


def draw_lines(lines, box, unit):
    """A chart of (name, points) in the box: lines, their highest value, their names."""
    x, y, width, height = box
    points = [point for _, line in lines for point in line]
    begin, end = min(at for at, _ in points), max(at for at, _ in points)
    top = max(value for _, value in points)
    out = [f'<text x="{x}" y="{y + 9}" class="small">{html.escape(short(top, unit))}</text>']
    for number, (_, line) in enumerate(lines):
        spots = " ".join(f"{x + (at - begin) / max(end - begin, 1) * width:.1f},{y + height - value / (top or 1) * (height - 12):.1f}"
                         for at, value in line)
        out.append(f'<polyline points="{spots}" stroke="{COLOURS[number]}"/>')
    left = x
    for number, (name, line) in enumerate(lines):
        text = f"{name}: {short(line[-1][1], unit)}"
        if left + 6 * len(text) > x + width:
            out.append(f'<text x="{left}" y="{y + height + 14}" class="small">…</text>')
            break
        out.append(f'<text x="{left}" y="{y + height + 14}" class="small" style="fill:{COLOURS[number]}">{html.escape(text)}</text>')
        left += 6 * len(text) + 10
    return out


def draw_panel(panel, top_px, ask):
    grid = panel["gridPos"]
    x, y = grid["x"] * COLUMN_PX + GAP_PX, top_px + grid["y"] * ROW_PX
    width, height = grid["w"] * COLUMN_PX - GAP_PX, grid["h"] * ROW_PX - GAP_PX
    title = html.escape(panel["title"])
    if panel["type"] == "row":
        return [f'<text x="{x}" y="{y + ROW_PX * 0.7}" class="row">{title}</text>']
    out = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}"/>', f'<text x="{x + 8}" y="{y + 18}">{title}</text>']
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    lines = [(name_of(series, target.get("legendFormat", "")), finite(series)) for target in panel["targets"]
             for series in ask(concrete(target["expr"]))]
    lines = sorted((line for line in lines if line[1]), key=lambda line: -line[1][-1][1])[:SERIES_MAX]
    if not lines:
        return out + [f'<text x="{x + 8}" y="{y + height / 2}" class="small">no data</text>']
    if panel["type"] == "stat":
        # Of those that are there at the end.
        end = max(line[-1][0] for _, line in lines)
        value = min(line[-1][1] for _, line in lines if line[-1][0] == end)
        return out + [f'<text x="{x + width / 2}" y="{y + height / 2 + 16}" class="stat">{short(value, unit)}</text>']
    return out + draw_lines(lines, (x + 8, y + 24, width - 16, height - 46), unit)


def draw(ask):
    """`ask` gives Prometheus's series over the time to be shown for a query."""
    every = json.loads(PATH.read_text())["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in every)
    width, height = COLUMNS * COLUMN_PX + GAP_PX, HEAD_PX + bottom * ROW_PX
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
           "<style>svg{background:#111217}text{fill:#ccccdc}rect{fill:#181b1f;stroke:#2c2f36}polyline{fill:none;stroke-width:1.5}"
           ".small{font-size:10px}.row{font-size:17px;font-weight:bold}.stat{font-size:40px;text-anchor:middle;fill:#73bf69}</style>",
           f'<text x="{GAP_PX}" y="18" class="small">{html.escape(CAPTION)}</text>']
    for panel in every:
        out += draw_panel(panel, HEAD_PX, ask)
    return "\n".join([*out, "</svg>", ""])
