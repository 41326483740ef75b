"""Every method, adapter, format, store and metric in the trainer image, as pods run it: at least one step of each."""

import json
import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rows.filled_sheets import fill
from servers.azure_storage import AzureAccount, run_azure
from servers.google_storage import run_gcs
from servers.scripted_server import Received, Reply, serve
from servers.scripted_teacher import Teacher
from servers.storage_servers import BUCKET, Registry, run_registry, run_s3
from trainer_image.image_matrix import BASE_MODEL, DPO_LOSS_RUNS, RUNS, Servers, TrainingRun, make_data_sets
from trainer_image.image_pods import Ended, PodHost

from tunesmith_cluster.certificates import Authority
from tunesmith_contract.evaluation import Metric
from tunesmith_contract.methods import Method, Reward
from tunesmith_contract.report import RunReport
from tunesmith_contract.run_config import AdapterType, OutputFormat
from tunesmith_contract.uris import MOUNT_ROOT, Scheme
from tunesmith_images import buildah
from tunesmith_images.build import build_images
from tunesmith_images.catalog import Image
from tunesmith_images.container import ContainerImage, Mount, open_image
from tunesmith_images.model import ensure_model

# A test waits for its pods, and for those that were started before them.
pytestmark = pytest.mark.timeout(1200)

SUPPORT = Path(__file__).parents[1] / "support"
#: Pods at the same time: each of them keeps one core busy.
PARALLEL = 2
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
REPOSITORY = "team/models"
EVALUATED = "sft"
WRITTEN_CLAIMS = ("artifacts", "work")

_MAKE_MODELS = """
import sys
from pathlib import Path
sys.path.insert(0, "/support")
from models.tiny_models import save_model
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("/tokenizer")
for seed, name in enumerate(("student", "teacher")):
    save_model(Path("/models") / name, "llama", tokenizer, seed)
"""


class World:
    """Pods of the trainer image, and the servers around them."""

    def __init__(
        self,
        host: PodHost,
        servers: Servers,
        registry: Registry,
        azure: AzureAccount,
        buckets: dict[Scheme, Path],
    ) -> None:
        self.host = host
        self.servers = servers
        self.registry = registry
        self.azure = azure
        self._buckets = buckets

    def place(self, run: TrainingRun) -> dict[str, str]:
        """Where the results of a run go."""
        match run.store:
            case Scheme.PVC:
                return {"output": f"pvc://artifacts/{run.prepared_by or run.name}"}
            case Scheme.OCI:
                output = f"oci://{self.registry.host}/{REPOSITORY}/{run.name}"
                return {"output": output, "workspace": f"pvc://work/{run.name}"}
            case _:
                return {"output": f"{run.store}://{BUCKET}/{run.name}"}

    def train(self, run: TrainingRun) -> Ended:
        """Prepare rows and train on them, each in a pod of its own; an earlier failure is a failure of this too."""
        secrets = _secrets([run])
        prepared = self.host.run_stage(self.prepare_config(run), secrets)
        report = succeeded(prepared)
        assert report.dataset and report.model
        inputs = {"baseModelRevision": report.model.revision, "datasetDigest": report.dataset.digest}
        return self.host.run_stage({**self.train_config(run), **inputs}, secrets)

    def train_series(self, name: str, runs: Sequence[TrainingRun]) -> dict[str, Ended]:
        """The last stages of runs that are prepared and trained one after another in one pod, by the run's name."""
        folder, stages = self.host.claim(name), []
        for run in runs:
            stages += [self.prepare_config(run)] if run.prepared_by is None else []
            stages.append(self.train_config(run))
        (folder / "series.json").write_text(json.dumps(stages))
        claims = [(claim, claim in WRITTEN_CLAIMS) for claim in ("data", "models", *WRITTEN_CLAIMS)]
        pod = self.host.run_command(
            name,
            ["python", "/support/trainer_image/image_run_series.py", "/series/series.json"],
            Mount(SUPPORT, "/support"),
            Mount(folder, "/series", writable=True),
            *(
                Mount(self.host.claim(claim), str(MOUNT_ROOT / "pvc" / claim), writable)
                for claim, writable in claims
            ),
            *self.host.secret_mounts(_secrets(runs)),
        )
        assert pod.code == 0, pod.log
        ended = json.loads((folder / "ended.json").read_text())
        return {
            run: Ended(each["code"], RunReport.model_validate(each["report"]), pod.log)
            for run, each in ended.items()
        }

    def prepare_config(self, run: TrainingRun) -> dict[str, Any]:
        """The ``run.json`` of a run's preparation."""
        return {
            **self._common_config(run),
            "stage": "prepare",
            "train": [f"pvc://data/{run.rows}.jsonl"],
            "validation": {"fraction": run.held_out},
            "seed": 1,
        }

    def train_config(self, run: TrainingRun) -> dict[str, Any]:
        """The ``run.json`` of a run's training, without what preparation tells it."""
        return {
            **self._common_config(run),
            **({"preparedBy": run.prepared_by} if run.prepared_by else {}),
            "stage": "train",
            "adapter": {"type": run.adapter, "rank": 4} if run.adapter else None,
            "hyperparameters": {
                "learningRate": 1e-2,
                "batchSize": run.batch,
                "microBatchSize": 2,
                "maxSteps": run.steps,
                "warmupRatio": 0,
            },
            "checkpoints": {"everySteps": 1, "keep": 1},
            "image": "trainer",
        }

    def _common_config(self, run: TrainingRun) -> dict[str, Any]:
        return {
            **_owner(run.name),
            **self.place(run),
            "baseModel": BASE_MODEL,
            "method": run.method(self.servers),
            "formats": list(run.formats),
        }

    def read_artifact(self, run: TrainingRun, artifact: Any) -> dict[str, bytes]:
        """The first bytes of an artifact's files, by name, as they lie in the store."""
        if run.store is Scheme.OCI:
            return self._read_image(artifact.uri)
        if run.store is Scheme.AZ:
            return self.azure.first_bytes(artifact.uri.partition("://")[2], 4)
        root = self.host.claim("artifacts").parent if run.store is Scheme.PVC else self._buckets[run.store]
        folder = root / artifact.uri.partition("://")[2]
        return {file.name: file.read_bytes()[:4] for file in folder.iterdir() if file.is_file()}

    def _read_image(self, uri: str) -> dict[str, bytes]:
        name, _, tag = uri.removeprefix(f"oci://{self.registry.host}/").rpartition(":")
        request = urllib.request.Request(
            f"http://{self.registry.host}/v2/{name}/manifests/{tag}",
            headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
        )
        with urllib.request.urlopen(request) as response:
            layers = json.load(response)["layers"]
        return {
            layer["annotations"]["org.opencontainers.image.title"]: self.registry.blob(
                layer["digest"]
            ).read_bytes()[:4]
            for layer in layers
        }


def _secrets(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """The Secrets that runs in the same pod need, by the role that each is mounted for."""
    [*stores] = {str(run.store) for run in runs} - {Scheme.PVC}
    assert len(stores) <= 1, "a pod has one Secret for what it writes"
    secrets = {"output": stores[0]} if stores else {}
    return secrets | ({"reward-judge": str(Scheme.OCI)} if any(run.after for run in runs) else {})


def _owner(name: str, kind: str = "FineTuneJob") -> dict[str, Any]:
    return {"owner": {"kind": kind, "namespace": "ns", "name": name, "uid": name}}


def succeeded(ended: Ended) -> RunReport:
    """The report of a pod that ended well."""
    assert ended.code == 0, f"exit code {ended.code}: {ended.report}\n{ended.log[-4000:]}"
    assert ended.report
    return ended.report


@pytest.fixture(scope="session")
def world(trainer_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The built image, two tiny models made in it, rows, and a server of each store."""
    folder = tmp_path_factory.mktemp("world")
    with ExitStack() as stack:
        [ref] = build_images([trainer_image], buildah).refs.values()
        image = stack.enter_context(open_image(ref))
        host = PodHost(image, folder)
        s3 = stack.enter_context(run_s3(_made(folder / "s3")))
        account = stack.enter_context(run_gcs(_made(folder / "gs")))
        registry = stack.enter_context(run_registry(folder / "oci"))
        azure = stack.enter_context(run_azure(_made(folder / "azure"), Authority(folder / "azure-pki")))
        teacher = stack.enter_context(serve(Teacher()))
        rewards = stack.enter_context(serve(_score))
        host.write_secret(Scheme.S3, s3.secret())
        host.write_secret(Scheme.GS, {"credentials.json": account})
        host.write_secret(Scheme.AZ, azure.secret())
        host.write_secret(Scheme.OCI, {"plainHTTP": "true"})
        for name, rows in make_data_sets().items():
            _write_rows(host.claim("data") / f"{name}.jsonl", rows)
        _make_models(host, image, folder)
        servers = Servers(teacher=f"{teacher.url}/v1", rewards=rewards.url)
        yield World(host, servers, registry, azure, {Scheme.S3: s3.root, Scheme.GS: folder / "gs/buckets"})


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _score(request: Received) -> Reply:
    """An endpoint that prefers short answers."""
    return Reply(body={"rewards": [1 / (1 + len(str(answer))) for answer in request.body["completions"]]})


def _make_models(host: PodHost, image: ContainerImage, folder: Path) -> None:
    """Random models with a real tokenizer: llama.cpp refuses tokenizers that it has never seen."""
    tokenizer = _made(folder / "tokenizer")
    for name in TOKENIZER_FILES:
        shutil.copy(ensure_model(image) / name, tokenizer)
    mounts = [Mount(SUPPORT, "/support"), Mount(tokenizer, "/tokenizer")]
    models = Mount(host.claim("models"), "/models", writable=True)
    ended = host.run_command("models", ["python", "-c", _MAKE_MODELS], models, *mounts)
    assert ended.code == 0, ended.log


class Outcomes:
    """How training runs end, a few pods at a time."""

    def __init__(self, world: World, pool: ThreadPoolExecutor, runs: Sequence[TrainingRun]) -> None:
        self._world = world
        self._pool = pool
        self._series: dict[str, list[TrainingRun]] = {}
        self._futures: dict[str, Future[dict[str, Ended]]] = {}
        for run in runs:
            self._series.setdefault(run.series or run.name, []).append(run)
        for name, members in self._series.items():
            self._futures |= dict.fromkeys(
                [run.name for run in members], pool.submit(self._train, name, members)
            )

    def __getitem__(self, name: str) -> RunReport:
        """The report of a run's training, once it is there; its failure, or that of its preparation, fails the test."""
        return succeeded(self._futures[name].result()[name])

    def _train(self, name: str, runs: Sequence[TrainingRun]) -> dict[str, Ended]:
        for needed in {run.after for run in runs if run.after}:
            training = self[needed].training
            assert training
            self._world.servers.artifacts[needed] = training.artifact.to_dict()
        if runs[0].series:
            return self._world.train_series(name, runs)
        return {name: self._world.train(runs[0])}


@pytest.fixture(scope="session")
def outcomes(world: World, request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    """Training runs of the tests that were chosen, and what these need."""
    callspecs = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = {spec.params["run"].name for spec in callspecs if spec and "run" in spec.params}
    needed = chosen | {run.after for run in RUNS if run.name in chosen} | {EVALUATED}
    needed |= {run.prepared_by for run in DPO_LOSS_RUNS if run.name in chosen}
    with ThreadPoolExecutor(PARALLEL) as pool:
        yield Outcomes(world, pool, [run for run in (*RUNS, *DPO_LOSS_RUNS) if run.name in needed])
        pool.shutdown(cancel_futures=True)


def _weights(run: TrainingRun) -> str:
    return "adapter_model.safetensors" if run.adapter else "model.safetensors"


def test_every_value_has_a_run() -> None:
    """What the contract gains is tried in the image, too."""
    servers = Servers("", "", {"reward": {"uri": "", "digest": ""}})
    methods = [run.method(servers) for run in RUNS]
    rewards = [
        reward for method in methods for member in method.values() for reward in member.get("rewards", ())
    ]
    fields = {name: field.alias or name for name, field in Reward.model_fields.items()}
    assert {key for method in methods for key in method} == set(Method.model_fields)
    assert {run.adapter for run in RUNS} == {None, *AdapterType}
    assert {name for run in RUNS for name in run.formats} == set(OutputFormat)
    assert {run.store for run in RUNS} == set(Scheme) - {Scheme.HF, Scheme.CONFIGMAP}
    assert {key for reward in rewards for key in reward} | {"weight"} == set(fields.values())


@pytest.mark.parametrize("run", [*RUNS, *DPO_LOSS_RUNS], ids=lambda run: run.name)
def test_a_run_trains_and_delivers(run: TrainingRun, world: World, outcomes: Outcomes) -> None:
    training = outcomes[run.name].training
    assert training
    assert training.steps == run.steps
    delivered = {export.format: export.artifact for export in training.exports}
    assert {OutputFormat.ADAPTER, *delivered} == set(run.formats)
    result = world.read_artifact(run, training.artifact)
    assert _weights(run) in result
    if merged := delivered.get(OutputFormat.MERGED):
        assert "model.safetensors" in world.read_artifact(run, merged)
    if gguf := delivered.get(OutputFormat.GGUF):
        assert world.read_artifact(run, gguf)["model.gguf"] == b"GGUF"


def test_rows_are_generated_and_prepared(world: World, outcomes: Outcomes) -> None:
    generation = {
        "endpoint": {"url": world.servers.teacher, "model": "large"},
        "answers": {"prompts": "pvc://data/prompts.jsonl"},
        "filter": {"judge": {"minimum": 1}, "rewards": [{"name": "short", "length": {"maxTokens": 64}}]},
        "budget": {"calls": 100},
    }
    common = {
        **_owner("generated"),
        "baseModel": BASE_MODEL,
        "seed": 1,
        "output": "pvc://artifacts/generated",
    }
    made = succeeded(
        world.host.run_stage({**common, "stage": "generate", "generation": generation})
    ).generation
    assert made
    assert made.rows > 0
    prepared = succeeded(
        world.host.run_stage(
            {
                **common,
                "stage": "prepare",
                "generated": made.generated.uri,
                "validation": {},
                "method": {"sft": {}},
            }
        )
    )
    assert prepared.dataset
    assert prepared.dataset.rows == made.rows


#: Metrics by suite. The others need an endpoint, the sandbox, a container, groups of items, or other expected answers.
TEXT_METRICS = [
    *(Metric.EXACT_MATCH, Metric.CONTAINS, Metric.TOKEN_F1, Metric.ROUGE_L),
    *(Metric.BLEU, Metric.CHRF, Metric.JSON_VALID, Metric.JSON_FIELDS),
]
OTHER_METRICS: list[dict[str, str]] = [
    {"type": Metric.REGEX, "pattern": "[a-z]"},
    {"type": Metric.JSON_SCHEMA, "jsonSchema": '{"type": "object"}'},
    *({"type": str(metric)} for metric in (Metric.XML_VALID, Metric.ACCURACY, Metric.MACRO_F1)),
    *({"type": str(metric)} for metric in (Metric.PERPLEXITY, Metric.BITS_PER_BYTE, Metric.TOKENS)),
]


def _as_chat(question: str, answer: str) -> dict[str, Any]:
    turns = (("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_an_adapter_is_evaluated_by_every_metric_of_its_own_answers(world: World, outcomes: Outcomes) -> None:
    training = outcomes[EVALUATED].training
    assert training
    adapter = {"uri": training.artifact.uri, "digest": training.artifact.digest}
    # Rows that the adapter was trained on would be left out as leaked.
    questions = [
        f"Describe a {thing} as a JSON object." for thing in ("hinge", "wooden box", "map", "red kite")
    ]
    items = [_as_chat(question, json.dumps({"name": question.split()[2]})) for question in questions]
    _write_rows(world.host.claim("data") / "items.jsonl", items)
    common = {"dataset": "pvc://data/items.jsonl", "decoding": {"maxNewTokens": 4}}
    config = {
        **_owner("evaluated", "EvalRun"),
        "stage": "evaluate",
        "baseModel": BASE_MODEL,
        "sides": [{"name": "tuned", "adapter": adapter}, {"name": "base", "systemPrompt": "Answer briefly."}],
        "suites": [
            {"name": "text", "metrics": TEXT_METRICS, **common},
            {"name": "other", "metrics": OTHER_METRICS, **common},
        ],
        "output": "pvc://artifacts/evaluated",
    }
    evaluation = succeeded(world.host.run_stage(config)).evaluation
    assert evaluation
    measured = {(result.suite, result.metric) for result in evaluation.results}
    assert measured == {
        *(("text", metric) for metric in TEXT_METRICS),
        *(("other", metric["type"]) for metric in OTHER_METRICS),
    }


def test_rows_go_to_people_and_come_back(world: World) -> None:
    folder = world.host.claim("labels")
    shutil.copy(world.host.claim("data") / "preferences.jsonl", folder)
    mount = Mount(folder, "/labels", writable=True)
    labels = ["tunesmith-data", "labels"]
    push = [
        *labels,
        "push",
        "/labels/preferences.jsonl",
        "--task",
        "preference",
        "--out",
        "/labels/tasks.csv",
    ]
    pushed = world.host.run_command("labels-push", push, mount)
    assert pushed.code == 0, pushed.log
    fill(folder / "tasks.csv", folder / "filled.csv", lambda line: {"choice": "A"})
    pull = [
        *labels,
        "pull",
        "/labels/filled.csv",
        "--rows",
        "/labels/tasks.rows.jsonl",
        "--out",
        "/labels/out.jsonl",
    ]
    pulled = world.host.run_command("labels-pull", pull, mount)
    assert pulled.code == 0, pulled.log
    assert (folder / "out.jsonl").read_text().count("\n") > 0


def test_a_file_is_checked_without_a_cluster(world: World) -> None:
    mounts = [Mount(world.host.claim(name), str(MOUNT_ROOT / "pvc" / name)) for name in ("data", "models")]
    file, model = (str(MOUNT_ROOT / "pvc" / name) for name in ("data/chats.jsonl", "models/student"))
    checked = world.host.claim("checked")
    command = ["tunesmith-data", "prepare", file, "--model", model, "--output", "/checked"]
    ended = world.host.run_command("check", command, Mount(checked, "/checked", writable=True), *mounts)
    assert ended.code == 0, ended.log
    assert "<html" in (checked / "data-report/report.html").read_text()
