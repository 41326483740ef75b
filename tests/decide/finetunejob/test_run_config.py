"""From what people write to what the trainer reads."""

from typing import Any

import pytest
import yaml
from custom_resources.manifest_cases import JOB_EXAMPLES, load_good
from simulation.simulated_cluster import DIGEST, START, fine_tune_job, success

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.method import resolve_method
from tunesmith.decide.finetunejob.referenced_jobs import ReferencedArtifact, referred_jobs, resolve_base
from tunesmith.decide.finetunejob.run_config import resolve_run, with_largest_rank
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract.report import Failure, ModelShape, RunReport
from tunesmith_contract.run_config import (
    Owner,
    PrepareConfig,
    TrainConfig,
    ValidationSource,
    parse_run_config,
)
from tunesmith_contract.sources import ArtifactSource

ADAPTER = ReferencedArtifact("pvc://artifacts/sha256/aa", DIGEST, "hf://org/base@r1")
WHOLE = ReferencedArtifact("pvc://artifacts/sha256/bb", DIGEST, "hf://org/base@r1", whole_model=True)
EARLIER = {"earlier": ADAPTER, "sft": ADAPTER, "reward": ADAPTER}
REWARDED = {"rewards": [{"name": "right", "exact": {}}], "generations": 4}


def run_of(
    job: FineTuneJob, report: RunReport | None = None, initial: ArtifactSource | None = None
) -> TrainConfig | Failure:
    spec = job.spec
    config = PrepareConfig(
        owner=Owner(kind="FineTuneJob", namespace="team", name="a", uid="u"),
        base_model=resolve_base(spec, EARLIER)[0],
        train=spec.dataset.train.locations if spec.dataset.train else (),
        generated=None if spec.dataset.train else "pvc://artifacts/generated.jsonl",
        validation=ValidationSource(),
        method=resolve_method(spec, EARLIER),
        seed=spec.hyperparameters.seed,
        workspace=spec.workspace.uri if spec.workspace else None,
        output=spec.output.uri,
    )
    inputs = Inputs(spec="", image="trainer:1", started=START, config=config, ca_bundle="")
    return resolve_run(spec, inputs, report or success("prepare"), initial)


def resolved(initial: ArtifactSource | None = None, **spec: Any) -> TrainConfig:
    run = run_of(FineTuneJob.parse(fine_tune_job(**spec)), initial=initial)
    assert isinstance(run, TrainConfig)
    return run


def refused(**spec: Any) -> str:
    failure = run_of(FineTuneJob.parse(fine_tune_job(**spec)))
    assert isinstance(failure, Failure)
    return failure.message


@pytest.mark.parametrize("example", JOB_EXAMPLES, ids=lambda path: path.stem)
def test_every_example_becomes_a_run_that_the_trainer_reads(example: Any) -> None:
    job = FineTuneJob.parse(yaml.safe_load(example.read_text()))
    run = run_of(job)
    assert isinstance(run, TrainConfig)
    assert parse_run_config(run.to_json()) == run
    assert run.method.key == job.spec.method.key


def test_examples_show_every_method() -> None:
    jobs = [FineTuneJob.parse(yaml.safe_load(example.read_text())) for example in JOB_EXAMPLES]
    shown = {job.spec.method.key for job in jobs}
    assert shown == {"sft", "dpo", "kto", "grpo", "rloo", "reward", "pretraining", "distillation"}


def test_every_reward_reaches_the_trainer() -> None:
    job = FineTuneJob.parse(load_good("finetunejob-rewards"))
    grpo = resolve_method(job.spec).grpo
    assert grpo is not None
    rewards = {reward.name: reward for reward in grpo.rewards}
    assert rewards["regex"].weight == -0.5
    assert rewards["schema"].json_schema is not None
    assert rewards["schema"].json_schema.json_schema == '{"type": "object", "required": ["amount"]}'
    assert rewards["model"].model is not None
    assert rewards["model"].model.base_model == "hf://org/base@r1"
    kinds = {
        name: next(iter(reward.to_dict().keys() - {"name", "weight"})) for name, reward in rewards.items()
    }
    assert kinds == {"schema": "jsonSchema"} | {name: name for name in rewards if name != "schema"}
    assert (grpo.beta, grpo.generations) == (0.04, 4)


def test_a_job_on_several_nodes_is_told_all_of_it() -> None:
    run = run_of(FineTuneJob.parse(load_good("finetunejob-nodes")))
    assert isinstance(run, TrainConfig)
    assert (run.nodes, run.gpus_per_node, run.parallelism, run.offload) == (2, 8, "ZeRO2", "Optimizer")
    assert run.adapter is not None
    assert (run.adapter.type, run.adapter.double_quantization) == ("QLoRA", False)
    assert (run.hyperparameters.micro_batch_size, run.hyperparameters.max_grad_norm) == (1, 0.3)
    assert run.early_stopping is not None
    assert (run.early_stopping.patience, run.early_stopping.min_delta) == (5, 0.001)
    assert run.tracking.weights_and_biases is not None
    assert (run.tracking.tensor_board, run.tracking.weights_and_biases.entity) == (False, "team")
    assert (run.workspace, run.output) == ("pvc://shared/work", "hf://team/support")
    assert run.formats == ("Adapter", "Merged", "GGUF")


def test_without_an_adapter_all_weights_are_trained_ten_times_as_slowly() -> None:
    body = fine_tune_job()
    del body["spec"]["adapter"]
    run = run_of(FineTuneJob.parse(body))
    assert isinstance(run, TrainConfig)
    assert run.adapter is None
    # 94 steps of an epoch take 540 rows: 11.5 at a time.
    assert run.hyperparameters.learning_rate == 1.7e-5
    assert resolved().hyperparameters.learning_rate == 1.7e-4


def test_a_learning_rate_follows_width_batch_steps_and_alpha() -> None:
    report = success("prepare")
    shape = ModelShape(
        hidden_size=576,
        intermediate_size=1536,
        layers=30,
        attention_heads=9,
        key_value_heads=3,
        head_size=64,
        vocabulary_size=49152,
    )
    assert report.model
    small = report.model_copy(update={"model": report.model.model_copy(update={"shape": shape})})

    def rate(**spec: Any) -> float:
        body = fine_tune_job(**({"method": {"sft": {"packing": False}}} | spec))
        run = run_of(FineTuneJob.parse(body), small)
        assert isinstance(run, TrainConfig)
        return run.hyperparameters.learning_rate

    assert rate() == 9.3e-4  # 540 rows: 34 steps of 16, three times
    assert rate(hyperparameters={"batchSize": 4}) == 4.6e-4
    assert rate(hyperparameters={"epochs": 1}) == 1.4e-3
    assert rate(hyperparameters={"maxSteps": 99}) == 1.4e-3
    assert rate(hyperparameters={"maxSteps": 100}) == 9.3e-4
    assert rate(adapter={"rank": 16, "alpha": 128}) == 4.6e-4
    assert rate(hyperparameters={"learningRate": "5e-5"}) == 5e-5


def test_packed_rows_are_counted_by_the_sequences_they_fill() -> None:
    """24,000 tokens fill 94 sequences of 256: two at a time make 47 steps, 540 single rows would make 16 a step."""
    assert resolved().hyperparameters.batch_size == 2
    written = resolved(hyperparameters={"batchSize": 16})
    assert (written.method.sft.packing, written.hyperparameters.batch_size) == (False, 16)  # type: ignore[union-attr]


def test_a_pair_takes_twice_the_tokens() -> None:
    single = resolved(method={"sft": {"maxLength": 1024, "packing": False}})
    pair = resolved(method={"dpo": {"maxLength": 1024}})
    assert (single.hyperparameters.micro_batch_size, pair.hyperparameters.micro_batch_size) == (8, 4)


def test_answers_come_in_whole_groups() -> None:
    run = resolved(method={"grpo": REWARDED}, compute={"gpusPerNode": 8})
    assert run.hyperparameters.batch_size == 64
    assert run.hyperparameters.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"compute": {"gpusPerNode": 8}, "hyperparameters": {"batchSize": 12}},
            "batchSize: 12 can't be shared evenly by 8 GPUs: write 16, or Auto.",
        ),
        (
            {"hyperparameters": {"batchSize": 12, "microBatchSize": 5}},
            "microBatchSize: 5 can't make up the 12 rows of a step on each GPU: write 4, or Auto.",
        ),
        (
            {
                "method": {"kto": {}},
                "compute": {"gpusPerNode": 8},
                "hyperparameters": {"batchSize": 8},
            },
            "KTO compares each row with others of its micro-batch: write a microBatchSize of 2 or more",
        ),
    ],
)
def test_sizes_that_do_not_go_together_are_refused_with_the_nearest_that_do(
    spec: dict[str, Any], sentence: str
) -> None:
    assert sentence in refused(**spec)


def test_kto_keeps_neighbors_together() -> None:
    run = resolved(method={"kto": {}}, compute={"gpusPerNode": 8})
    assert run.hyperparameters.batch_size % 16 == 0
    assert run.hyperparameters.micro_batch_size >= 2


def test_an_earlier_adapter_goes_on_upon_its_own_base() -> None:
    job = FineTuneJob.parse(load_good("finetunejob-rewards"))
    assert referred_jobs(job.spec) == ("earlier",)
    base, initial = resolve_base(job.spec, {"earlier": ADAPTER})
    assert (base, initial) == ("hf://org/base@r1", ArtifactSource(uri=ADAPTER.uri, digest=DIGEST))
    assert resolved(initial).initial == initial


def test_an_earlier_whole_model_is_the_base() -> None:
    job = FineTuneJob.parse(load_good("finetunejob-rewards"))
    assert resolve_base(job.spec, {"earlier": WHOLE}) == (WHOLE.uri, None)


@pytest.mark.parametrize(("artifact", "base"), [(ADAPTER, "hf://org/base@r1"), (WHOLE, None)])
def test_a_reward_model_brings_its_base_along(artifact: ReferencedArtifact, base: str | None) -> None:
    rloo = {"rewards": [{"name": "liked", "model": {"fineTuneJobRef": {"name": "liked"}}}]}
    job = FineTuneJob.parse(fine_tune_job(method={"rloo": rloo}))
    assert referred_jobs(job.spec) == ("liked",)
    method = resolve_method(job.spec, {"liked": artifact})
    assert method.rloo is not None
    (reward,) = method.rloo.rewards
    assert reward.model is not None
    assert (reward.model.uri, reward.model.digest, reward.model.base_model) == (artifact.uri, DIGEST, base)


def test_a_search_in_one_pod_is_judged_by_its_largest_rank() -> None:
    parameters = [{"name": "rank", "values": ["8", "64"]}]
    search = {"mode": "SharedPod", "parameters": parameters, "budget": {"trials": 3}}
    run = resolved(search=search)
    assert run.adapter is not None
    assert run.adapter.rank == 16
    judged = with_largest_rank(run)
    assert judged.adapter is not None
    assert judged.adapter.rank == 64
    assert with_largest_rank(resolved()) == resolved()
