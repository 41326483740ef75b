"""Suites and gates of an evaluation, as the pods read them; the built-in suites on safety are among them."""

from collections.abc import Iterable

from tunesmith.api.endpoints import ChatEndpoint
from tunesmith.api.evalrun import AdviceSettings, EvaluationTemplate
from tunesmith.api.evaluation_sides import EvaluatedEndpoint, TokenPrices
from tunesmith.api.evaluation_suites import Gate, JudgeSettings, MetricSpec, Suite
from tunesmith_contract import evaluation as contract
from tunesmith_contract import methods
from tunesmith_contract.evaluation import SAFETY_SUITE, Expect, Tier
from tunesmith_contract.safety import HARMLESS_SUITE, safety_gates, safety_suites


def resolve_suites(spec: EvaluationTemplate) -> tuple[contract.Suite, ...]:
    """All suites, in the order of the spec, then those on safety unless they are switched off."""
    own = tuple(map(_suite, spec.suites))
    if spec.safety.disabled:
        return own
    judge = _judge(spec.safety.judge) if spec.safety.judge else None
    return (*own, *safety_suites(judge, spec.safety.max_new_tokens))


def resolve_gates(spec: EvaluationTemplate) -> tuple[contract.Gate, ...]:
    """All gates, in the order of the spec, then those of the safety suites that the spec has not written itself."""
    own = tuple(map(_gate, spec.gates))
    if spec.safety.disabled:
        return own
    written = set(map(_gate_key, own))
    defaults = safety_gates(float(spec.safety.margin))
    return (*own, *(gate for gate in defaults if _gate_key(gate) not in written))


def suite_notes(spec: EvaluationTemplate) -> tuple[str, ...]:
    """Sentences on suites that are left out."""
    if not spec.safety.disabled:
        return ()
    return (f"The safety suites are switched off: {spec.safety.reason}",)


def priced_endpoint(endpoint: EvaluatedEndpoint) -> contract.PricedEndpoint:
    """An endpoint as the pods read it; its Secret lies in a folder by its role."""
    prices = endpoint.prices and token_prices(endpoint.prices)
    budget = endpoint.budget and contract.EndpointBudget.model_validate(endpoint.budget.to_dict())
    return contract.PricedEndpoint(url=endpoint.url, model=endpoint.model, prices=prices, budget=budget)


def token_prices(prices: TokenPrices) -> contract.TokenPrices:
    """Prices as the pods read them."""
    return contract.TokenPrices.model_validate(
        {
            "prompt": prices.input_price_per_million,
            "completion": prices.output_price_per_million,
            "currency": prices.currency,
        }
    )


def model_use(advice: AdviceSettings) -> contract.ModelUse:
    """Use of the model as the pods read it."""
    return contract.ModelUse(
        bar=_number(advice.bar),
        examples=advice.examples,
        latency_budget=_number(advice.latency_budget_seconds),
        requests_per_month=advice.requests_per_month,
        training_cost=_number(advice.training_cost),
        prices=token_prices(advice.prices) if advice.prices else None,
    )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def metric_endpoints(spec: EvaluationTemplate) -> Iterable[tuple[str, int, str, ChatEndpoint]]:
    """Suite, place, field and settings of each endpoint that a metric asks."""
    for suite in spec.suites:
        for index, metric in enumerate(suite.metrics):
            field = f"spec.suites[{suite.name}].metrics[{index}]"
            if metric.judge is not None:
                yield suite.name, index, f"{field}.judge.endpoint", metric.judge.endpoint
            elif metric.embedding is not None:
                yield suite.name, index, f"{field}.embedding", metric.embedding
    if spec.safety.judge is not None and not spec.safety.disabled:
        for name in (SAFETY_SUITE, HARMLESS_SUITE):
            yield name, 0, "spec.safety.judge.endpoint", spec.safety.judge.endpoint


def _suite(suite: Suite) -> contract.Suite:
    data, harness, container = suite.dataset, suite.harness, suite.container
    fields: dict[str, object] = {}
    if data is not None:
        columns = data.columns.to_dict() if data.columns else {}
        fields |= {"dataset": data.uri, "format": data.format, "columns": columns}
    if harness is not None:
        fields["harness"] = contract.HarnessTask(
            task=harness.task,
            data=harness.data,
            include=harness.include,
            few_shot=harness.few_shot,
            chat_template=harness.chat_template,
        )
    if container is not None:
        fields["container"] = contract.SuiteContainer(
            image=container.image, command=container.command, timeout_seconds=container.timeout_seconds
        )
    return contract.Suite(
        name=suite.name,
        **fields,
        group_column=suite.group_column,
        slice_columns=suite.slice_columns,
        metrics=tuple(map(_metric, suite.metrics)),
        limit=suite.limit,
        repeats=suite.repeats,
        max_broken=float(suite.max_broken),
        decoding=contract.Decoding(
            max_new_tokens=suite.max_new_tokens,
            temperature=float(suite.temperature),
            top_p=float(suite.top_p),
            stop=suite.stop,
        ),
    )


def _metric(metric: MetricSpec) -> contract.MetricSettings:
    text, tolerance, embedding = metric.text, metric.tolerance, metric.embedding
    return contract.MetricSettings(
        type=metric.type,
        name=metric.name,
        text=text
        and contract.TextMatch(ignore_case=text.ignore_case, ignore_punctuation=text.ignore_punctuation),
        pattern=metric.pattern,
        json_schema=metric.json_schema,
        tolerance=tolerance
        and contract.NumericTolerance(absolute=float(tolerance.absolute), relative=float(tolerance.relative)),
        labels=metric.labels,
        pass_at_k=metric.k,
        code_timeout_seconds=metric.timeout_seconds,
        judge=metric.judge and _judge(metric.judge),
        task_metric=metric.task_metric,
        embedding=embedding and methods.ChatEndpoint(url=embedding.url, model=embedding.model),
    )


def _judge(judge: JudgeSettings) -> contract.EvaluationJudge:
    return contract.EvaluationJudge(
        endpoint=priced_endpoint(judge.endpoint),
        mode=judge.mode,
        rubric=judge.rubric,
        max_tokens=judge.max_tokens,
        human_label_column=judge.human_label_column,
    )


def _gate(gate: Gate) -> contract.Gate:
    return contract.Gate(
        suite=gate.suite,
        metric=gate.metric,
        expect=gate.expect,
        margin=float(gate.margin),
        relative_margin=None if gate.relative_margin is None else float(gate.relative_margin),
        floor=float(gate.floor or 0),
        tier=gate.tier,
        min_items=gate.min_items,
    )


def _gate_key(gate: contract.Gate) -> tuple[str, str, Expect, Tier]:
    """Gates with the same key are one: a gate of the spec takes the place of a built-in one."""
    return gate.suite, gate.metric, gate.expect, gate.tier
