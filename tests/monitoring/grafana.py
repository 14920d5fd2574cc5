"""The dashboard's form: Grafana's own types judge it, by their compiler, and we what they do not say."""

import json
import re

from common import EXAMPLES, fail, say
from typescript import compiles

DASHBOARD = EXAMPLES / "dashboard.json"

# A panel's options and its fields' own ones have types by the kind of panel. `Json` turns enumerations of
# TypeScript into the values that JSON has for them.
HEAD = """
import type {{ Dashboard, Panel }} from "@grafana/schema";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
type Json<T> = T extends string ? `${{T}}` : T extends number ? (number extends T ? T : `${{T}}` extends `${{infer N extends number}}` ? N : T)
  : T extends object ? {{ [K in keyof T]: Json<T[K]> }} : T;
type Of<Options, Custom> = Json<Panel<Partial<Options>, Custom>> & {{ options: Json<Partial<Options>>; fieldConfig: {{ defaults: {{ custom?: Json<Custom> }} }} }};
export const dashboard: Json<Dashboard> = {dashboard};
"""
KINDS = {
    "timeseries": "timeseries.Options, timeseries.FieldConfig",
    "stat": "stat.Options, {}",
    "table": "table.Options, table.FieldConfig",
}

# Faults that the types must find: a pattern in the file, and what replaces it.
FAULTS = [
    ('"schemaVersion": [0-9]+', '"schemaVersion": "41"'),
    ('"gridPos": {', '"gridPosition": {'),
    ('"displayMode": "table"', '"displayMode": "tables"'),
    ('"drawStyle": "line"', '"drawStyle": "lines"'),
    ('"graphMode": "area"', '"graphMode": "areas"'),
    ('"cellHeight": "sm"', '"cellHeight": "small"'),
    ('"type": "datasource"', '"type": "data source"'),
    ('"graphTooltip": 1', '"graphTooltip": 7'),
]


def board(text=None):
    return json.loads(text or DASHBOARD.read_text(encoding="utf-8"))


def panels(text=None):
    return board(text)["panels"]


def program(text):
    """The dashboard as a program whose types must fit."""
    parts = [HEAD.format(dashboard=text)]
    for panel in panels(text):
        if panel["type"] not in KINDS:
            fail(f"panel {panel['title']}: the check does not know panels of the type {panel['type']}")
        parts.append(f"export const panel{panel['id']}: Of<{KINDS[panel['type']]}> = {json.dumps(panel, indent=1)};")
    return "\n".join(parts)


def check_schema(modules, directory):
    """Lets TypeScript compare the dashboard with Grafana's types."""
    text = DASHBOARD.read_text(encoding="utf-8")
    programs = {"dashboard": program(text)}
    for number, (pattern, wrong) in enumerate(FAULTS):
        broken = re.sub(pattern, wrong, text, count=1)
        if broken == text:
            fail(f"the dashboard has no {pattern}")
        programs[f"fault{number}"] = program(broken)
    errors = compiles(modules, directory, programs)
    if errors["dashboard"]:
        fail(f"the dashboard does not fit Grafana's types:\n{errors['dashboard']}")
    for number, (_, wrong) in enumerate(FAULTS):
        if not errors[f"fault{number}"]:
            fail(f"the types accept a dashboard with {wrong}")
    version = json.loads((modules / "@grafana/schema/package.json").read_text(encoding="utf-8"))["version"]
    say(f"the dashboard fits the types of @grafana/schema {version}, which find {len(FAULTS)} faults")


def check_form():
    """What an importable dashboard needs that types do not say."""
    variables = {each["name"]: each for each in board()["templating"]["list"]}
    if variables["datasource"]["type"] != "datasource" or board().get("id") is not None:
        fail("the dashboard must have its data source as a variable, and no id")
    ids, cells = set(), set()
    for panel in panels():
        title, place = panel["title"], panel["gridPos"]
        covered = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        if panel["id"] in ids or cells & covered or place["x"] + place["w"] > 24 or not panel["description"]:
            fail(f"panel {title}: its id or its place is taken, or it has no description")
        ids.add(panel["id"])
        cells |= covered
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            if source != {"type": "prometheus", "uid": "${datasource}"}:
                fail(f"panel {title}: the data source is {source}")
        for target in panel["targets"]:
            for used in re.findall(r"\$([a-z]\w*)", target["expr"]):
                if used not in variables:
                    fail(f"panel {title}: there is no variable {used}")
