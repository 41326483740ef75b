"""Run of the evaluate stage, from the suites to the committed report."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tunesmith_contract.base import canonical_json
from tunesmith_contract.evaluation import Side
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.report import RunReport
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.answering.interface import Answerer
from tunesmith_evaluation.answering.local import check_templates, local_answerers
from tunesmith_evaluation.answering.remote import remote_answerers
from tunesmith_evaluation.items.item import items_digest
from tunesmith_evaluation.models.sides import LocalSides, verify_sides
from tunesmith_evaluation.policy.record import ResolvedSide, ResolvedSuite, build_policy_record
from tunesmith_evaluation.suites.loading import SuiteItems, check_sides, load_suite

from .asking import plan_requests
from .budgets import check_budgets
from .collecting import collect_replies
from .documents import RunFacts
from .examples import Examples, draw_examples
from .results import build_report
from .reuse import find_unchanged
from .scorers import Scorers, open_scorers
from .scoring import score_suite
from .shares import Shares
from .suites import LoadedSuite, check_context_columns, sample_suite
from .trained_rows import LeakReport, find_leaks

log = logging.getLogger(__name__)


def evaluate(
    config: EvaluateConfig,
    storage: Storage,
    workspace: Workspace,
    progress: ProgressReporter,
    finished: FinishedWork | None = None,
) -> RunReport | None:
    """Run the stage and commit its report; None in all pods but the first that share the items.

    Args:
        finished: an earlier evaluation, whose report is taken over if all that decides is unchanged.

    Raises:
        StageError: an artifact, the data or a model do not fit the run.
        Preempted: the pod received SIGTERM; the answers so far are on disk.
    """
    started = datetime.now(UTC)
    with open_scorers(config, storage, workspace) as scorers:
        data = _load_suites(
            config, storage, scorers, {suite.name for suite in config.suites if not suite.is_safety}
        )
        # Before models are fetched.
        check_sides(data.values(), config.sides)
        local = verify_sides(config.base_model, config.sides, storage)
        config = config.model_copy(update={"sides": local.with_switches(config.sides)})
        data |= _load_suites(
            config, storage, scorers, {suite.name for suite in config.suites} - set(data), local
        )
        loaded = [sample_suite(data[suite.name], config.seed) for suite in config.suites]
        check_context_columns(config, loaded)
        leaks = find_leaks(config, local.manifests, loaded, storage)
        for warning in leaks.warnings:
            log.warning("%s", warning)
        suites = [replace(suite, leaked=frozenset(leaks.leaks)) for suite in loaded]
        examples = draw_examples(config, suites, storage)
        requests = list(plan_requests(config, suites, examples))
        check_budgets(config, suites, requests)
        answerers = [
            *local_answerers(config, local),
            *remote_answerers(config, storage, workspace, requests),
        ]
        check_templates(local, requests)
        revisions = _revisions(config.sides, answerers)
        base = local.base_revision(config.base_model)
        baseline = ResolvedSide(revisions[config.sides[1].name], base)
        policy = _policy(config, suites, baseline, examples, leaks)
        reused = find_unchanged(finished, config, policy, revisions, storage)
        if reused is not None:
            return _commit_by_first(reused, workspace)
        replies = collect_replies(
            requests,
            answerers,
            workspace,
            Shares(config.sides, workspace, progress),
        )
        if replies is None:
            return None
        scored = [score_suite(suite, config, replies) for suite in suites]
    facts = RunFacts(
        started, datetime.now(UTC), leaks, policy, _are_same(config.sides[0], config.sides[1], answerers)
    )
    report = build_report(config, workspace, scored, revisions, base, facts)
    workspace.commit(report)
    return report


def _commit_by_first(report: RunReport, workspace: Workspace) -> RunReport | None:
    """Commit a report that all pods came to; None in all pods but the first."""
    if not workspace.share.is_first:
        return None
    workspace.commit(report)
    return report


def _load_suites(
    config: EvaluateConfig,
    storage: Storage,
    scorers: Scorers,
    names: Collection[str],
    local: LocalSides | None = None,
) -> dict[str, SuiteItems]:
    """Items of some suites by their name; the questions of safety suites depend on the models that answer."""
    plain = local is not None and bool(names) and local.lack_templates
    return {
        suite.name: load_suite(suite, config, storage, scorers[suite.name], plain=plain)
        for suite in config.suites
        if suite.name in names
    }


def _revisions(sides: Sequence[Side], answerers: Sequence[Answerer]) -> dict[str, str]:
    """Revision of each side's model or artifact."""
    return {
        side.name: answerer.revision(side.name)
        for side in sides
        for answerer in answerers
        if side.name in answerer.sides
    }


def _are_same(candidate: Side, baseline: Side, answerers: Sequence[Answerer]) -> bool:
    """True if both sides are one model that is asked in the same way, by whatever names."""
    identities = {
        side: canonical_json(answerer.identity(side)) for answerer in answerers for side in answerer.sides
    }

    def asked(side: Side) -> tuple[object, ...]:
        return side.system_prompt, side.few_shot, side.context_column, side.asked_switches

    return identities[candidate.name] == identities[baseline.name] and asked(candidate) == asked(baseline)


def _policy(
    config: EvaluateConfig,
    suites: Sequence[LoadedSuite],
    baseline: ResolvedSide,
    examples: Examples,
    leaks: LeakReport,
) -> dict[str, Any]:
    """Record of all that decides."""
    resolved = {
        suite.name: ResolvedSuite(items_digest(suite.sampled), _versions(suite), _definition(suite))
        for suite in suites
    }
    drawn = dict.fromkeys(example.digest for some in examples.values() for example in some)
    references = {side.name for side in config.sides[2:]}
    sampled = {item.digest for suite in suites for item in suite.sampled}
    left_out = [item for item, leak in leaks.leaks.items() if leak.side in references and item in sampled]
    return build_policy_record(config, resolved, baseline, baseline.model, list(drawn), left_out)


def _versions(suite: LoadedSuite) -> dict[str, str]:
    """Version of the scorer of each metric; that of a container is its image."""
    return {
        metric.key: scorer.version if (scorer := suite.scorers.get(metric.key)) is not None else ""
        for metric in suite.suite.metrics
    }


def _definition(suite: LoadedSuite) -> str:
    """Digest of a harness task's definition and image of a container; empty for other suites."""
    image = suite.suite.container.image if suite.suite.container is not None else ""
    return " ".join(filter(None, [suite.data.definition, image]))
