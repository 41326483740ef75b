"""The generate stage, from its configuration to the committed rows and manifest.

It leaves ``generated.jsonl`` in the run's ``generated`` folder and ``generation.json`` beside the report on the data;
both are kept. The journal of questions and answers is in ``journal`` until training has succeeded.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith_contract.generation import Generation, GenerationFilter, Judge
from tunesmith_contract.layout import SecretRole, filter_role
from tunesmith_contract.methods import ChatEndpoint
from tunesmith_contract.report import RunReport
from tunesmith_contract.run_config import GenerateConfig, HeldOut
from tunesmith_contract.sources import DataFormat
from tunesmith_data.endpoints.journal import Journal
from tunesmith_data.endpoints.token_budget import TokenBudget
from tunesmith_data.failures import DataError
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rewards.build import (
    ModelRewardBuilder,
    RewardedRows,
    build_reward_functions,
    check_rewards,
)
from tunesmith_data.rows.reading import FileRows, raise_findings, read_source
from tunesmith_data.rows.schema.formats import ANY, Purpose, Row

from .budgeted_chat import BudgetedChat
from .manifest import commit
from .rate_limiter import Clock, RateLimiter
from .row_filter import OutcomeCounts, RewardFilter, RowOutcome, SeenQuestions
from .row_maker import ChatClients, GeneratedRows, RowMaker
from .similar_questions import HeldOutQuestions
from .tasks import AnswerTask, GenerationTask, ParaphraseTask, PreferenceTask, SelfInstructTask

JOURNAL_FILE = "journal.jsonl"
#: A full file of the journal is never sent to a bucket again.
_LINES_PER_FILE = 64
#: Judges should be deterministic.
_JUDGE_TEMPERATURE = 0.0


def generate(
    config: GenerateConfig,
    storage: Storage,
    workspace: Workspace,
    progress: ProgressReporter,
    clock: Clock | None = None,
    build_model: ModelRewardBuilder | None = None,
) -> RunReport:
    """Run the stage.

    Args:
        clock: waits for endpoints.
        build_model: makes scorers of reward models, which need torch.

    Raises:
        StageError: an endpoint, the rows to start from or the rewards are wrong, or there are too few rows at the end.
    """
    task, outcomes = _build_task(config), OutcomeCounts()
    rows = _read(config.generation.source, task.purpose, storage)
    held_out = HeldOutQuestions(row for held in config.held_out for row in _read_held_out(held, storage))
    rewards = _build_reward_filter(config, storage, rows, build_model)
    start = _remove_held_out(rows, held_out, config.generation, outcomes)
    path = workspace.journal / JOURNAL_FILE
    with Journal(path, workspace.push, upload_every=1, lines_per_file=_LINES_PER_FILE) as journal:
        budget = TokenBudget(config.generation.budget, journal)
        clients = _open_clients(config.generation, storage.secrets, journal, budget, clock or Clock())
        seen_questions = _build_seen_questions(task, start, config.generation)
        maker = RowMaker(task, clients, budget, seen_questions, held_out, rewards, config.generation)
        made = _make(maker, start, GeneratedRows(outcomes=outcomes), progress)
        return commit(config, storage, workspace, made, budget)


def _make(
    maker: RowMaker, start: Sequence[Row], generated: GeneratedRows, progress: ProgressReporter
) -> GeneratedRows:
    """All rows that can be made, with warnings.

    Raises:
        DataError: they are too few.
    """
    task, budget = maker.task, maker.budget
    total = task.wanted or len(start)
    try:
        maker.make(
            task.items(start) if start else (),
            generated,
            lambda: _report_progress(progress, generated, budget, task, total),
        )
    finally:
        maker.clients.close()
    _report_progress(progress, generated, budget, task, total)
    generated.exhausted |= budget.exhausted
    generated.warnings += _warn(generated, task, total)
    _require_rows(generated, maker.spec.minimum_rows, maker.clients)
    return generated


def _build_task(config: GenerateConfig) -> GenerationTask:
    spec = config.generation
    if spec.answers:
        return AnswerTask(spec.instructions)
    if spec.paraphrases:
        return ParaphraseTask(spec.paraphrases, spec.instructions)
    if spec.self_instruct:
        return SelfInstructTask(spec.self_instruct, spec.instructions, config.seed)
    assert spec.preferences is not None
    return PreferenceTask(spec.preferences, spec.instructions)


def _read(uri: str, purpose: Purpose, storage: Storage) -> list[Row]:
    """All rows of a file.

    Raises:
        DataError: one of them fails a check, or it holds none.
    """
    return _checked(read_source(storage.dataset_file(uri), DataFormat.AUTO, uri.rpartition("/")[2], purpose))


def _read_held_out(held: HeldOut, storage: Storage) -> list[Row]:
    """All held-out rows of a set.

    Raises:
        DataError: one of them fails a check, or there are none.
    """
    name = held.uri.rpartition("/")[2]
    return _checked(read_source(storage.dataset_file(held.uri), held.format, name, ANY, held.columns))


def _checked(source: FileRows) -> list[Row]:
    if source.findings:
        raise_findings(list(source.findings))
    return [row.row for row in source.rows]


def _build_reward_filter(
    config: GenerateConfig, storage: Storage, rows: Sequence[Row], build_model: ModelRewardBuilder | None
) -> RewardFilter:
    """Filter by rewards; errors in them are raised before anything is paid for.

    Raises:
        UserError: a reward can't be had.
        DataError: a reward compares with the rows' answers, and there is none.
    """
    reward_filter: GenerationFilter = config.generation.filter
    check_rewards(reward_filter.rewards)
    rewarded = RewardedRows(reward_filter.rewards)
    rewarded.update([{}] if config.generation.self_instruct else rows)
    rewarded.require_answers()
    tokenizer = None
    if config.base_model is not None:
        # Imported here: it brings transformers along, which most runs of the stage need not wait for.
        from tunesmith_data.models.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(storage.model_folder(config.base_model, weights=False))
    special = tokenizer.all_special_ids if tokenizer else ()
    functions, weights = build_reward_functions(
        reward_filter.rewards, special, storage, filter_role, build_model
    )
    return RewardFilter(functions, weights, reward_filter.minimum_reward, tokenizer)


def _remove_held_out(
    rows: Sequence[Row], held_out: HeldOutQuestions, spec: Generation, outcomes: OutcomeCounts
) -> list[Row]:
    """Source rows without held-out ones; prompts that get answers are unique."""
    answered = spec.answers or spec.preferences
    questions, remaining = SeenQuestions(None), list[Row]()
    for row in rows:
        if held_out.contains(row):
            outcomes.add(RowOutcome.LEAKED)
        elif answered and questions.contains(row):
            outcomes.add(RowOutcome.DUPLICATE)
        else:
            questions.add(row)
            remaining.append(row)
    return remaining


def _build_seen_questions(task: GenerationTask, start: Sequence[Row], spec: Generation) -> SeenQuestions:
    """Earlier questions that new ones must not repeat."""
    seen_questions = SeenQuestions(task.similarity_limit)
    if spec.paraphrases or spec.self_instruct:
        for row in start:
            seen_questions.add(row)
    return seen_questions


def _open_clients(
    spec: Generation, secrets: Path, journal: Journal, budget: TokenBudget, clock: Clock
) -> ChatClients:
    """Chat clients; a judge without an endpoint uses the teacher's endpoint and rate limit."""
    rate_limiter = RateLimiter(spec.requests_per_minute, clock)

    def open_endpoint(judge: Judge | None, name: str, role: str) -> BudgetedChat:
        endpoint: ChatEndpoint = (judge and judge.endpoint) or spec.endpoint
        own = judge is not None and judge.endpoint is not None
        return BudgetedChat(
            endpoint,
            name,
            secrets / (role if own else SecretRole.GENERATOR),
            _JUDGE_TEMPERATURE if judge else spec.temperature,
            judge.max_tokens if judge else spec.max_tokens,
            journal,
            budget,
            RateLimiter(spec.requests_per_minute, clock) if own else rate_limiter,
            clock,
        )

    comparing = spec.preferences.judge if spec.preferences else Judge()
    scoring = spec.filter.judge
    return ChatClients(
        teacher=open_endpoint(None, "the teacher", SecretRole.GENERATOR),
        judge=open_endpoint(comparing, "the judge", SecretRole.JUDGE),
        scorer=open_endpoint(scoring, "the filter's judge", SecretRole.FILTER_JUDGE) if scoring else None,
    )


def _report_progress(
    progress: ProgressReporter,
    generated: GeneratedRows,
    budget: TokenBudget,
    task: GenerationTask,
    total: int,
) -> None:
    done, spent = len(generated.rows) if task.wanted else generated.items, budget.spent
    progress.update(
        min(done, total),
        total,
        generated_rows=len(generated.rows),
        calls=spent.calls,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
    )


def _warn(generated: GeneratedRows, task: GenerationTask, total: int) -> Iterator[str]:
    done, name = (len(generated.rows), "rows") if task.wanted else (generated.items, "source rows")
    progress = f"{done:,} of {total:,} {name}"
    if generated.exhausted:
        yield f"the budget was used up after {progress}: raise dataset.generate.budget for more"
    elif task.wanted and len(generated.rows) < task.wanted:
        yield f"the teacher repeats itself and stopped at {progress}: add seeds, or raise temperature"


def _require_rows(generated: GeneratedRows, minimum: int, clients: ChatClients) -> None:
    """See that there are enough rows.

    Raises:
        DataError: there are fewer rows than that.
    """
    if len(generated.rows) >= minimum:
        return
    counts = generated.outcomes.to_dict()
    lost = ", ".join(
        f"{counts[outcome]:,} {outcome}"
        for outcome in RowOutcome
        if outcome is not RowOutcome.KEPT and counts[outcome]
    )
    refused = [f"refused: {refusal}" for client in clients.all for refusal in client.refusals.values()][:1]
    explanation = "; ".join(filter(None, (lost, *generated.warnings, *refused))) or "no source rows are left"
    message = (
        f"{len(generated.rows):,} rows were generated and minimumRows is {minimum:,} ({explanation}): "
        "add source rows, raise the budget, or lower what the filter asks for"
    )
    raise DataError("TooFewRows", message)
