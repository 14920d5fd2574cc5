"""The dashboard's queries, as Grafana would send them."""

import re
import time

import grafana

# What Grafana replaces. The interval is what it takes for a scrape each second, and some smoothing.
INTERVAL = "15s"


def expression(text):
    return re.sub(r"\$(job|pod|hook)\b", ".*", text.replace("$__rate_interval", INTERVAL))


def legend(target, series):
    """A line's name, from the query's template and the series's labels."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: series["metric"].get(found[1], ""), target["legendFormat"])


def variables(prometheus):
    """The values that each variable of the dashboard offers."""
    found = {}
    for variable in grafana.board()["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            found[variable["name"]] = prometheus.api(f"label/{label}/values", **{"match[]": expression(series)})
    return found


def is_data(values):
    return any(value != "NaN" for _, value in values)


def empty(prometheus):
    """The queries without data now, by their panels' titles, and the variables without values."""
    found = [f"variable {name}" for name, values in variables(prometheus).items() if not values]
    for panel in grafana.panels():
        for target in panel["targets"]:
            series = prometheus.query(expression(target["expr"]))
            if not any(is_data([each["value"]]) for each in series):
                found.append(f"panel {panel['title']}, query {target['refId']}")
    return found


def data(prometheus, panel, seconds):
    """What a panel shows of the last seconds: lines by their names, or rows of a table."""
    now = time.time()
    if panel["type"] == "table":
        return [[each["metric"], each["value"]] for target in panel["targets"] for each in prometheus.query(expression(target["expr"]))]
    lines = []
    for target in panel["targets"]:
        for each in prometheus.query(expression(target["expr"]), start=now - seconds, end=now, step="1s"):
            points = [(float(at) - now + seconds, float(value)) for at, value in each["values"] if value != "NaN"]
            if points:
                lines.append((legend(target, each), points))
    return lines
