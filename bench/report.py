"""Writes docs/benchmarks.md: the tables from bench/results/*.json, and the words beside them from bench/notes/*.md."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunesmith_contract.run_config import Adapter
from tunesmith_contract.shared_rules.learning_rate import TrainingSize, choose_learning_rate

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
NOTES = ROOT / "bench" / "notes"
PAGE = ROOT / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks

How fast the operator, the agent, the trainer, evaluations and prepare are, and how much memory they take. `make bench`
measures and writes `bench/results/*.json` and this page. Compare figures of one run with each other, not with those of
another machine: two cores carry the API server, the load and what is measured.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def operator_section(result: dict[str, Any]) -> str:
    """From apply to the first child, and memory."""
    one, many, floor = result["oneByOne"], result["atOnce"], result["floor"]
    rows = [
        ("aim", "10", "", "200", ""),
        (
            "Tunesmith",
            one["firstChild"]["p50"],
            one["firstChild"]["p99"],
            many["childrenPerSecond"],
            result["afterwards"]["residentMiB"],
        ),
        ("a bare ConfigMap, created and seen by a watch", floor["p50"], floor["p99"], "", ""),
        _kubeflow_row(result.get("kubeflowTrainer")),
        ("a bare kopf prototype without status, measured before on a like machine", 5.1, 21, 392, 82),
    ]
    head = ("from create to first child", "p50 ms", "p99 ms", "children/s, 500 at once", "resident MiB")
    calls = [(call, count) for call, count in sorted(result["apiCalls"].items(), key=lambda item: -item[1])]
    objects = one["objects"] + one["objects"] // 10 + many["objects"]
    return "\n\n".join(
        [
            "## Operator",
            f"{result['machine']}, load average {result['loadAverage'][0]} before the run.",
            table(head, rows),
            f"First Job: p50 {one['firstJob']['p50']} ms, p99 {one['firstJob']['p99']} ms; "
            f"at once {many['jobsPerSecond']} a second. The API server itself took "
            f"{many['createdPerSecond']} of the 500 resources a second from {many['threads']} threads.",
            *_processor_table(result),
            table((f"API call, for {objects} resources", "count"), calls),
        ]
    )


def _kubeflow_row(result: dict[str, Any] | None) -> tuple[object, ...]:
    """Kubeflow Trainer in the same run; its first child is a JobSet."""
    if result is None:
        return ("Kubeflow Trainer v2.0.0, measured before on a like machine", 9.8, 55, 20, 58)
    one, many = result["oneByOne"]["firstChild"], result["atOnce"]
    name = f"Kubeflow Trainer {result['version']}, to its JobSet"
    return name, one["p50"], one["p99"], many["childrenPerSecond"], result["afterwards"]["residentMiB"]


def _processor_table(result: dict[str, Any]) -> list[str]:
    """Processor time per resource of many at once, by process."""
    sides = {"Tunesmith": result["atOnce"]}
    if "kubeflowTrainer" in result:
        sides["Kubeflow Trainer"] = result["kubeflowTrainer"]["atOnce"]
    sides = {
        name: side["processorMsPerObject"] for name, side in sides.items() if "processorMsPerObject" in side
    }
    if not sides:
        return []
    processes = list(next(iter(sides.values())))
    head = ("processor ms per resource, many at once", *processes)
    return [table(head, [(name, *(side[process] for process in processes)) for name, side in sides.items()])]


def many_jobs_section(result: dict[str, Any]) -> str:
    """Memory, cost of one more job and time to restart, by the number of kept jobs."""
    steps = result["steps"]
    jobs = [
        (
            f"{step['jobs']:,}",
            step["processorMsPerJob"],
            step["secondsPerJob"],
            step["firstChildMs"],
            step["callsPerJob"],
            step["idle"]["passesPerSecond"],
            step["idle"]["processorMsPerSecond"],
            step["loadAverage"],
        )
        for step in steps
    ]
    restarts = [
        (
            f"{step['jobs']:,}",
            step["memory"]["residentMiB"],
            step["memory"]["peakMiB"],
            step["restart"]["readySeconds"],
            step["restart"]["readyProcessorSeconds"],
            step["restart"]["caughtUpSeconds"],
            step["restart"]["processorSeconds"],
            round(step["clusterMiB"]["kube-apiserver"]),
            round(step["clusterMiB"]["etcd"]),
        )
        for step in steps
    ]
    job_head = (
        "kept jobs",
        "one more job: processor ms",
        "wall s",
        "first child ms",
        "API calls",
        "at rest: passes/s",
        "processor ms/s",
        "load average",
    )
    restart_head = (
        "kept jobs",
        "resident MiB",
        "at most MiB",
        "restart: works after s",
        "processor s",
        "all looked at after s",
        "processor s",
        "API server MiB",
        "etcd MiB",
    )
    return "\n\n".join(
        [
            "## Ten thousand jobs",
            f"{result['machine']}. Half of the jobs have an EvalRun; {result['adapterDeployments']} "
            "AdapterDeployments are there from the step on at which there are jobs for them. One more job is one of "
            f"{result['jobsPerStep']} that run to the end of their pods, four at a time.",
            table(restart_head, restarts),
            table(job_head, jobs),
        ]
    )


def agent_section(result: dict[str, Any]) -> str:
    """Requests per second and latency beside other proxies, streams, memory, and vLLM behind the agent."""
    load = (
        f"Load average {result['loadAverageBefore']} before the run; {result['rounds']} round(s) of "
        f"{result['seconds']:g} s a side, in turn, and the median of them."
    )
    sides = result["sides"]
    parts = ["## Agent", load, _closed_loop_table(sides)]
    if "rate1000" in sides["backend"]:
        parts += [_steady_table(sides), _stream_table(sides)]
    if "soak" in result:
        parts.append(_soak_words(result["soak"]))
    if "engine" in result:
        parts.append(_engine_table(result["engine"]))
    return "\n\n".join(parts)


def _closed_loop_table(sides: dict[str, Any]) -> str:
    rows = [
        (
            name,
            *(side[connections][figure] for connections, figure in _AGENT_FIGURES),
            side["residentMiB"],
        )
        for name, side in sides.items()
    ]
    head = (
        "one core, chat completions",
        "req/s, 16 conn.",
        "p50 ms",
        "p99 ms",
        "CPU µs/req",
        "req/s, 1 conn.",
        "p50 ms",
        "MiB",
    )
    return table(head, rows)


def _steady_table(sides: dict[str, Any]) -> str:
    """Latencies at steady rates, and what each side adds to the engine's."""
    rates = ("rate1000", "rate100")
    rows = []
    for name, side in sides.items():
        cells: list[object] = []
        for rate in rates:
            found, direct = side.get(rate), sides["backend"][rate]
            cells += [""] * 4 if found is None else [found["p50Milliseconds"], found["p99Milliseconds"]]
            if found is not None:
                added = (found[key] - direct[key] for key in ("p50Milliseconds", "p99Milliseconds"))
                cells += [f"{value:.3f}" for value in added]
        if any(cells):
            rows.append((name, *cells))
    aim = ("aim", "", "", 0.3, 2, *[""] * 4)
    columns = ("p50 ms", "p99 ms", "added p50", "added p99")
    head = (
        "requests a second:",
        *(f"{rate.removeprefix('rate')}: {name}" for rate in rates for name in columns),
    )
    return table(head, [aim, *rows])


def _stream_table(sides: dict[str, Any]) -> str:
    """Latency of a token, from the engine to the client."""
    direct = sides["backend"]["stream"]
    rows = []
    for name, side in sides.items():
        if (found := side.get("stream")) is not None:
            added = found["p50Microseconds"] - direct["p50Microseconds"]
            processor = found["processorMicrosecondsPerToken"]
            rows.append((name, found["p50Microseconds"], found["p99Microseconds"], f"{added:.1f}", processor))
    return table(("each token of a stream, µs", "p50", "p99", "added p50", "CPU"), rows)


def _soak_words(soak: dict[str, Any]) -> str:
    return (
        f"Memory of the agent over {soak['seconds']:g} s and {soak['requests']:,} requests: {soak['startMiB']} MiB at "
        f"the start, {soak['endMiB']} MiB at the end; {soak['grownInSecondHalfMiB']} MiB more in the second half."
    )


def _engine_table(engine: dict[str, Any]) -> str:
    """vLLM on CPUs behind the agent and without it."""
    rows = [
        (
            name,
            f"{engine['median'][key]:.1f}",
            ", ".join(f"{rate:.0f}" for rate in engine["tokensPerSecond"][key]),
        )
        for name, key in (("without the agent", "without"), ("through the agent", "through"))
    ]
    rows.append(("ratio", f"{engine['ratio']:.3f}", ""))
    caption = f"vLLM, {engine['adapters']} adapters in mixed batches of {engine['requestsAtOnce']}"
    return table((caption, "tokens/s", "rounds"), rows)


def rollouts_section(result: dict[str, Any]) -> str:
    """From an artifact to its proof, and from a decision to the last answer."""
    rows = [
        (name, *(result[key][figure] for figure in ("p50", "p99", "max")))
        for name, key in (
            (f"artifact named to proven in {result['pods']} pods (aim: p99 1000)", "namedToProven"),
            ("decision to take it back, to the last request that it got (aim: 1000)", "decidedToLastAnswer"),
        )
    ]
    load = (
        f"{result['releases']} releases, each aborted as soon as it had weight, at {result['requestsPerSecond']:.0f} "
        f"requests a second. {result['machine']}, load average {result['loadAverageBefore']} before the run."
    )
    return "\n\n".join(["## Rollouts", load, table(("ms", "p50", "p99", "max"), rows)])


def trainer_section(result: dict[str, Any]) -> str:
    """The trainer beside scripts, preemption, and ways to train."""
    machine = result["machine"]
    parts = [
        "## Trainer",
        f"{machine['hardware']}, torch {machine['torch']}.",
        _beside_table(result["besideBare"]),
        _defaults_table(result["defaults"]),
        _preemption_table(result["preemption"]),
        _kinds_table(result["kinds"]),
    ]
    return "\n\n".join(parts)


def _beside_table(beside: dict[str, Any]) -> str:
    rows = [
        (
            name,
            *(f"{beside[key][figure]:.1f}" for figure in ("wall", "training")),
            f"{beside[key]['loss']:.3f}",
        )
        for name, key in (("Tunesmith", "ours"), ("a bare TRL script", "bare"))
    ]
    ratio = ("ratio (aim: at most 1.02)", f"{beside['wallRatio']:.2f}", f"{beside['trainingRatio']:.2f}", "")
    caption = f"{beside['steps']} steps, same settings, median of {beside['repeats']}"
    return table((caption, "process s", "training s", "loss"), [*rows, ratio])


def _defaults_table(defaults: dict[str, Any]) -> str:
    rows = [
        (name, f"{defaults[key]['tokensPerSecond']:.0f}", f"{defaults[key]['loss']:.3f}")
        for name, key in (("Tunesmith's defaults", "ours"), ("TRL's defaults", "trl"))
    ]
    return table((f"{defaults['epochs']} epochs of the same rows", "tokens/s", "loss at the end"), rows)


def _preemption_table(preemption: dict[str, Any]) -> str:
    rows = [
        ("start of the process to its first step", f"{preemption['startToFirstStep']:.1f}"),
        ("one step", f"{preemption['step']:.2f}"),
        ("SIGTERM to the end, checkpoint committed", f"{preemption['sigtermToEnd']:.2f}"),
    ]
    return table(("preemption", "s"), rows)


def _kinds_table(kinds: list[dict[str, Any]]) -> str:
    rows = [
        (
            row["adapter"],
            f"{row['seconds']:.1f}",
            f"{row['tokensPerSecond']:.0f}",
            f"{row['peakMemoryBytes'] / 2**20:.0f}",
            f"{row['artifactBytes'] / 2**20:.1f}",
            f"{row['evalLoss']:.3f}",
            f"{row['jsonFields']:.2f}",
        )
        for row in kinds
    ]
    head = ("s", "tokens/s", "peak MiB", "artifact MiB", "validation loss", "JSON fields right")
    return table(("same task, same steps", *head), rows)


def learning_rate_section(result: dict[str, Any]) -> str:
    """The rate of Auto beside the best of a sweep, for each setting."""
    settings: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for trial in result["trials"]:
        key = tuple(trial[name] for name in ("model", "task", "rank", "alpha", "steps", "batch"))
        settings.setdefault(key, []).append(trial)
    rows = [
        _rates_row(key, sorted(trials, key=lambda trial: trial["rate"])) for key, trials in settings.items()
    ]
    head = ("model, task, adapter, steps x rows", "Auto before", "Auto", "best of these", "loss by rate")
    return "\n\n".join(["## Learning rate", table(head, rows)])


def _rates_row(key: tuple[Any, ...], trials: Sequence[dict[str, Any]]) -> tuple[object, ...]:
    model, task, rank, alpha, steps, batch = key
    adapter = None if rank is None else Adapter(rank=rank, alpha=alpha)
    auto = choose_learning_rate("sft", adapter, TrainingSize(trials[0]["width"], batch, steps))
    best = min((trial for trial in trials if trial["loss"] is not None), key=lambda trial: trial["loss"])
    losses = ", ".join(
        f"{trial['rate']:g}: {'none' if trial['loss'] is None else format(trial['loss'], '.3g')}"
        for trial in trials
    )
    kind = "all weights" if rank is None else f"rank {rank}, alpha {alpha}"
    return (
        f"{model}, {task}, {kind}, {steps} x {batch}",
        "2e-5" if rank is None else "2e-4",
        f"{auto:g}",
        f"{best['rate']:g}",
        losses,
    )


def near_section(result: dict[str, Any]) -> str:
    """Near duplicates beside text-dedup, and leaks."""
    kinds = list(result["sides"]["Tunesmith"]["recall"])
    rows = [
        (
            name,
            side["seconds"],
            side["peakMiB"],
            percent(side["recallAll"]),
            *(percent(side["recall"][kind]) for kind in kinds),
            percent(side["precision"]),
            percent(side["falseRate"]["template"]),
        )
        for name, side in result["sides"].items()
    ]
    aim = ("aim", "", "", "95", *("" for _ in kinds), "", "1")
    caption = f"{result['rows']:,} rows, a tenth of them copies, % found"
    head = (caption, "s", "MiB", "all", *kinds, "precision", "templates removed")
    leaks = result["leaks"]
    found = [
        ("all", percent(leaks["recallAll"])),
        *((kind, percent(share)) for kind, share in leaks["recall"].items()),
    ]
    found.append(("other rows taken for a leak", percent(leaks["falseRate"])))
    return "\n\n".join(
        [
            "## Near duplicates and leaks",
            f"{result['machine']}, load average {result['loadAverageBefore'][0]} before the run.",
            table(head, [aim, *rows]),
            table((f"leaks of {result['heldOut']:,} held-out rows, {leaks['seconds']} s", "%"), found),
            f"Personal data: {result['personalDataMicrosecondsPerRow']} µs for a row that holds none.",
        ]
    )


def data_section(result: dict[str, Any]) -> str:
    """Prepare beside a script that uses datasets, and of a million rows."""
    compared, many = result["compared"], result["many"]
    names = {"ours": "Tunesmith", "datasets": "datasets", "datasets2": "datasets, 2 processes"}
    rows = [
        (names[key], side["seconds"], f"{side['rowsPerSecond']:,}", side["peakMiB"])
        for key, side in compared["sides"].items()
    ]
    parts = compared["sides"]["ours"]["parts"]
    read = parts["read"] + parts["wrote"]
    same = ("Tunesmith, what the script does too", f"{read:.1f}", f"{compared['rows'] / read:,.0f}", "")
    head = (f"{compared['rows']:,} conversations", "s", "rows/s", "peak MiB, all processes")
    taken = [(name, f"{seconds:.1f}") for name, seconds in parts.items()]
    aim = ("aim", "", "", 1024)
    much = (f"{many['rows']:,} conversations", many["seconds"], f"{many['rowsPerSecond']:,}", many["peakMiB"])
    return "\n\n".join(
        [
            "## Prepare",
            f"{result['cores']} cores; {compared['bytes'] / 2**20:,.0f} and {many['bytes'] / 2**20:,.0f} MiB of JSONL.",
            table(head, [*rows, same]),
            table(("of which", "s"), taken),
            table(("many rows", "s", "rows/s", "peak MiB, all processes"), [aim, much]),
        ]
    )


def gpu_smoke_section(result: dict[str, Any]) -> str:
    """Each check of ``bench/gpu_smoke.py``, with speed, and memory beside its estimate."""
    rows = [_check_row(check, _TRAINING_FIGURES) for check in result["checks"]]
    head = ("check", "result", "s", "tokens/s", "peak GiB", "estimate GiB", "kernels, or the reason")
    facts: dict[str, Any] = {}
    for check in result["checks"]:
        if check["name"] in {"versions", "facts"}:
            facts |= check["numbers"]
    names = ("hardware", "driver", "torch", "transformers")
    machine = ", ".join(f"{name} {facts[name]}" for name in names if name in facts)
    return "\n\n".join(
        [
            "## Training on a GPU",
            f"`bench/gpu_smoke.py`, {result['seconds']:.0f} s of {result['budget']:.0f}: {machine}.",
            table(head, rows),
        ]
    )


def gpu_serve_section(result: dict[str, Any]) -> str:
    """Each step of ``bench/gpu_serve.sh``, with the differences that proofs judge."""
    rows = [_check_row(check, _PROOF_FIGURES) for check in result["checks"]]
    head = (
        "step",
        "result",
        "s",
        "share of the effect",
        "noise of the base",
        "residual",
        "tokens/s",
        "GiB",
        "",
    )
    return "\n\n".join(
        ["## Serving on a GPU", "`bench/gpu_serve.sh`; noise in nats per token.", table(head, rows)]
    )


def _check_row(check: dict[str, Any], figures: Sequence[str]) -> tuple[object, ...]:
    numbers = check["numbers"]
    values = (f"{numbers[name]:.4g}" if name in numbers else "" for name in figures)
    remark = check["reason"] or numbers.get("kernels") or numbers.get("verdict") or ""
    return (
        check["name"],
        check["status"],
        f"{check['seconds']:.0f}",
        *values,
        remark.replace("|", "/").replace("\n", " "),
    )


def evaluation_section(result: dict[str, Any]) -> str:
    """Both sides by one run of the stage, beside two runs of lm-evaluation-harness."""
    rows = []
    for workload in result["workloads"].values():
        ours = _median_times(workload["ours"])
        for batch, found in workload["harness"].items():
            rows.append(
                (
                    workload["words"],
                    workload["items"],
                    batch,
                    *(
                        f"{one:.0f}"
                        for pair in zip(ours, _median_times(found["times"]), strict=True)
                        for one in pair
                    ),
                    *(f"{ratio:.2f}" for ratio in reversed(found["ratio"])),
                    percent(workload["sameAnswers"]),
                )
            )
    head = (
        "both sides answer",
        "items",
        "harness's batch",
        "wall s",
        "harness, wall s",
        "processor s",
        "harness, processor s",
        "ratio of processor (aim: at most 0.55)",
        "ratio of wall",
        "same answers, %",
    )
    before, after = result["loadAverage"]
    words = (
        f"{result['machine']['hardware']}, {result['model']} in float32 and an adapter of rank 16 on it, at most "
        f"{result['newTokens']} tokens an answer. One run of both sides beside two runs of lm-evaluation-harness "
        "(default batch: 1), "
        f"start of the processes and load of the model included, one thread each; number of runs: {result['repeats']}"
        f". Load average {before:.1f} before and {after:.1f} after: above the number of cores other programs "
        "ran beside it, so compare processor time."
    )
    return "\n\n".join(["## Evaluation", words, table(head, rows)])


def _median_times(times: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Median wall and processor seconds."""
    return statistics.median(time[0] for time in times), statistics.median(time[1] for time in times)


def percent(share: float) -> str:
    """A share of one in per cent."""
    return f"{100 * share:.4g}"


_AGENT_FIGURES = (
    ("connections16", "requestsPerSecond"),
    ("connections16", "p50Milliseconds"),
    ("connections16", "p99Milliseconds"),
    ("connections16", "processorMicrosecondsPerRequest"),
    ("connections1", "requestsPerSecond"),
    ("connections1", "p50Milliseconds"),
)
_TRAINING_FIGURES = ("tokensPerSecond", "peakGiB", "estimateGiB")
_PROOF_FIGURES = ("share", "baseRootMeanSquare", "residualRootMeanSquare", "tokensPerSecond", "memoryGiB")
SECTIONS = {
    "operator": operator_section,
    "many-jobs": many_jobs_section,
    "agent": agent_section,
    "rollouts": rollouts_section,
    "trainer": trainer_section,
    "learning-rate": learning_rate_section,
    "evaluation": evaluation_section,
    "data": data_section,
    "near": near_section,
    # Present once somebody has run them on a GPU and copied the result files here.
    "gpu-smoke": gpu_smoke_section,
    "gpu-serve": gpu_serve_section,
}


def main() -> None:
    """Write the page from whatever results there are."""
    parts = [HEAD.strip()]
    for name, section in SECTIONS.items():
        results, notes = RESULTS / f"{name}.json", NOTES / f"{name}.md"
        if results.exists():
            parts.append(section(json.loads(results.read_text(encoding="utf-8"))))
        if results.exists() and notes.exists():
            parts.append(notes.read_text(encoding="utf-8").strip())
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
