"""Runs with model, data, work files and artifacts in buckets and registries."""

import json
import shutil
import signal
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows.data_reports import make_agreement
from rows.labeled_rows import labels_left
from servers.storage_servers import BUCKET, Registry, S3Server
from stages.gangs import start_gang
from stages.stage_world import RowBuilders, World

from tunesmith_contract.exit_codes import ExitCode, FailureCategory
from tunesmith_contract.layout import ATTEMPT_ENV
from tunesmith_contract.report import Outcome, RunReport, parse_report
from tunesmith_contract.run_config import EvaluateConfig, PrepareConfig, TrainConfig
from tunesmith_data.failures import DataError, InfrastructureError, UserError, classify
from tunesmith_data.pod.redaction import Redactor
from tunesmith_data.pod.storage import Storage, describe_files
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rows.page.report_files import read_report
from tunesmith_evaluation.stage import shares as stage_shares
from tunesmith_storage.errors import StorageError
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.checkpoints.folder import newest_checkpoint
from tunesmith_trainer.train import stage
from tunesmith_trainer.train.search.trial_run import TrialRunner
from tunesmith_trainer.worker import run_stage

Config = PrepareConfig | TrainConfig | EvaluateConfig

GANG_SECONDS = 180


class RemoteWorld:
    """A bucket with a model and rows, and pods that find nothing on their disks."""

    def __init__(self, world: World, s3: S3Server, models: Path, root: Path) -> None:
        self.world, self.s3, self.root = world, s3, root
        self.name = uuid.uuid4().hex
        self.folder = s3.root / BUCKET / self.name
        self.uri = f"s3://{BUCKET}/{self.name}"
        self.secrets = root / "secrets"
        shutil.copytree(models / "llama", self.folder / "model")
        for role in ("base-model", "train", "output"):
            self.mount(role, s3.secret())

    def mount(self, role: str, keys: dict[str, str]) -> None:
        """A Secret for a role."""
        (self.secrets / role).mkdir(parents=True)
        for name, value in keys.items():
            (self.secrets / role / name).write_text(value)

    def write_rows(self, name: str, rows: list[Any]) -> str:
        """A data set in the bucket."""
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"{self.uri}/{name}"

    def place(self, config: Any, **more: Any) -> Any:
        """The same run with its model and output in the bucket."""
        places = {"base_model": f"{self.uri}/model", "output": f"{self.uri}/out"}
        return config.model_copy(update=places | more)

    def pod(self) -> Storage:
        """A new pod's view: Secrets, and an empty disk."""
        return Storage(self.world.root, self.secrets, self.root / f"scratch-{uuid.uuid4().hex}")

    def run(self, config: Config, storage: Storage | None = None) -> RunReport:
        """A stage in a new pod."""
        report = run_stage(config, (storage or self.pod()).for_run(config))
        assert report
        return report

    def prepare(self, make: RowBuilders, uid: str, **more: Any) -> RunReport:
        """Prepared rows in the bucket."""
        rows = self.write_rows("train.jsonl", make.rows(44))
        return self.run(self.place(self.world.prepare_config(rows, uid=uid), **more))


@pytest.fixture
def remote(world: World, s3: S3Server, models: Path, tmp_path: Path) -> RemoteWorld:
    return RemoteWorld(world, s3, models, tmp_path)


def test_a_folder_of_a_bucket_is_a_data_set(remote: RemoteWorld) -> None:
    for name in ("b.jsonl", "a.jsonl", "README.md"):
        remote.write_rows(name, [{"text": name}])
    storage = remote.pod()
    for uri in (f"{remote.uri}/", f"{remote.uri}/*.jsonl"):
        assert [file.name for file in storage.dataset_files(uri)] == ["a.jsonl", "b.jsonl"]
    with pytest.raises(DataError, match=r"c\* has no data files"):
        storage.dataset_files(f"{remote.uri}/c*")


def test_a_model_that_is_trained_is_finished_by_a_pod_that_finds_nothing_on_its_disk(
    remote: RemoteWorld, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = remote.prepare(make, "uid")
    more: dict[str, Any] = {"adapter": {"rank": 4, "type": "QLoRA"}, "hyperparameters": {"maxSteps": 2}}
    config = remote.place(remote.world.train_config(prepared, **more))
    assert run_stage(config, remote.pod().for_run(config)) is None, "a new process has to finish it"
    assert (remote.folder / "out/ns/uid/trained/trained.json").is_file()

    monkeypatch.setattr(stage, "run_training", None)
    report = remote.run(config)
    assert report.training
    assert report.training.steps == 2
    assert not (remote.folder / "out/ns/uid/trained").exists()


def test_a_trial_trains_on_rows_that_another_job_has_prepared(remote: RemoteWorld, make: RowBuilders) -> None:
    prepared = remote.prepare(make, "search")
    numbers = {"maxSteps": 2}
    for uid in ("trial-1", "trial-2"):
        config = remote.world.train_config(prepared, uid, hyperparameters=numbers, preparedBy="search")
        assert remote.run(remote.place(config)).training
        assert not (remote.folder / "out/ns" / uid / "prepared").exists()
        assert (remote.folder / "out/ns/search/prepared/train.parquet").is_file()


def test_all_stages_on_a_bucket(remote: RemoteWorld, make: RowBuilders) -> None:
    prepared = remote.prepare(make, "uid")
    assert prepared.model
    assert prepared.model.parameters > 0
    assert sorted(path.name for path in (remote.folder / "out/ns/uid/prepared").iterdir()) == [
        "report.json",
        "train.parquet",
        "validation.parquet",
    ]
    config = remote.place(remote.world.train_config(prepared))
    trained = remote.run(config)
    assert trained.training
    artifact = trained.training.artifact
    assert artifact.uri == f"{remote.uri}/out/sha256/{artifact.digest.removeprefix('sha256:')}"
    assert not (remote.folder / "out/ns/uid/checkpoints").exists()
    assert (remote.folder / "out/ns/uid/prepared/train.parquet").is_file(), "evaluations look for leaks there"
    # A rerun finds the report in the bucket, and trains nothing.
    again = remote.pod()
    assert remote.run(config, again) == trained
    assert not (again.scratch / "models").exists()

    side = {"name": "tuned", "adapter": {"uri": artifact.uri, "digest": artifact.digest}}
    items = remote.write_rows("items.jsonl", make.rows(4, seed=9))
    suite = {"name": "s", "dataset": items, "metrics": ["ExactMatch"], "maxNewTokens": 4}
    evaluation = remote.world.evaluate_config(sides=[side, {"name": "base"}], suites=[suite])
    evaluated = remote.run(remote.place(evaluation))
    assert evaluated.evaluation
    details = evaluated.evaluation.details
    assert (remote.folder / details.uri.removeprefix(f"{remote.uri}/")).read_bytes().count(b"\n") == 4


def test_pods_share_the_items_of_an_evaluation(
    remote: RemoteWorld, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = remote.write_rows("items.jsonl", make.rows(24, seed=9))
    suite = {"name": "s", "dataset": items, "metrics": ["ExactMatch"], "maxNewTokens": 4}
    sides = [{"name": "a", "systemPrompt": "Sort."}, {"name": "b"}]
    config = remote.place(remote.world.evaluate_config(sides=sides, suites=[suite], shards=3))
    monkeypatch.setattr(stage_shares, "POLL_SECONDS", 0.0)

    def pod(index: int, attempt: int) -> RunReport | None:
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        monkeypatch.setenv(ATTEMPT_ENV, str(attempt))
        return run_stage(config, remote.pod().for_run(config))

    assert pod(2, 1) is None
    answers = remote.folder / "out/ns/eval/answers"
    assert [path.name for path in answers.iterdir()] == ["2"]
    second = (answers / "2/answers-00000.jsonl").read_bytes()
    assert [pod(index, 2) for index in (1, 2)] == [None, None]
    assert (answers / "2/answers-00000.jsonl").read_bytes() == second, "nothing is answered twice"
    report = pod(0, 2)
    assert report
    assert report.evaluation
    assert report.evaluation.results[0].items == report.evaluation.suites[0].items > 9
    assert pod(1, 3) is None, "the first pod's report is there"
    assert pod(0, 3) == report
    assert not answers.exists()
    assert not (remote.folder / "out/ns/eval/shares").exists()


def test_a_killed_pod_loses_at_most_one_interval(remote: RemoteWorld, make: RowBuilders) -> None:
    """Interrupted on one pod and resumed on another: the same artifact as in one go, bit for bit."""
    numbers = {"epochs": 2}
    whole = remote.run(
        remote.place(
            remote.world.train_config(remote.prepare(make, "whole"), uid="whole", hyperparameters=numbers)
        )
    )
    prepared = remote.prepare(make, "torn")
    config = remote.place(remote.world.train_config(prepared, uid="torn", hyperparameters=numbers))
    (remote.root / "first").mkdir()
    keys = {**remote.s3.secret(), "TMPDIR": str(remote.root / "first")}
    pod = remote.world.start(config, **keys)
    assert pod.stdout
    assert any("'loss'" in line for line in pod.stdout)
    pod.send_signal(signal.SIGTERM)
    log, _ = pod.communicate(timeout=120)
    assert pod.returncode == ExitCode.PREEMPTED, log
    last = parse_report((remote.world.root / "log").read_bytes())
    assert last
    assert last.outcome is Outcome.PREEMPTED
    stored = newest_checkpoint(remote.folder / "out/ns/torn/checkpoints")
    assert stored
    # Half of an upload, as a pod leaves it that is killed in the midst.
    torn = stored.with_name("checkpoint-999")
    torn.mkdir()
    (torn / "optimizer.pt").write_bytes(b"half")

    resumed = remote.run(config)
    assert resumed.training
    assert whole.training
    assert files_of(remote, resumed) == files_of(remote, whole)
    assert not torn.exists()


def test_a_search_goes_on_in_a_pod_that_finds_nothing_on_its_disk(
    remote: RemoteWorld, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"name": "learningRate", "values": ["1e-3", "1e-2", "2e-2"]}
    search = {"sampler": "Random", "parameters": [rates], "trials": 3}
    numbers = {"maxSteps": 4}

    def config(uid: str) -> Any:
        prepared = remote.prepare(make, uid)
        return remote.place(
            remote.world.train_config(
                prepared, uid=uid, hyperparameters=numbers, search=search, checkpoints={"everySteps": 2}
            )
        )

    whole = remote.run(config("whole"))
    torn = config("torn")
    saved: list[int] = []

    def lost(runner: Any, number: int) -> None:
        saved.append(number)
        if saved == [1, 1, 2]:
            raise ConnectionResetError("the node is lost")

    note = TrialRunner._note_checkpoint
    monkeypatch.setattr(TrialRunner, "_note_checkpoint", lost)
    with pytest.raises(ConnectionResetError):
        remote.run(torn)
    monkeypatch.setattr(TrialRunner, "_note_checkpoint", note)
    folder = remote.folder / "out/ns/torn"
    assert (folder / "trials/2/checkpoints/checkpoint-2/commit.json").is_file()
    resumed = remote.run(torn)
    assert files_of(remote, resumed) == files_of(remote, whole)
    tables = [
        json.loads((remote.folder / f"out/ns/{uid}/search/search.json").read_text())
        for uid in ("torn", "whole")
    ]
    assert tables[0] == tables[1]
    assert not (folder / "trials").exists()


def test_the_ranks_of_a_pod_share_what_is_fetched(remote: RemoteWorld, make: RowBuilders) -> None:
    """Two workers on one disk: interrupted, and resumed by two more on another."""
    numbers = {"epochs": 2, "microBatchSize": 1}
    config = remote.place(remote.world.train_config(remote.prepare(make, "uid"), hyperparameters=numbers))

    def start(disk: str, on_line: Callable[[str], None] | None = None) -> Any:
        (remote.root / disk).mkdir()
        keys: dict[str, Any] = {**remote.s3.secret(), "TMPDIR": str(remote.root / disk)}
        (pod,) = start_gang(remote.world.root, config, workers=2, on_line=on_line, **keys)
        return pod

    learning = threading.Event()
    first = start("first", lambda line: learning.set() if "'loss'" in line else None)
    assert learning.wait(GANG_SECONDS), first.output
    first.process.send_signal(signal.SIGTERM)
    assert first.end(GANG_SECONDS) == ExitCode.PREEMPTED, first.output
    assert newest_checkpoint(remote.folder / "out/ns/uid/checkpoints")
    second = start("second")
    assert second.end(GANG_SECONDS) == ExitCode.SUCCEEDED, second.output
    assert "resuming from checkpoint-" in second.output
    assert files_of(remote, second.report)


def files_of(remote: RemoteWorld, report: RunReport) -> list[Any]:
    """An artifact's weights and configuration; card and history name the run."""
    assert report.training
    folder = remote.folder / report.training.artifact.uri.removeprefix(f"{remote.uri}/")
    return [file for file in describe_files(folder) if file.path.startswith("adapter_")]


def test_work_files_on_a_bucket_and_artifacts_in_a_registry(
    remote: RemoteWorld, open_registry: Registry, make: RowBuilders
) -> None:
    remote.mount("workspace", remote.s3.secret())
    shutil.rmtree(remote.secrets / "output")
    remote.mount("output", {"plainHTTP": "true"})
    places = {"workspace": f"{remote.uri}/work", "output": f"oci://{open_registry.host}/team/adapters"}
    prepared = remote.prepare(make, "uid", **places)
    trained = remote.run(remote.place(remote.world.train_config(prepared), **places))
    assert trained.training
    artifact = trained.training.artifact
    assert artifact.uri == f"oci://{open_registry.host}/team/adapters:{artifact.digest.replace(':', '-')}"
    fetched = remote.pod().artifact_folder(artifact.uri, artifact.digest)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in fetched.iterdir()}


def test_a_registry_keeps_no_work_files(
    remote: RemoteWorld, open_registry: Registry, make: RowBuilders
) -> None:
    with pytest.raises(StorageError, match="workspace of pvc://, s3://, gs:// or az://") as caught:
        remote.prepare(make, "uid", output=f"oci://{open_registry.host}/team/adapters")
    assert classify(caught.value) == (FailureCategory.USER_ERROR, "WorkspaceNeeded")


def test_a_model_without_safetensors_is_found_before_training(remote: RemoteWorld, make: RowBuilders) -> None:
    (remote.folder / "model/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors"):
        remote.prepare(make, "uid")


def test_another_attempt_finds_how_far_people_agree(remote: RemoteWorld, make: RowBuilders) -> None:
    folder = remote.folder / "out/ns/uid"
    labels_left(folder, make.rows(30), make_agreement())
    argilla = {"url": "http://nowhere.invalid", "dataset": "tone"}
    report = remote.run(remote.place(remote.world.prepare_config([], argilla=argilla)))
    assert report.dataset and ("low_agreement", 31) in report.dataset.issues
    assert read_report(folder / "data-report").agreement == make_agreement()


def test_what_is_wrong_with_the_rows_is_kept(remote: RemoteWorld, make: RowBuilders) -> None:
    rows = remote.write_rows("bad.jsonl", [*make.rows(3), {"messages": "none"}])
    config = remote.place(remote.world.prepare_config(rows))
    with pytest.raises(Exception, match="messages"):
        remote.run(config)
    findings = remote.folder / "out/ns/uid/data-report/findings.jsonl"
    assert b"messages" in findings.read_bytes()


class TestCheckpoints:
    """The bucket's checkpoints are those of the attempt that has the lease."""

    @pytest.fixture
    def attempts(self, remote: RemoteWorld, make: RowBuilders) -> Callable[[int], Workspace]:
        config = remote.place(remote.world.train_config(remote.prepare(make, "uid")))

        def begin(attempt: int) -> Workspace:
            workspace = Workspace(remote.pod(), config)
            BucketCheckpoints(workspace).pull()
            workspace.checkpoints.mkdir(parents=True, exist_ok=True)
            (workspace.checkpoints / "lease.json").write_text(json.dumps({"attempt": attempt, "token": "t"}))
            return workspace

        return begin

    def commit(self, workspace: Workspace, step: int) -> Path:
        folder = workspace.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text(f"step {step}")
        files = [file.to_dict() for file in describe_files(folder)]
        (folder / "commit.json").write_text(
            json.dumps({"step": step, "files": files, "time": "2026-01-01T00:00:00Z"})
        )
        return folder

    def upload(self, workspace: Workspace, *steps: int) -> None:
        """What a run of one pod does at a checkpoint."""
        bucket = BucketCheckpoints(workspace)
        for step in steps:
            bucket.upload(f"checkpoint-{step}")
        bucket.commit()

    def names(self, workspace: Workspace) -> list[str]:
        return sorted(path.name for path in workspace.checkpoints.glob("checkpoint-*"))

    def test_old_ones_go_and_new_ones_come(self, attempts: Callable[[int], Workspace]) -> None:
        first = attempts(1)
        BucketCheckpoints(first).take_lease()
        for step in (1, 2, 3):
            self.commit(first, step)
        self.upload(first, 1, 2, 3)
        shutil.rmtree(first.checkpoints / "checkpoint-1")
        self.upload(first)
        assert self.names(attempts(2)) == ["checkpoint-2", "checkpoint-3"]

    def test_one_that_was_given_up_writes_nothing_more(self, attempts: Callable[[int], Workspace]) -> None:
        first, second = attempts(1), attempts(2)
        BucketCheckpoints(first).take_lease()
        self.commit(first, 1)
        self.upload(first, 1)
        BucketCheckpoints(second).take_lease()
        self.commit(first, 2)
        with pytest.raises(InfrastructureError, match="attempt 2 has taken over"):
            self.upload(first, 2)
        with pytest.raises(InfrastructureError, match="attempt 2 has taken over"):
            BucketCheckpoints(first).take_lease()
        assert self.names(attempts(3)) == ["checkpoint-1"]

    def test_a_damaged_one_is_left_out(
        self, attempts: Callable[[int], Workspace], remote: RemoteWorld
    ) -> None:
        first = attempts(1)
        BucketCheckpoints(first).take_lease()
        for step in (1, 2):
            self.commit(first, step)
        self.upload(first, 1, 2)
        (remote.folder / "out/ns/uid/checkpoints/checkpoint-2/weights").write_text("stop 2")
        assert self.names(attempts(2)) == ["checkpoint-1"]


def test_mounted_secrets_reach_no_log(tmp_path: Path) -> None:
    account = {
        "client_email": "robot@example",
        "private_key": "-----BEGIN-----\nMIIEvQIBADANBg\n-----END-----\n",
    }
    keys = {
        "output/AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
        "output/AWS_REGION": "eu-central-1",
        "train/credentials.json": json.dumps(account),
        "base-model/token": "a-token-of-a-hub",
        "teacher/AZURE_STORAGE_ACCOUNT_KEY": "bXkta2V5LW9mLXRoZS1hY2NvdW50",
        "workspace/AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=c2Vjb25kLWtleQ==;EndpointSuffix=x",
        "teacher/.dockerconfigjson": json.dumps(
            {"auths": {"registry.example": {"auth": "cm9ib3Q6cGFzcw=="}}}
        ),
    }
    for name, value in keys.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
    redact = Redactor({}, tmp_path)
    told = redact(
        "wJalrXUtnFEMI eu-central-1 MIIEvQIBADANBg a-token-of-a-hub cm9ib3Q6cGFzcw== registry.example"
    )
    assert told == "[redacted] eu-central-1 [redacted] [redacted] [redacted] registry.example"
    assert redact(
        "bXkta2V5LW9mLXRoZS1hY2NvdW50 AccountKey=c2Vjb25kLWtleQ==; ?sv=2&sig=q%2Bw3e%3D12&se=3"
    ) == ("[redacted] AccountKey=[redacted]; ?sv=2&sig=[redacted]&se=3")
