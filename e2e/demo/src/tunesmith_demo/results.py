"""Results of an EvalRun as text tables, from the resource as returned by the API server."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

Resource = Mapping[str, Any]


def _interval(interval: list[str]) -> str:
    low, high = (float(bound) for bound in interval)
    return f"{low:.2f} … {high:.2f}"


def sides_table(run: Resource, titles: Mapping[str, str]) -> Table:
    """One row per metric and side: mean score and interval. ``titles`` maps a side's name to what a person reads."""
    confidence = float(run["spec"].get("confidence", "0.95"))
    table = Table("metric", "model", "score", f"{confidence:.0%} interval", title_justify="left")
    for result in run["status"].get("sides", ()):
        title = titles.get(result["side"], result["side"])
        score = f"{float(result['value']):.2f}"
        table.add_row(result["metric"], title, score, _interval(result["interval"]))
    return table


def comparisons_table(run: Resource) -> Table:
    """One row per metric: candidate minus baseline on the same items, its paired interval, and the verdict."""
    table = Table(
        "metric", "candidate - baseline", "paired interval", "p", "items", "verdict", title_justify="left"
    )
    for result in run["status"].get("results", ()):
        table.add_row(
            result["metric"],
            f"{float(result['delta']):+.2f}",
            _interval(result["interval"]),
            f"{float(result['pValue']):.2g}",
            str(result["items"]),
            result.get("verdict", "not gated"),
        )
    return table
