"""Parts of the search in one pod: the loaded base model, the journal, measurements."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from stages.stage_world import RowBuilders, World
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    TrainerControl,
    TrainerState,
)

from tunesmith_contract.search import (
    MAX_MEASUREMENTS,
    Measurement,
    SearchSettings,
    TrialState,
)
from tunesmith_data.failures import InfrastructureError
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.checkpoints.writer_lease import LeaseHolder, WriterLease
from tunesmith_trainer.train.loaded_base import ModelState
from tunesmith_trainer.train.search.journal import TrialJournal
from tunesmith_trainer.train.search.pruning import Pruned, StopAtBudget, keep_measurements
from tunesmith_trainer.train.search.stage import FIRST_FAILURES, MAX_STARTS, next_trial

SETTINGS = SearchSettings.model_validate(
    {"sampler": "Random", "parameters": [{"name": "learningRate", "min": "1e-5", "max": "1e-3"}], "trials": 3}
)


def weights_digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("reward", [False, True])
def test_a_trained_adapter_leaves_no_trace_on_the_base(models: Path, dora: bool, reward: bool) -> None:
    loader = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    model: Any = loader.from_pretrained(models / "llama", **({"num_labels": 1} if reward else {}))
    model.config.pad_token_id = 0
    ids = torch.arange(1, 9)[None]
    modules, before = repr(model), weights_digest(model)
    with torch.no_grad():
        logits = model(ids).logits
    state = ModelState(model)
    for rank in (2, 4):
        config = LoraConfig(
            task_type="SEQ_CLS" if reward else "CAUSAL_LM",
            modules_to_save=["score"] if reward else None,
            r=rank,
            use_dora=dora,
            init_lora_weights=False,
            target_modules="all-linear",
        )
        adapted: Any = get_peft_model(model, config)
        optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
        adapted(ids).logits.square().mean().backward()
        optimizer.step()
        model.forward = lambda *_: None  # as a trainer's own output layer
        with torch.no_grad():
            assert not torch.equal(adapted.base_model.model.__class__.forward(model, ids).logits, logits)
        state.restore()
        assert repr(model) == modules
        assert weights_digest(model) == before
        assert not hasattr(model, "peft_config")
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        with torch.no_grad():
            assert torch.equal(model(ids).logits, logits)


@pytest.fixture
def journal(world: World, make: RowBuilders) -> TrialJournal:
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(20))))
    workspace = Workspace(world.storage, world.train_config(prepared))
    lease = WriterLease(workspace.checkpoints, LeaseHolder(attempt=1, token="a"))
    lease.take()
    return TrialJournal(workspace, lease)


def test_a_journal_is_read_by_the_next_pod_and_written_by_none_before_it(journal: TrialJournal) -> None:
    first = next_trial(SETTINGS, journal)
    assert first
    journal.write(first)
    workspace = journal._workspace
    newer = WriterLease(workspace.checkpoints, LeaseHolder(attempt=2, token="b"))
    newer.take()
    again = TrialJournal(workspace, newer)
    assert again.entries == (first,)
    with pytest.raises(InfrastructureError, match="attempt 2 has taken over"):
        journal.end()
    again.end()
    assert TrialJournal(workspace, newer).ended


def test_a_trial_that_ends_its_process_every_time_is_given_up(journal: TrialJournal) -> None:
    first = next_trial(SETTINGS, journal)
    assert first
    assert (first.trial.number, first.starts) == (1, 1)
    for starts in range(2, MAX_STARTS + 1):
        journal.write(first)
        first = next_trial(SETTINGS, journal)
        assert first
        assert (first.trial.number, first.starts) == (1, starts)
    journal.write(first)
    second = next_trial(SETTINGS, journal)
    assert second
    assert second.trial.number == 2
    assert journal.trials[0].state is TrialState.FAILED
    assert journal.trials[0].message == f"WorkerDied: the process ended {MAX_STARTS} times without progress"


def test_trials_and_gpu_time_are_limited(journal: TrialJournal) -> None:
    settings = SETTINGS.model_copy(update={"gpu_seconds": 100.0})
    for number, seconds in ((1, 40.0), (2, 20.0)):
        entry = next_trial(settings, journal)
        assert entry
        assert entry.trial.number == number
        done = {"state": TrialState.COMPLETED, "loss": 1.0, "gpu_seconds": seconds}
        journal.write(entry.model_copy(update={"trial": entry.trial.model_copy(update=done)}))
    assert next_trial(settings, journal)
    # Thirty seconds a trial: less is not worth a start.
    assert next_trial(settings.model_copy(update={"gpu_seconds": 90.0}), journal)
    assert next_trial(settings.model_copy(update={"gpu_seconds": 89.9}), journal) is None
    assert next_trial(settings.model_copy(update={"gpu_seconds": 60.0}), journal) is None
    assert next_trial(settings.model_copy(update={"trials": 2}), journal) is None


def test_a_trial_ends_when_the_budget_does() -> None:
    state, control = TrainerState(global_step=3, max_steps=6), TrainerControl()
    StopAtBudget(100.0).on_step_end(None, state, control)  # type: ignore[arg-type]
    with pytest.raises(Pruned, match="the budget is used up"):
        StopAtBudget(0.0).on_step_end(None, state, control)  # type: ignore[arg-type]
    StopAtBudget(0.0).on_step_end(None, TrainerState(global_step=6, max_steps=6), control)  # type: ignore[arg-type]


def test_a_search_of_which_nothing_comes_is_not_gone_on_with(journal: TrialJournal) -> None:
    settings = SETTINGS.model_copy(update={"trials": 20})
    for _ in range(FIRST_FAILURES):
        entry = next_trial(settings, journal)
        assert entry
        failed = entry.trial.model_copy(update={"state": TrialState.FAILED})
        journal.write(entry.model_copy(update={"trial": failed}))
    assert next_trial(settings, journal) is None
    first = journal.entries[0]
    done = first.trial.model_copy(update={"state": TrialState.PRUNED, "loss": 1.0})
    journal.write(first.model_copy(update={"trial": done}))
    assert next_trial(settings, journal)


def test_of_many_measurements_those_of_comparisons_and_the_last_ones_are_kept() -> None:
    measurements = [Measurement(percent=percent, loss=1.0) for percent in range(2, 101, 2)]
    kept = keep_measurements(measurements, (9, 27, 81))
    assert len(kept) == MAX_MEASUREMENTS
    percents = [each.percent for each in kept]
    assert percents[:2] == [10, 28]
    assert percents[2:] == list(range(42, 101, 2))
    assert keep_measurements(measurements[:5], (9, 27)) == tuple(measurements[:5])
    assert keep_measurements([], (9,)) == ()
