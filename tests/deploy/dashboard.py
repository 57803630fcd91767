"""The Grafana dashboard's questions, and a picture of the answers to them: drawn here, not by Grafana, whose image may be
out of reach where tests run."""

import html
import json
import math
import re
import string
from typing import NamedTuple

import chart_tools as chart

PATH = chart.CHART / "dashboards" / "signalbox.json"
VARIABLES = {"$job": ".*", "$__rate_interval": "1m"}
COLUMNS, COLUMN_PX, ROW_PX, GAP_PX, HEAD_PX, AXIS_PX, LEGEND_ROWS = 24, 60, 30, 8, 52, 46, 2
TICKS_MAX, TICKS_S = 5, (10, 15, 30, 60, 120, 300, 600)
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#c4a7e7", "#96d98d", "#ffcb7d")
COLOUR_OF = {"green": COLOURS[0], "orange": COLOURS[3], "red": COLOURS[4], "blue": COLOURS[6], "text": "#8e8e99"}  # by Grafana's names
SERIES_MAX = len(COLOURS)
CAPTION = ("Answers of a real Prometheus to the dashboard's own queries during scripts/test deploy, with people in calls. Drawn by "
           "tests/deploy/dashboard.py; not a screenshot of Grafana. Dashed: ")


class Story(NamedTuple):
    """The time that is shown, and what happened when."""
    begin: float
    end: float
    marks: list  # (time, what)

    def x_of(self, at, left, width):
        return left + (at - self.begin) / (self.end - self.begin) * width


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
    suffix_of_unit = {"s": " s", "bytes": " B", "ops": " /s"}.get(unit, "")
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}{suffix_of_unit.strip()}"
    return f"{value:.3g}{suffix_of_unit}"


def name_of(series, legend):
    name = re.sub(r"{{\s*(\w+)\s*}}", lambda match: series["metric"].get(match[1], "-"), legend).replace("signalbox-", "")
    return name if name and name != "__auto" else ", ".join(series["metric"].values()) or "all"


def finite(series):
    return [(at, float(value)) for at, value in series["values"] if math.isfinite(float(value))]


def nice_top(value):
    """The least of 1, 2, 5, 10, 20 and so on, with powers of ten, that is not below it."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999)


def draw_axes(box, top, story, unit):
    """Lines across, with what they stand for; times below; dashed lines for what happened."""
    x, y, width, height = box
    seconds = story.end - story.begin
    out = []
    for part in range(3):
        level = y + height * part / 2
        out.append(f'<line x1="{x}" y1="{level:.1f}" x2="{x + width}" y2="{level:.1f}"/>')
        out.append(f'<text x="{x - 5}" y="{level + 3:.1f}" class="axis left">{html.escape(short(top * (2 - part) / 2, unit))}</text>')
    step_s = next((step for step in TICKS_S if seconds / step <= TICKS_MAX), 3600)
    for at in range(0, int(seconds - step_s / 4), step_s):
        spot = story.x_of(story.begin + at, x, width)
        out.append(f'<text x="{spot:.1f}" y="{y + height + 13}" class="axis">{at // 60}:{at % 60:02}</text>')
    for letter, (at, _) in zip(string.ascii_lowercase, story.marks):
        spot = story.x_of(at, x, width)
        out.append(f'<line x1="{spot:.1f}" y1="{y}" x2="{spot:.1f}" y2="{y + height}" class="mark"/>')
        out.append(f'<text x="{spot:.1f}" y="{y - 3}" class="axis">{letter}</text>')
    return out


def draw_legend(lines, x, y, width, unit):
    """Names and last values, in two rows at most."""
    out, left, row = [], x, 0
    for number, (name, line) in enumerate(lines):
        text = f"{name}  {short(line[-1][1], unit)}"
        size = 6.1 * len(text) + 20
        if left + size > x + width and left > x:
            left, row = x, row + 1
            if row == LEGEND_ROWS:
                out.append(f'<text x="{x + width - 12}" y="{y + 14 * (row - 1)}" class="small">…</text>')
                break
        out.append(f'<rect x="{left}" y="{y + 14 * row - 7}" width="9" height="3" style="fill:{COLOURS[number]};stroke:none"/>')
        out.append(f'<text x="{left + 13}" y="{y + 14 * row}" class="small">{html.escape(text)}</text>')
        left += size
    return out


def draw_lines(lines, box, story, unit):
    """A chart of (name, points) in the box."""
    x, y, width, height = box
    box = x, y, width, height = x + AXIS_PX, y, width - AXIS_PX, height - 18 - 14 * LEGEND_ROWS
    top = max(value for _, line in lines for _, value in line)
    top = 1 if top <= 0 or unit == "percentunit" and 0.5 < top <= 1 else nice_top(top)
    out = draw_axes(box, top, story, unit)
    for number, (_, line) in reversed(list(enumerate(lines))):
        spots = " ".join(f"{story.x_of(at, x, width):.1f},{y + height - value / top * height:.1f}" for at, value in line)
        out.append(f'<polyline points="{spots}" stroke="{COLOURS[number]}"/>')
    return out + draw_legend(lines, x - AXIS_PX, y + height + 30, width + AXIS_PX, unit)


def colour_at(value, steps):
    """Of Grafana's thresholds."""
    return COLOUR_OF[[step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]]


def draw_stat(panel, lines, box, unit):
    """One number on the colour that it has, and nothing where there is none."""
    x, y, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    text, colour = defaults.get("noValue", "no data"), COLOUR_OF["text"]
    if lines:
        # Of those that are there at the end.
        end = max(line[-1][0] for _, line in lines)
        value = min(line[-1][1] for _, line in lines if line[-1][0] == end)
        text, colour = short(value, unit), colour_at(value, defaults["thresholds"]["steps"])
    return [f'<text x="{x + width / 2}" y="{y + height / 2 + 20}" class="stat" style="fill:{colour}">{html.escape(text)}</text>']


def draw_panel(panel, top_px, ask, story):
    grid = panel["gridPos"]
    x, y = grid["x"] * COLUMN_PX + GAP_PX, top_px + grid["y"] * ROW_PX
    width, height = grid["w"] * COLUMN_PX - GAP_PX, grid["h"] * ROW_PX - GAP_PX
    title = html.escape(panel["title"])
    if panel["type"] == "row":
        return [f'<text x="{x}" y="{y + ROW_PX * 0.7}" class="row">{title}</text>']
    out = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3"/>', f'<text x="{x + 10}" y="{y + 20}" class="title">{title}</text>']
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    lines = [(name_of(series, target.get("legendFormat", "")), finite(series)) for target in panel["targets"]
             for series in ask(concrete(target["expr"]))]
    lines = [line for line in lines if line[1]]
    if panel["type"] == "stat":
        return out + draw_stat(panel, lines, (x, y, width, height), unit)
    # What has never been is left out, as long as anything has.
    lines = [line for line in lines if any(value for _, value in line[1])] or lines[:1]
    lines = sorted(lines, key=lambda line: -max(value for _, value in line[1]))[:SERIES_MAX]
    if not lines:
        return out + [f'<text x="{x + 10}" y="{y + height / 2}" class="small">no data</text>']
    return out + draw_lines(lines, (x + 10, y + 42, width - 20, height - 50), story, unit)


def draw(ask, story):
    """`ask` gives Prometheus's series over the story's time for a query."""
    every = json.loads(PATH.read_text())["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in every)
    happened = ", ".join(f"{letter} {what}" for letter, (_, what) in zip(string.ascii_lowercase, story.marks)) + "."
    width, height = COLUMNS * COLUMN_PX + GAP_PX, HEAD_PX + bottom * ROW_PX + GAP_PX
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="Inter,Helvetica,Arial,sans-serif" font-size="13">',
           "<style>text{fill:#ccccdc}rect{fill:#181b1f;stroke:#2c2f36}polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}"
           "line{stroke:#2c2f36}.mark{stroke:#8e8e99;stroke-dasharray:2 4;stroke-width:.7}.small{font-size:11px}.axis{font-size:10px;fill:#8e8e99;text-anchor:middle}.left{text-anchor:end}"
           ".title{font-weight:500}.row{font-size:17px;font-weight:bold}.stat{font-size:34px;text-anchor:middle}</style>",
           f'<rect width="{width}" height="{height}" style="fill:#111217;stroke:none"/>',
           f'<text x="{GAP_PX}" y="20" class="small">{html.escape(CAPTION)}</text>',
           f'<text x="{GAP_PX}" y="38" class="small">{html.escape(happened)}</text>']
    for panel in every:
        out += draw_panel(panel, HEAD_PX, ask, story)
    return "\n".join([*out, "</svg>", ""])
