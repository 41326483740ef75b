"""Job of the evaluate stage: all sides answer the same items."""

from tunesmith.api.evalrun import EvalRun
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.stages import Stage
from tunesmith_contract.uris import StorageUri, parse_uri

from .environment import Environment
from .objects import KubernetesObject
from .run_snapshots import Inputs, inputs_name
from .trainer_job import TrainerPod, build_trainer_job

REQUESTS = {"cpu": "1", "memory": "4Gi"}


def build_evaluate_job(
    run: EvalRun, inputs: Inputs, attempt: int, environment: Environment
) -> KubernetesObject:
    """The Job of one attempt."""
    assert isinstance(inputs.config, EvaluateConfig)
    compute = run.spec.compute
    pod = TrainerPod(
        image=inputs.image,
        config_map=inputs_name(run),
        ca_config_map=inputs_name(run),
        reads=evaluation_uris(inputs.config),
        writes=tuple(parse_uri(uri) for uri in (inputs.config.output, inputs.config.workspace) if uri),
        requests=REQUESTS,
        resources=compute.resources,
        template=compute.template,
        token_secret=inputs.token_secret or None,
        secrets=inputs.secrets,
        gpus=compute.gpus,
    )
    return build_trainer_job(run, Stage.EVALUATE, attempt, pod, environment)


def evaluation_uris(config: EvaluateConfig) -> tuple[StorageUri, ...]:
    """URIs that evaluate reads: the base model, the adapters, the items and the few-shot examples."""
    adapters = (side.adapter.uri for side in config.sides if side.adapter)
    items = (suite.dataset for suite in config.suites)
    uris = (config.base_model, *adapters, *items, config.few_shot_from)
    return tuple(parse_uri(uri) for uri in uris if uri)
