"""Console command ``tunesmith-search``: table and plot of a FineTuneJob's search, from its resource as JSON.

``kubectl get finetunejob NAME -o json | tunesmith-search --format HTML > search.html``
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tunesmith_contract.search import MAX_TRIALS, Pruner, SearchSettings, Trial

from .page import render_html, render_json, render_markdown

FORMATS = ("HTML", "Markdown", "JSON")


class NoSearch(ValueError):
    """Input that holds no search; the message says what to pass instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read a FineTuneJob from the standard input, write its search to the standard output; 1 for unusable input."""
    parser = argparse.ArgumentParser(prog="tunesmith-search", description=__doc__)
    parser.add_argument("--format", choices=FORMATS, default="HTML", help="form of the result")
    form = parser.parse_args(arguments).format
    try:
        title, settings, trials = read_job(sys.stdin.read())
    except NoSearch as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if form == "HTML":
        sys.stdout.write(render_html(title, settings, trials))
    elif form == "Markdown":
        sys.stdout.write(render_markdown(title, settings, trials))
    else:
        sys.stdout.write(render_json(settings, trials))
    return 0


def read_job(text: str) -> tuple[str, SearchSettings, list[Trial]]:
    """Title, settings and trials of the FineTuneJob in JSON.

    Raises:
        NoSearch: it is no FineTuneJob, or has no search.
    """
    try:
        body: Any = json.loads(text)
    except ValueError:
        raise NoSearch("The input is not JSON: pass `kubectl get finetunejob NAME -o json`.") from None
    if not isinstance(body, dict) or body.get("kind") != "FineTuneJob":
        raise NoSearch("The input is not one FineTuneJob: pass `kubectl get finetunejob NAME -o json`.")
    search = body.get("spec", {}).get("search")
    if not search:
        raise NoSearch(f'FineTuneJob "{body["metadata"]["name"]}" has no spec.search.')
    try:
        trials = [Trial.model_validate(item) for item in _found(body)]
        title = f'Search of FineTuneJob "{body["metadata"]["name"]}"'
        return title, _settings(search), trials
    except (KeyError, ValidationError) as error:
        raise NoSearch(f"The FineTuneJob can't be read: {error}") from None


def _found(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Trials in the status, as documents of the contract."""
    found: list[dict[str, Any]] = body.get("status", {}).get("search", {}).get("trials", [])
    return [item | {"measurements": item.get("compared", [])} for item in found]


def _settings(search: Mapping[str, Any]) -> SearchSettings:
    budget, halving = search.get("budget", {}), search.get("pruner") == Pruner.SUCCESSIVE_HALVING
    return SearchSettings.model_validate(
        {
            "parameters": search["parameters"],
            "sampler": search.get("sampler", "TPE"),
            "pruner": search.get("successiveHalving", {}) if halving else None,
            "trials": budget.get("trials", MAX_TRIALS),
            "parallelism": search.get("parallelism", 1),
            "seed": search.get("seed", 42),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
