"""Secrets that open each URI of a run."""

from collections.abc import Iterator

from tunesmith_contract.layout import (
    SecretRole,
    reward_role,
    side_model_role,
    side_role,
    suite_role,
    trained_rows_role,
)
from tunesmith_contract.methods import Method
from tunesmith_contract.run_config import (
    AnyConfig,
    EvaluateConfig,
    GenerateConfig,
    PrepareConfig,
    TrainConfig,
)
from tunesmith_contract.uris import parse_uri

Roles = tuple[str, ...]


def roles_of(config: AnyConfig) -> dict[str, Roles]:
    """Roles of the Secrets for each URI of a run; the first mounted one is used."""
    roles: dict[str, Roles] = {}
    for uri, *names in _named(config):
        roles.setdefault(uri, tuple(names))
    return roles


def workspace_roles(config: AnyConfig) -> Roles:
    """Roles of the Secrets for work files, which are at the output by default."""
    return (SecretRole.WORKSPACE, SecretRole.OUTPUT) if config.workspace else (SecretRole.OUTPUT,)


def _named(config: AnyConfig) -> Iterator[tuple[str, ...]]:
    if config.base_model:
        yield config.base_model, SecretRole.BASE_MODEL
    match config:
        case GenerateConfig():
            yield config.generation.source, SecretRole.SEEDS, SecretRole.TRAIN, SecretRole.BASE_MODEL
            for held_out in config.held_out:
                own = (suite_role(held_out.name), SecretRole.VALIDATION)
                yield held_out.uri, *own, SecretRole.TRAIN, SecretRole.BASE_MODEL
        case PrepareConfig():
            for uri in config.train:
                yield uri, SecretRole.TRAIN, SecretRole.BASE_MODEL
            if config.generated:
                yield config.generated, *workspace_roles(config)
            if config.validation.uri:
                yield config.validation.uri, SecretRole.VALIDATION, SecretRole.TRAIN, SecretRole.BASE_MODEL
            for held_out in config.held_out:
                yield held_out.uri, suite_role(held_out.name), SecretRole.TRAIN, SecretRole.BASE_MODEL
        case TrainConfig():
            if config.initial:
                yield config.initial.uri, SecretRole.OUTPUT
            yield from _of_method(config.method)
        case EvaluateConfig():
            yield from _of_evaluation(config)


def _of_evaluation(config: EvaluateConfig) -> Iterator[tuple[str, ...]]:
    """URIs of models, artifacts, answers and rows; endpoints are opened by ``side_role`` and ``metric_role``."""
    for side in config.sides:
        role = side_role(side.name)
        for source in (side.adapter, side.checkpoint, side.answers):
            if source is not None:
                yield source.uri, role, *_output_role(source.uri, config)
        if side.model:
            # The Secret of an artifact is for its store, not for that of its base model.
            yield (
                side.model,
                role if side.adapter is None and side.checkpoint is None else side_model_role(side.name),
            )
    for suite in config.suites:
        sources = (suite.dataset, *((suite.harness.data, suite.harness.include) if suite.harness else ()))
        for uri in filter(None, sources):
            yield uri, suite_role(suite.name), SecretRole.TRAIN, SecretRole.BASE_MODEL
    for rows in config.trained_rows:
        for uri in (rows.uri, rows.validation_uri, rows.report_uri):
            yield uri, trained_rows_role(rows.side, rows.generation), *workspace_roles(config)
    if config.few_shot_from:
        roles = (SecretRole.EXAMPLES, SecretRole.TRAIN, SecretRole.BASE_MODEL)
        yield config.few_shot_from, *roles, *workspace_roles(config)


def _output_role(uri: str, config: EvaluateConfig) -> Roles:
    """The role of the output, for what lies in the same store; keys are not sent to another one."""
    place, output = parse_uri(uri), parse_uri(config.output)
    return (SecretRole.OUTPUT,) if (place.scheme, place.name) == (output.scheme, output.name) else ()


def _of_method(method: Method) -> Iterator[tuple[str, ...]]:
    """URIs of a teacher's weights and of reward models."""
    if method.distillation and method.distillation.teacher.uri:
        yield method.distillation.teacher.uri, SecretRole.TEACHER, SecretRole.BASE_MODEL
    for online in (method.grpo, method.rloo):
        for reward in online.rewards if online else ():
            if reward.model:
                yield reward.model.uri, reward_role(reward.name), SecretRole.OUTPUT
                if reward.model.base_model:
                    yield reward.model.base_model, SecretRole.BASE_MODEL
