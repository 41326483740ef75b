"""Scorers of all suites, with the judges, embedding models and sandbox that they ask for help."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tunesmith_contract.evaluation import MetricSettings, Suite
from tunesmith_contract.evaluation_container import SANDBOX_SOCKET
from tunesmith_contract.layout import metric_role
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.metrics.code_tests import CodeRunner, require_sandbox
from tunesmith_evaluation.metrics.embeddings import Embedder, EndpointEmbedder
from tunesmith_evaluation.metrics.judge.client import Judge, open_judge
from tunesmith_evaluation.metrics.registry import SCORED_ELSEWHERE, Helpers, build_scorer
from tunesmith_evaluation.metrics.sandbox.confinement import ConfinementUnavailable
from tunesmith_evaluation.metrics.sandbox.runner import LocalCodeRunner
from tunesmith_evaluation.metrics.sandbox.server import SocketCodeRunner
from tunesmith_evaluation.metrics.scorer import Scorer

#: Folder of the judges' journals, beside the answers.
JUDGES = "judges"

#: Scorers by suite and key of the metric, without those of tasks and containers.
Scorers = Mapping[str, Mapping[str, Scorer]]


@contextmanager
def open_scorers(config: EvaluateConfig, storage: Storage, workspace: Workspace) -> Iterator[Scorers]:
    """Scorers of all suites; what they ask for help is closed with the context.

    Raises:
        UserError: a setting of a metric is missing or wrong, or there is no sandbox.
        InfrastructureError: the sandbox beside this container does not run code.
    """
    runner = open_code_runner(Path(SANDBOX_SOCKET))
    with ExitStack() as stack:
        yield {
            suite.name: _build_scorers(suite, config, storage, workspace, stack, runner)
            for suite in config.suites
        }


def _build_scorers(
    suite: Suite,
    config: EvaluateConfig,
    storage: Storage,
    workspace: Workspace,
    stack: ExitStack,
    runner: CodeRunner | None,
) -> dict[str, Scorer]:
    secrets = {
        metric.key: storage.secrets / metric_role(suite.name, index)
        for index, metric in enumerate(suite.metrics)
    }
    models = {
        side.name: side.endpoint.model if side.endpoint else side.model or config.base_model or ""
        for side in config.sides
    }
    helpers = Helpers(
        _judge_opener(suite, secrets, workspace, stack),
        _embedder_opener(secrets, stack),
        runner,
        models,
    )
    return {
        metric.key: build_scorer(metric, helpers)
        for metric in suite.metrics
        if metric.type not in SCORED_ELSEWHERE
    }


def _judge_opener(
    suite: Suite, secrets: Mapping[str, Path], workspace: Workspace, stack: ExitStack
) -> Callable[[MetricSettings], Judge]:
    def open_one(metric: MetricSettings) -> Judge:
        assert metric.judge is not None
        # A folder for each suite: names may hold any character that could join them.
        journal = workspace.own_answers / JUDGES / suite.name / f"{metric.key}.jsonl"
        spec = metric.judge
        opened = open_judge(spec.endpoint, secrets[metric.key], spec.max_tokens, journal, workspace.push)
        return stack.enter_context(opened)

    return open_one


def _embedder_opener(secrets: Mapping[str, Path], stack: ExitStack) -> Callable[[MetricSettings], Embedder]:
    def open_one(metric: MetricSettings) -> Embedder:
        assert metric.embedding is not None
        return stack.enter_context(closing(EndpointEmbedder(metric.embedding, secrets[metric.key])))

    return open_one


def open_code_runner(socket: Path) -> CodeRunner | None:
    """Sandbox beside this container, else one in processes of this machine; None where there is neither.

    A pod with a sandbox has the folder of its socket. There no code runs in this container, which has the pod's Secrets
    and storage, even if the sandbox is late or can't start.

    Args:
        socket: path of the sandbox's socket.

    Raises:
        InfrastructureError: the sandbox does not start, or can't confine code; said before any model is loaded.
    """
    if socket.parent.is_dir():
        runner = SocketCodeRunner(socket)
        require_sandbox(runner)
        return runner
    try:
        return LocalCodeRunner()
    except ConfinementUnavailable:
        return None
