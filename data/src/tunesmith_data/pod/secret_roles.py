"""Secrets that open each URI of a run."""

from collections.abc import Iterator

from tunesmith_contract.layout import SecretRole, reward_role
from tunesmith_contract.methods import Method
from tunesmith_contract.run_config import (
    AnyConfig,
    EvaluateConfig,
    GenerateConfig,
    PrepareConfig,
    TrainConfig,
)

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
                yield held_out.uri, SecretRole.VALIDATION, SecretRole.TRAIN, SecretRole.BASE_MODEL
        case PrepareConfig():
            for uri in config.train:
                yield uri, SecretRole.TRAIN, SecretRole.BASE_MODEL
            if config.generated:
                yield config.generated, *workspace_roles(config)
            if config.validation.uri:
                yield config.validation.uri, SecretRole.VALIDATION, SecretRole.TRAIN, SecretRole.BASE_MODEL
            for held_out in config.held_out:
                yield held_out.uri, SecretRole.TRAIN, SecretRole.BASE_MODEL
        case TrainConfig():
            if config.initial:
                yield config.initial.uri, SecretRole.OUTPUT
            yield from _of_method(config.method)
        case EvaluateConfig():
            for side in config.sides:
                if side.adapter:
                    yield side.adapter.uri, SecretRole.OUTPUT
            for dataset in (*(suite.dataset for suite in config.suites), config.few_shot_from):
                if dataset:
                    yield dataset, SecretRole.TRAIN, SecretRole.BASE_MODEL


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
