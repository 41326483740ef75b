"""Steps of the quickstart, with commands and cluster output printed."""

import json
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletionMessageParam
from rich.console import Console
from rich.table import Table

from tunesmith_cluster.api import ApiError
from tunesmith_cluster.client import ClusterClient

from .ask import ask, forwarded
from .installation import helm
from .progress import DemoFailed, describe_deployment, describe_job, describe_run, require_success
from .results import comparisons_table, sides_table

QUICKSTART = Path(__file__).resolve().parents[4] / "examples" / "quickstart"
NAMESPACE = "tunesmith-quickstart"
JOB, RUN, DEPLOYMENT = "expenses", "expenses", "assistant"
ALIAS, BASE = "expenses", "base"
POLL_SECONDS = 3.0
LIMIT_SECONDS = 3600.0
QUESTIONS = 2
SIDES = {
    "bare-base": "base model",
    "baseline": "base model, 5 examples in its prompt",
    "candidate": "tuned model",
}


def apply_claims(client: ClusterClient) -> None:
    """The namespace and the claims, before anything looks for a model on them."""
    client.kubectl("apply", "--server-side", "-f", str(QUICKSTART / "namespace.yaml"))
    client.kubectl("apply", "--server-side", "-n", NAMESPACE, "-f", str(QUICKSTART / "claims.yaml"))


def apply_quickstart(client: ClusterClient) -> None:
    """``kubectl apply --server-side -k examples/quickstart``: server-side, because the data is a large ConfigMap."""
    client.kubectl("apply", "--server-side", "-k", str(QUICKSTART))


def _read(client: ClusterClient, kind: str, name: str) -> dict[str, Any]:
    try:
        return client.get(kind, name, NAMESPACE)
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return {"kind": kind, "metadata": {"name": name}}
        raise


def wait_until(console: Console, states: Iterator[tuple[str, bool]]) -> None:
    """Print each new line of the states until one is the last.

    Raises:
        DemoFailed: it took longer than an hour.
    """
    deadline, before = time.monotonic() + LIMIT_SECONDS, ""
    for line, done in states:
        if line != before:
            console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim]  {line}", soft_wrap=True)
            before = line
        if done:
            return
        if time.monotonic() > deadline:
            raise DemoFailed(f"not done after an hour; last seen: {line}")
        time.sleep(POLL_SECONDS)


def _states(
    client: ClusterClient, kind: str, name: str, describe: Callable[[Any], str], done: Callable[[Any], bool]
) -> Iterator[tuple[str, bool]]:
    while True:
        resource = _read(client, kind, name)
        require_success(resource)
        yield f"{kind}/{name}: {describe(resource)}", done(resource.get("status", {}))


def watch_training(client: ClusterClient, console: Console) -> None:
    """Follow the FineTuneJob until it has an artifact."""
    states = _states(
        client,
        "finetunejob",
        JOB,
        describe_job,
        lambda status: status.get("phase") in {"Succeeded", "Failed"},
    )
    wait_until(console, states)


def watch_evaluation(client: ClusterClient, console: Console) -> None:
    """Follow the EvalRun until it has a verdict."""
    wait_until(console, _states(client, "evalrun", RUN, describe_run, lambda status: "verdict" in status))


def watch_serving(client: ClusterClient, console: Console) -> None:
    """Follow the AdapterDeployment until the alias is stable."""

    def stable(status: dict[str, Any]) -> bool:
        return any(
            adapter["name"] == ALIAS and adapter["phase"] == "Stable"
            for adapter in status.get("adapters", ())
        )

    wait_until(console, _states(client, "adapterdeployment", DEPLOYMENT, describe_deployment, stable))


def show_results(client: ClusterClient, console: Console) -> None:
    """The two tables of the EvalRun, and its verdict.

    Raises:
        DemoFailed: the verdict is not Pass, so that nothing would be served.
    """
    run = client.get("evalrun", RUN, NAMESPACE)
    console.print(sides_table(run, SIDES))
    console.print(comparisons_table(run))
    verdict = run["status"]["verdict"]
    console.print(f"Verdict: [bold]{verdict}[/bold]")
    if verdict != "Pass":
        raise DemoFailed(f"the AdapterDeployment serves only what passed, and the verdict is {verdict}")


def show_answers(client: ClusterClient, console: Console) -> None:
    """The same held-out questions, answered by the base model and by the tuned alias."""
    rows = [json.loads(line) for line in (QUICKSTART / "data" / "test.jsonl").read_text().splitlines()]
    table = Table("question", "base model", "tuned model", "right answer", show_lines=True)
    with forwarded(client, NAMESPACE, service_name(client)) as address:
        for row in rows[:QUESTIONS]:
            *question, expected = row["messages"]
            messages: list[ChatCompletionMessageParam] = question
            base, tuned = (ask(address, model, messages) for model in (BASE, ALIAS))
            table.add_row(question[-1]["content"], base.text, tuned.text, expected["content"])
    console.print(table)
    console.print(f"The tuned answers came from {tuned.version}.")


def service_name(client: ClusterClient) -> str:
    """The Service in the AdapterDeployment's ``status.url``: ``http://<service>.<namespace>.svc…``."""
    url: str = client.get("adapterdeployment", DEPLOYMENT, NAMESPACE)["status"]["url"]
    return url.removeprefix("http://").partition(".")[0]


def show_listing(client: ClusterClient, console: Console) -> None:
    """Print the three resources as listed by kubectl."""
    listing = client.kubectl("-n", NAMESPACE, "get", "finetunejobs,evalruns,adapterdeployments")
    console.print(listing, soft_wrap=True, highlight=False)


def remove(client: ClusterClient) -> None:
    """Take the quickstart and the release away; the claims' contents go with their namespace."""
    client.kubectl("delete", "--ignore-not-found", "namespace", NAMESPACE, timeout=300)
    helm(client, "uninstall", "--ignore-not-found", "-n", "tunesmith-system", "tunesmith")
