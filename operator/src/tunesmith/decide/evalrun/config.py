"""Configuration of an evaluation: everything that its pods read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunesmith.api.evalrun import EvalRun, EvalRunSpec
from tunesmith.api.reasons import EvalRunReason
from tunesmith.decide.finetunejob.referenced_jobs import NotReady
from tunesmith_contract.evaluation import Metric, Suite
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.layout import output_of
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import EvaluateConfig, Owner
from tunesmith_contract.uris import KEEPS_WORK, parse_uri

from .sides import ResolvedSide, SideSources, base_of_run, prepared_rows, resolve_sides
from .suites import model_use, resolve_gates, resolve_suites, suite_notes

#: Metrics of the probabilities of given tokens, which neither endpoints nor stored answers tell.
_OF_PROBABILITIES = frozenset({Metric.PERPLEXITY, Metric.BITS_PER_BYTE})

NO_MODEL = "All compared models answer from endpoints or stored answers, so the pod loads no model and requests no GPU."


@dataclass(frozen=True, slots=True)
class ResolvedEvaluation:
    """The configuration of an evaluation, and the sides with all that is known of them."""

    config: EvaluateConfig
    sides: tuple[ResolvedSide, ...]


def resolve_evaluation(run: EvalRun, sources: SideSources) -> ResolvedEvaluation | NotReady | Failure:
    """Configuration of the evaluation; or what is waited for, or the failure.

    Args:
        sources: the resources that the compared models name.
    """
    spec, meta = run.spec, run.metadata
    sides = resolve_sides(spec, meta.namespace, sources)
    if not isinstance(sides, tuple):
        return sides
    place = _place(spec, sides[0])
    if isinstance(place, Failure):
        return place
    suites = resolve_suites(spec)
    if (refusal := _refuse_probabilities(suites, sides)) is not None:
        return refusal
    shown = any(resolved.side.few_shot for resolved in sides)
    output, workspace = place
    config = EvaluateConfig(
        owner=Owner(kind="EvalRun", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        base_model=base_of_run(spec, sides[0])[0],
        sides=tuple(resolved.side for resolved in sides),
        suites=suites,
        gates=resolve_gates(spec),
        few_shot_from=_examples(spec, sides[0]) if shown else None,
        trained_rows=tuple(rows for resolved in sides for rows in resolved.rows),
        confidence=float(spec.confidence),
        engine=spec.engine,
        shards=spec.parallelism,
        gpus=spec.compute.gpus if any(resolved.side.is_loaded for resolved in sides) else 0,
        seed=spec.seed,
        notes=_notes(spec, sides),
        advice=model_use(spec.advice) if spec.advice else None,
        workspace=workspace,
        output=output,
    )
    return ResolvedEvaluation(config, sides)


def _notes(spec: EvalRunSpec, sides: Sequence[ResolvedSide]) -> tuple[str, ...]:
    notes = [*suite_notes(spec), *(note for resolved in sides for note in resolved.notes)]
    return tuple(dict.fromkeys(notes))[:8]


def _examples(spec: EvalRunSpec, candidate: ResolvedSide) -> str | None:
    """URI of the rows from which worked examples are drawn: by default what the candidate's job was trained on."""
    if spec.few_shot_from is not None:
        return spec.few_shot_from.uri
    return prepared_rows(candidate.job) if candidate.job else None


def _place(spec: EvalRunSpec, candidate: ResolvedSide) -> tuple[str, str | None] | Failure:
    """URI below which reports are written, and that of work files where it is another."""
    side, job = candidate.side, candidate.job
    if spec.output is not None:
        return spec.output.uri, None
    if side.checkpoint is not None and job is not None:
        return job.spec.workspace.uri if job.spec.workspace else job.spec.output.uri, None
    if side.adapter is None:
        return _needs_output("nothing else says where the report goes")
    place = parse_uri(side.adapter.uri)
    output = str(output_of(place))
    if place.scheme in KEEPS_WORK:
        return output, None
    if job is None or job.spec.workspace is None:
        return _needs_output(f"{side.adapter.uri} lies in a registry or hub, which keeps no reports")
    return output, job.spec.workspace.uri


def _needs_output(cause: str) -> Failure:
    message = (
        "Write output: {uri: pvc://claim/folder} (or s3://bucket/folder, gs://bucket/folder, az://container/folder) in "
        f"another EvalRun: {cause}."
    )
    return Failure(category=FailureCategory.USER_ERROR, reason=EvalRunReason.INVALID_SPEC, message=message)


def _refuse_probabilities(suites: Iterable[Suite], sides: Sequence[ResolvedSide]) -> Failure | None:
    """Failure for a metric of probabilities where a compared model tells none."""
    without = [resolved.side.name for resolved in sides if not resolved.side.is_loaded]
    asked = [
        (suite.name, metric.type)
        for suite in suites
        for metric in suite.metrics
        if metric.type in _OF_PROBABILITIES
    ]
    if not without or not asked:
        return None
    suite_name, metric = asked[0]
    message = (
        f"{metric} of suite {suite_name} needs the probabilities of given tokens, which an endpoint or stored answers "
        f"({' and '.join(without)}) do not tell: leave the metric out, or compare models whose weights the pod reads."
    )
    return Failure(category=FailureCategory.USER_ERROR, reason=EvalRunReason.INVALID_SPEC, message=message)
