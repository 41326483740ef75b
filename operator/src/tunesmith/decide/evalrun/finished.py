"""Finished evaluation of an earlier run of the same name and spec: looked for, compared by the pod, and kept."""

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.api.common import Reuse
from tunesmith.api.evalrun import EvalRun
from tunesmith.decide.plan import Action
from tunesmith.decide.run.finished_work import find_finished, identify_work, keep_finished
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptRecord
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.run_config import EvaluateConfig


def with_finished(run: EvalRun, inputs: Inputs, config_maps: Sequence[Body]) -> Inputs:
    """The inputs of a new run with the finished evaluation that it may take over, if there is one.

    Args:
        config_maps: the ConfigMap of finished work for this name, if there is one.
    """
    if run.spec.reuse is Reuse.NEVER or not _is_kept(inputs):
        return inputs
    finished = find_finished(run, identify_evaluation(run, inputs), config_maps)
    return inputs if finished is None else replace(inputs, finished=finished)


def work_to_check(inputs: Inputs) -> FinishedWork | None:
    """What the pods compare with what they find, before a model is loaded."""
    finished = inputs.finished
    if finished is None or finished.record.report is None:
        return None
    return FinishedWork(uid=finished.uid, evaluation=finished.record.report.evaluation)


def keep_evaluation(
    run: EvalRun, inputs: Inputs | None, record: AttemptRecord | None, config_maps: Sequence[Body]
) -> tuple[Action, ...]:
    """Actions that keep the results of a run that has succeeded, for one that is applied again."""
    if inputs is None or not _is_kept(inputs):
        return ()
    return keep_finished(run, identify_evaluation(run, inputs), record, config_maps)


def identify_evaluation(run: EvalRun, inputs: Inputs) -> str:
    """Digest of the spec and of the compared models; items and revisions are compared by the pods."""
    config = inputs.config
    assert isinstance(config, EvaluateConfig)
    resolved = {"baseModel": config.base_model, "sides": [side.to_short_dict() for side in config.sides]}
    return identify_work(run, inputs.spec, resolved)


def _is_kept(inputs: Inputs) -> bool:
    """True if all compared models have a revision: an endpoint does not tell which weights answer."""
    config = inputs.config
    return isinstance(config, EvaluateConfig) and all(side.endpoint is None for side in config.sides)
