"""Questions of a task, and scores of their answers by the task's own filters and metrics."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import ConfigurableTask

from tunesmith_contract.base import sha256_digest
from tunesmith_contract.evaluation import Decoding
from tunesmith_data.failures import UserError
from tunesmith_evaluation.items.requests import Prompt
from tunesmith_evaluation.metrics.answers import Answer, Expected, Question
from tunesmith_evaluation.metrics.scorer import Score, ScoredItem, Scorer
from tunesmith_evaluation.statistics.kinds import ScoreKind

_MEANS = ("mean", "nanmean")
_ZERO_OR_ONE = frozenset({"acc", "acc_norm", "acc_bytes", "exact_match"})
_GENERATION_SETTINGS = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p"})


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """One request of an item.

    Attributes:
        prompt: what the model sees.
        expected: text whose likelihood is asked for; None if an answer is to be generated.
        decoding: decoding of the answer, as the task defines it.
    """

    prompt: Prompt
    expected: str | None
    decoding: Decoding

    def with_template_arguments(self, arguments: Mapping[str, Any]) -> "TaskQuestion":
        """The question with arguments of the chat template."""
        return replace(self, prompt=replace(self.prompt, template_arguments=arguments))


class TaskItems:
    """Items of a task: distinct rows of its evaluated split, in their order.

    Args:
        task: the task with its data.
        seed: seed by which worked examples are drawn.
        max_new_tokens: longest answer where the task does not limit it.
        code: digest of code that its definition refers to, beside that of the library.

    Attributes:
        digests: digest of each item.
        lines: row of each item in the split, counted from 1.
        repeated: number of rows that repeat another one, which are left out.
    """

    def __init__(self, task: ConfigurableTask, seed: int, max_new_tokens: int, code: str = "") -> None:
        self._task = task
        self._code = code
        self._seed = seed
        self._max_new_tokens = max_new_tokens
        docs: dict[str, tuple[int, Any]] = {}
        rows = 0
        for rows, doc in enumerate(task.eval_docs, 1):
            docs.setdefault(_digest(doc), (rows, doc))
        self.digests = tuple(docs)
        self.lines = tuple(line for line, _ in docs.values())
        self.repeated = rows - len(docs)
        self._docs = dict(docs.values())
        self._keep_questions_out_of_examples()

    @property
    def definition_digest(self) -> str:
        """Digest of all that decides how questions are asked and answers scored.

        The library's version and the rows that worked examples are drawn from are included.
        """
        config = {
            key: value
            for key, value in self._task.dump_config().items()
            if key not in {"metadata", "custom_dataset", "dataset_kwargs"}
        }
        version = importlib.metadata.version("lm-eval")
        described = {
            "config": config,
            "code": self._code,
            "library": version,
            "version": str(self._task.VERSION),
        }
        if self._task.config.num_fewshot:
            described["examples"] = [_digest(doc) for doc in self._task.sampler.df]
        return _digest(described)

    @property
    def needs_likelihood(self) -> bool:
        """True if the likelihood of given answers is asked for; else answers are generated."""
        return str(self._task.OUTPUT_TYPE) != "generate_until"

    def question(self, line: int) -> Question:
        """Question of an item, for the report."""
        text = self._task.doc_to_text(self._docs[line])
        return Question(
            text if isinstance(text, str) else "\n".join(self._task.doc_to_choice(self._docs[line]))
        )

    def expected(self, line: int) -> Expected:
        """Expected answer of an item, for the report."""
        target = self._task.doc_to_target(self._docs[line])
        if isinstance(target, int) and self._task.config.doc_to_choice is not None:
            choices = self._task.doc_to_choice(self._docs[line])
            target = choices[target] if target < len(choices) else target
        return Expected(str(target), row=line)

    def value(self, line: int, column: str) -> Any:
        """Value of a column of an item's row; None if it has none."""
        return self._docs[line].get(column)

    def requests(
        self, lines: Sequence[int], *, chat: bool = False, system_prompt: str | None = None
    ) -> dict[int, tuple[TaskQuestion, ...]]:
        """Requests by the row of the item, in the order in which ``scorer`` wants the answers.

        Args:
            lines: rows of the chosen items, in ascending order; worked examples are drawn in this order.
            chat: ask in conversations, examples as turns; else in plain text.
            system_prompt: text before the task's own description.

        Raises:
            UserError: a row does not fit the definition, or worked examples are too few.
        """
        self._task.set_fewshot_seed(self._seed)
        return {
            line: tuple(
                self._question(instance, chat) for instance in self._instances(line, chat, system_prompt)
            )
            for line in lines
        }

    def scorer(self, metric: str | None = None) -> "TaskScore":
        """Scorer of one of the task's metrics.

        Args:
            metric: its name, or ``name,filter``; None for the first one of the task.

        Raises:
            UserError: the task has no such metric, or one that is no mean of its items' scores.
        """
        means = [get_aggregation(name) for name in _MEANS]
        aggregations = self._task.aggregation()
        usable = [name for name, aggregation in aggregations.items() if aggregation in means]
        filters = [ensemble.name for ensemble in self._task._filters]
        name, _, filter_name = (metric or next(iter(usable), "")).partition(",")
        if name not in usable or (filter_name and filter_name not in filters):
            known = [f"{one},{other}" if len(filters) > 1 else one for one in usable for other in filters]
            message = (
                f"task {self._task.task_name} has no metric {metric}: write one of {', '.join(known)}"
                if known
                else f"task {self._task.task_name} has no metric that is a mean of its items' scores"
            )
            raise UserError("HarnessMetric", message)
        if not self._task.higher_is_better().get(name, True):
            message = (
                f"of metric {name} of task {self._task.task_name} lower values are better: choose another one"
            )
            raise UserError("HarnessMetric", message)
        return TaskScore(self, name, filter_name or filters[0])

    def score(self, line: int, answers: Sequence[Answer], name: str, filter_name: str) -> Score:
        """Score of an item by the task's filters and metrics.

        Args:
            line: row of the item.
            answers: answers to the item's requests, in their order.
            name: metric of the task.
            filter_name: filter whose output is scored.
        """
        instances = self._instances(line, chat=False, system_prompt=None, examples=0)
        if len(answers) != len(instances):
            return Score(None, {"reason": f"{len(answers)} answers to {len(instances)} requests"})
        for instance, answer in zip(instances, answers, strict=True):
            response = _response(answer, self.needs_likelihood)
            if response is None:
                return Score(None, {"reason": "the side gives no log-probabilities of given answers"})
            instance.resps = [response]
        try:
            for ensemble in self._task._filters:
                ensemble.apply(instances)
            filtered = [instance.filtered_resps[filter_name] for instance in instances]
            value = float(self._task.process_results(self._docs[line], filtered)[name])
        except Exception as error:  # whatever the code of a definition raises
            return Score(None, {"reason": f"the task can't score this answer: {error!r}"})
        if not 0 <= value <= 1:
            return Score(None, {"reason": f"the task's score is {value}, not from 0 to 1"})
        return Score(value, {"metric": name, "filter": filter_name})

    def _instances(
        self, line: int, chat: bool, system_prompt: str | None, examples: int | None = None
    ) -> list[Instance]:
        task, doc = self._task, self._docs[line]
        count = (task.config.num_fewshot or 0) if examples is None else examples
        try:
            context = task.fewshot_context(
                doc,
                num_fewshot=count,
                system_instruction=system_prompt,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                chat_template=_as_json if chat else None,
                gen_prefix=task.doc_to_prefix(doc),
            )
            built = task.construct_requests(
                doc=doc,
                ctx=context,
                metadata=(task.task_name, line - 1, 1),
                apply_chat_template=chat,
                chat_template=_as_json if chat else None,
            )
        except Exception as error:  # whatever the code of a definition raises
            message = f"row {line} of task {task.task_name} does not fit its definition: {error!r}"
            raise UserError("HarnessTask", message) from error
        return built if isinstance(built, list) else [built]

    def _question(self, instance: Instance, chat: bool) -> TaskQuestion:
        context, detail = instance.args[:2]
        prompt = Prompt(messages=tuple(json.loads(context))) if chat else Prompt(text=context)
        if not self.needs_likelihood:
            return TaskQuestion(prompt, None, self._decoding(detail))
        expected = str(detail)
        if not chat:
            # As the library has it: spaces before an answer belong to it, so that its first token is a usual one.
            spaces = context[len(context.rstrip()) :]
            prompt, expected = Prompt(text=context.rstrip()), spaces + expected
        return TaskQuestion(prompt, expected, Decoding(max_new_tokens=1))

    def _decoding(self, settings: Mapping[str, Any]) -> Decoding:
        unknown = set(settings) - _GENERATION_SETTINGS
        if unknown:
            message = (
                f"task {self._task.task_name} sets {', '.join(sorted(unknown))} in generation_kwargs, which not all "
                f"sides know: use {', '.join(sorted(_GENERATION_SETTINGS))}"
            )
            raise UserError("HarnessTask", message)
        until = settings.get("until") or []
        samples = settings.get("do_sample", False)
        return Decoding(
            max_new_tokens=settings.get("max_gen_toks") or self._max_new_tokens,
            temperature=settings.get("temperature", 1.0) if samples else 0.0,
            top_p=settings.get("top_p", 1.0) if samples else 1.0,
            stop=tuple([until] if isinstance(until, str) else until),
        )

    def _keep_questions_out_of_examples(self) -> None:
        """Remove the questions from the rows that examples are drawn from: some data holds them in two splits."""
        if not self._task.config.num_fewshot:
            return
        questions = set(self.digests)
        sampler = self._task.sampler
        sampler.replace_df([doc for doc in sampler.df if _digest(doc) not in questions])


class TaskScore(Scorer):
    """Score of a task's items by the task's own filters and metrics; an item is known by its row."""

    name = "TaskScore"
    scores_calls = True

    def __init__(self, items: TaskItems, metric: str, filter_name: str) -> None:
        self._items, self._metric, self._filter = items, metric, filter_name
        self.kind = ScoreKind.BINARY if metric in _ZERO_OR_ONE else ScoreKind.UNIT_INTERVAL
        self.version = f"1 {metric},{filter_name} {items.definition_digest}"

    def score_item(self, item: ScoredItem) -> Score:
        """Score of an item; its answers are those to all requests of the item, in their order."""
        if item.expected.row is None:
            raise ValueError("an item of a task needs its row")
        if not self._items.needs_likelihood and not all(answer.complete for answer in item.answers):
            return Score(0.0, {"incomplete": True})
        return self._items.score(item.expected.row, item.answers, self._metric, self._filter)

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        return self.score_item(ScoredItem(question, expected, (answer,)))


def _response(answer: Answer, needs_likelihood: bool) -> Any:
    """Answer as the library wants it: a text, or log-probability with its greediness; None if that is unknown."""
    if not needs_likelihood:
        # Without thinking an answer is what was generated, to the last space.
        return answer.raw if answer.thinking is None else answer.text
    likelihood = answer.likelihood
    if likelihood is None or not likelihood.is_usable or likelihood.is_greedy is None:
        return None
    return likelihood.log_probability, likelihood.is_greedy


def _as_json(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
    """Conversation as JSON, in place of a chat template: the model that answers renders it by its own."""
    if not add_generation_prompt:
        raise ValueError("a task with gen_prefix can't be asked in conversations: write chatTemplate: false")
    return json.dumps(list(messages))


def _digest(value: Any) -> str:
    """Digest of a row or definition; what JSON does not know counts by its text."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_describe)
    return sha256_digest(text.encode())


def _describe(value: Any) -> str:
    """Text of a value that JSON does not know; of a function its name, as its text would have an address in memory."""
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else str(value)
