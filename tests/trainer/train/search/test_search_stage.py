"""Search in one pod on tiny models: the same results as separate runs, interruptions, early ends, failures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stages.gangs import end_gang, kill, start_gang
from stages.stage_world import ProgressServer, RowBuilders, World

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.search import ParameterName, SearchSettings, Trial, TrialState, from_line
from tunesmith_data.failures import Preempted, UserError
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.search import trial_run
from tunesmith_trainer.train.search.journal import JournalEntry
from tunesmith_trainer.train.stage import train
from tunesmith_trainer.train.trained_files import TrainedFiles

STEPS = 6
NUMBERS = {"maxSteps": STEPS, "batchSize": 4, "microBatchSize": 4}
RATES = ({"name": "learningRate", "values": ["1e-3", "1e-2"]},)
#: Sampling at random tries the four combinations in some order.
SEARCH: dict[str, Any] = {
    "sampler": "Random",
    "parameters": [*RATES, {"name": "rank", "values": ["2", "8"]}],
    "trials": 4,
}


class Searches:
    """Searches over the same rows, each of a run of its own."""

    def __init__(self, world: World, make: RowBuilders) -> None:
        self.world = world
        self._rows = world.write_rows("search.jsonl", make.rows(40))

    def config(self, uid: str, validation: float = 0.2, **more: Any) -> Any:
        prepared = self.world.prepare(
            self.world.prepare_config(self._rows, uid=uid, validation={"fraction": validation})
        )
        return self.world.train_config(prepared, uid=uid, **({"hyperparameters": NUMBERS} | more))

    def run(self, config: Any, preemption: Any = None) -> Any:
        workspace = Workspace(self.world.storage, config)
        return train(config, self.world.storage, workspace, preemption or Preemption())

    def folder(self, config: Any) -> Path:
        folder: Path = self.world.output / "ns" / config.owner.uid
        return folder

    def trials(self, config: Any) -> list[Trial]:
        text = (self.folder(config) / "search/search.json").read_text()
        return [Trial.model_validate(trial) for trial in json.loads(text)["trials"]]

    def entries(self, config: Any) -> list[JournalEntry]:
        text = (self.folder(config) / "trials/journal.json").read_text()
        return [JournalEntry.model_validate(entry) for entry in json.loads(text)["entries"]]

    def weights(self, artifact: Any) -> dict[str, torch.Tensor]:
        name = artifact.digest.removeprefix("sha256:")
        return load_file(self.world.output / "sha256" / name / "adapter_model.safetensors")


@pytest.fixture
def searches(shared_world: World, make: RowBuilders) -> Searches:
    return Searches(shared_world, make)


class PreemptAfter(Preemption):
    """A pod that is told to go when it has been asked ``count`` times whether it was."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def outcomes(trials: list[Trial]) -> list[Any]:
    """What must be equal in two searches of the same settings and seed."""
    return [(trial.number, trial.parameters, trial.state, trial.measurements, trial.loss) for trial in trials]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_each_trial_is_what_a_run_of_its_own_makes(searches: Searches) -> None:
    config = searches.config("shared", search=SEARCH | {"trials": 3})
    report = searches.run(config)
    trials, entries = searches.trials(config), searches.entries(config)
    assert [trial.state for trial in trials] == [TrialState.COMPLETED] * 3
    assert len({json.dumps(trial.parameters, sort_keys=True) for trial in trials}) == 3
    for trial, entry in zip(trials, entries, strict=True):
        alone = searches.config(
            f"alone-{trial.number}",
            adapter={"rank": int(trial.parameters[ParameterName.RANK]), "dropout": 0.1},
            hyperparameters=NUMBERS | {"learningRate": float(trial.parameters[ParameterName.LEARNING_RATE])},
        )
        separate = searches.run(alone).training
        assert trial.loss == pytest.approx(separate.eval_loss, rel=1e-5)
        assert same(searches.weights(entry.artifact), searches.weights(separate.artifact))

    best = min(trials, key=lambda trial: trial.loss or 0)
    found = report.training.search
    assert (found.best, found.completed, found.pruned, found.failed) == (best.number, 3, 0, 0)
    assert report.training.artifact == entries[best.number - 1].artifact
    assert report.training.eval_loss == pytest.approx(best.loss, rel=1e-5)
    lines = [from_line(SearchSettings.model_validate(SEARCH), line) for line in found.trials]
    assert [line.number for line in lines if line] == [
        trial.number for trial in sorted(trials, key=lambda trial: trial.loss or 0)
    ]
    page = (searches.folder(config) / "search/search.html").read_text()
    assert "<svg" in page
    assert "ns/run" in page
    # Only the best trial's files are kept until the run is done.
    kept = {
        path.relative_to(searches.folder(config)).parts[1]
        for path in searches.folder(config).glob("trials/*/**/*.*")
    }
    assert kept == {str(best.number)}
    Workspace(searches.world.storage, config).prune()
    assert sorted(path.name for path in searches.folder(config).iterdir()) == [
        "data-report", "prepared", "reports", "search", "tensorboard",
    ]  # fmt: skip


def test_an_interrupted_search_repeats_no_trial(searches: Searches, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SEARCH | {"pruner": {"startPercent": 50, "reductionFactor": 2}}
    undisturbed = searches.config("undisturbed", search=settings)
    expected = searches.run(undisturbed)
    assert TrialState.PRUNED in [trial.state for trial in searches.trials(undisturbed)]

    trained: list[int] = []
    train_on_base = trial_run.TrialRunner._train_on_base

    def noted(runner: Any, config: Any, number: int, workspace: Any) -> Any:
        trained.append(number)
        return train_on_base(runner, config, number, workspace)

    monkeypatch.setattr(trial_run.TrialRunner, "_train_on_base", noted)
    config = searches.config("interrupted", search=settings)
    stops, report = 0, None
    while report is None:
        try:
            report = searches.run(config, PreemptAfter(11))
        except Preempted:
            stops += 1
    assert stops >= 2
    # The trial that was stopped is the next one to go on, and none before it runs again.
    assert trained == sorted(trained)
    assert set(trained) == {1, 2, 3, 4}
    assert len(trained) <= 4 + stops
    assert outcomes(searches.trials(config)) == outcomes(searches.trials(undisturbed))
    assert same(searches.weights(report.training.artifact), searches.weights(expected.training.artifact))


def test_a_killed_pod_of_two_workers_goes_on_where_it_was(searches: Searches, make: RowBuilders) -> None:
    world = searches.world
    more: dict[str, Any] = {
        "search": SEARCH | {"trials": 3},
        "hyperparameters": NUMBERS | {"microBatchSize": 2},
        "adapter": {"rank": 4, "dropout": 0.0},  # each worker draws its own
    }
    config = searches.config("killed", **more)
    seen: list[str] = []
    pods: list[Any] = []
    killed: list[int] = []

    def kill_in_the_second_trial(line: str) -> None:
        seen.extend([line] if "'loss'" in line else [])
        if len(seen) == STEPS + 4 and pods and not killed:
            killed.extend(pods[0].workers())
            for worker in killed:
                kill(worker)

    pods += start_gang(world.root, config, workers=2, on_line=kill_in_the_second_trial)
    assert end_gang(pods, 300) == [ExitCode.INFRASTRUCTURE], pods[0].output
    first, second = searches.entries(config)
    assert (first.trial.state, second.trial.state) == (TrialState.COMPLETED, TrialState.RUNNING)

    pods = start_gang(world.root, config, workers=2)
    assert end_gang(pods, 300) == [ExitCode.SUCCEEDED], pods[0].output
    trials = searches.trials(config)
    assert searches.entries(config)[0] == first
    assert "resuming from checkpoint-3" in pods[0].output
    assert [trial.state for trial in trials] == [TrialState.COMPLETED] * 3
    assert [trial.number for trial in trials] == [1, 2, 3]

    alone = searches.config("alone-of-two", **more)
    searches.run(alone)
    for trial, other in zip(trials, searches.trials(alone), strict=True):
        assert trial.parameters == other.parameters
        assert trial.loss == pytest.approx(other.loss, rel=1e-3)


def test_trials_that_can_not_be_trained_leave_the_others(
    searches: Searches, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = trial_run.TrialRunner._save

    def run_out_of_memory(runner: Any, trained: Any, config: Any, files: Any) -> None:
        if config.adapter.rank == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        save(runner, trained, config, files)

    monkeypatch.setattr(trial_run.TrialRunner, "_save", run_out_of_memory)
    parameters = [
        {"name": "learningRate", "values": ["1e-2", "1e30"]},
        {"name": "rank", "values": ["2", "8"]},
        {"name": "batchSize", "values": ["4"]},
    ]
    config = searches.config("failing", search=SEARCH | {"parameters": parameters})
    report = searches.run(config)
    by_cause = {trial.message.partition(":")[0] for trial in searches.trials(config)}
    assert by_cause == {"", "Diverged", "OutOfMemory"}
    found = report.training.search
    assert (found.completed, found.pruned, found.failed) == (1, 0, 3)
    best = searches.trials(config)[found.best - 1]
    assert (best.parameters["learningRate"], best.parameters["rank"]) == ("1e-2", "2")


@pytest.mark.parametrize("lost_at", ["save_probes", "load_probes"])
def test_a_pod_lost_after_the_last_step_of_a_trial_costs_no_step(
    searches: Searches, monkeypatch: pytest.MonkeyPatch, lost_at: str
) -> None:
    config = searches.config(f"lost-at-{lost_at}", search=SEARCH | {"trials": 1})

    def lose(*_: Any) -> None:
        raise ConnectionResetError("the node is lost")

    with monkeypatch.context() as patch:
        patch.setattr(TrainedFiles, lost_at, lose)
        with pytest.raises(ConnectionResetError):
            searches.run(config)
    assert searches.entries(config)[0].trial.state is TrialState.RUNNING
    step = "transformers.trainer_callback.CallbackHandler.on_step_begin"
    monkeypatch.setattr(step, lambda *_: pytest.fail("a step is repeated"))
    report = searches.run(config)
    entry = searches.entries(config)[0]
    assert entry.trial.state is TrialState.COMPLETED
    assert entry.artifact == report.training.artifact
    assert report.training.steps == STEPS


def test_a_search_without_any_result_says_what_the_trials_failed_of(searches: Searches) -> None:
    parameters = [{"name": "learningRate", "values": ["1e30"]}]
    config = searches.config("hopeless", search=SEARCH | {"parameters": parameters})
    with pytest.raises(
        UserError, match=r"none of 1 trials completed: Diverged: .* lower learningRate"
    ) as error:
        searches.run(config)
    assert error.value.reason == "NoTrialSucceeded"
    assert (searches.folder(config) / "search/search.html").is_file()


@pytest.mark.parametrize(
    ("more", "reason", "advice"),
    [
        ({"adapter": None}, "SharedSearch", "write search.mode Jobs, or an adapter"),
        ({"parallelism": "ZeRO3"}, "SharedSearch", "write search.mode Jobs, or parallelism DDP"),
        ({"validation": 0.0}, "NoValidationRows", "hold out rows with dataset.validation"),
    ],
)
def test_what_can_not_be_searched_in_one_pod(
    searches: Searches, more: dict[str, Any], reason: str, advice: str
) -> None:
    search: dict[str, Any] = {"search": SEARCH | {"parameters": RATES}}
    with pytest.raises(UserError, match=advice) as error:
        searches.run(searches.config("refused", **search | more))
    assert error.value.reason == reason


def test_quantized_trials_share_a_base_and_the_best_is_measured_on_the_plain_one(searches: Searches) -> None:
    adapter = {"type": "QLoRA", "rank": 4, "dropout": 0.0}
    search: dict[str, Any] = {"search": SEARCH | {"trials": 2, "parameters": RATES}, "adapter": adapter}
    config = searches.config("quantized", **search)
    assert searches.run(config) is None
    assert [entry.artifact for entry in searches.entries(config)] == [None, None]
    report = searches.run(config)
    best = searches.trials(config)[report.training.search.best - 1]
    alone = searches.config(
        "quantized-alone",
        adapter=adapter,
        hyperparameters=NUMBERS | {"learningRate": float(best.parameters["learningRate"])},
    )
    separate = searches.world.train(alone).training
    assert best.loss == pytest.approx(separate.eval_loss, rel=1e-5)
    assert same(searches.weights(report.training.artifact), searches.weights(separate.artifact))


def test_the_operator_sees_the_whole_search(
    searches: Searches, server: ProgressServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, received = server
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", url)
    searches.run(searches.config("seen", search=SEARCH | {"trials": 2, "parameters": RATES}))
    updates = [json.loads(body)["trainerStatus"] for _, body in received]
    percents = [update["progressPercentage"] for update in updates]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert 50 in percents
    metrics = [{each["name"]: each["value"] for each in update["metrics"]} for update in updates]
    assert metrics[0]["trial_1"].startswith("1 Running - ")
    assert metrics[-1]["trial_1"].startswith("1 Completed ")
    assert metrics[-1]["trial_2"].startswith("2 Completed ")
    assert {"checkpoint_step", "loss"} <= {name for each in metrics for name in each}
    assert all(each["total_steps"] == str(STEPS) for each in metrics if "loss" in each)
