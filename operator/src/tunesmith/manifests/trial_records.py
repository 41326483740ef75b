"""Records of the trials of a search, in immutable ConfigMaps of its job: what was proposed, and how it ended.

They are the memory of a search, as the records of attempts are that of a run.
"""

from datetime import datetime

from pydantic import Field

from tunesmith_contract.base import Report
from tunesmith_contract.report import RunReport
from tunesmith_contract.run_config import TrainConfig, parse_run_config, run_file_text
from tunesmith_contract.search import ParameterName, ParameterValue, Trial

from .names import Component, Owner, child_metadata
from .objects import Body, KubernetesObject

PROPOSAL_KEY = "proposal.json"
TRIAL_KEY = "trial.json"
TRIAL_RUN_KEY = "trial-run.json"


class TrialProposal(Report):
    """Values of a trial, noted before its FineTuneJob is created, so that another pass can't choose others.

    Attributes:
        gpu_seconds: GPU time that the trial may take of the budget; None for no limit.
    """

    number: int = Field(ge=1)
    parameters: dict[ParameterName, ParameterValue]
    gpu_seconds: float | None = None


class TrialRecord(Report):
    """End of a trial.

    Attributes:
        report: report of its training; None for a trial that was pruned or failed, and for one in a shared pod.
    """

    trial: Trial
    ended_at: datetime
    report: RunReport | None = None


def build_proposal(owner: Owner, proposal: TrialProposal) -> KubernetesObject:
    """The proposal as an immutable ConfigMap, ``<name>-<uid6>-trial-<number>``."""
    return _config_map(owner, Component.TRIAL, proposal.number, {PROPOSAL_KEY: proposal.to_json()})


def parse_proposal(config_map: Body) -> TrialProposal | None:
    """The proposal in a ConfigMap; None where it holds none."""
    text = config_map.get("data", {}).get(PROPOSAL_KEY)
    return None if text is None else TrialProposal.model_validate_json(text)


def build_trial_record(owner: Owner, record: TrialRecord, run: TrainConfig | None = None) -> KubernetesObject:
    """The end of a trial as an immutable ConfigMap, ``<name>-<uid6>-result-trial-<number>``.

    Args:
        run: configuration that the trial was trained with.
    """
    data = {TRIAL_KEY: record.to_json()} | ({TRIAL_RUN_KEY: run_file_text(run)} if run else {})
    return _config_map(owner, Component.TRIAL_RESULT, record.trial.number, data)


def parse_trial_record(config_map: Body) -> TrialRecord | None:
    """The end of a trial in a ConfigMap; None where it holds none."""
    text = config_map.get("data", {}).get(TRIAL_KEY)
    return None if text is None else TrialRecord.model_validate_json(text)


def parse_trial_run(config_map: Body) -> TrainConfig | None:
    """Configuration of a trial in the ConfigMap of its end; None where there is none.

    Raises:
        ValueError: it was written neither by this release nor by the last one.
    """
    text = config_map.get("data", {}).get(TRIAL_RUN_KEY)
    run = None if text is None else parse_run_config(text)
    return run if isinstance(run, TrainConfig) else None


def _config_map(owner: Owner, component: Component, number: int, data: dict[str, str]) -> KubernetesObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, component, number),
        "immutable": True,
        "data": data,
    }
