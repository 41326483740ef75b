"""The generate stage: rows that a teacher makes, committed with how they were made.

It leaves ``generated.jsonl`` in the run's ``generated`` folder and ``generation.json`` beside the report on the data;
both stay. The journal of questions and answers lies in ``journal`` until training has succeeded.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith_contract.generation import Generation, GenerationFilter, Judge
from tunesmith_contract.layout import SecretRole, filter_role
from tunesmith_contract.methods import ChatEndpoint
from tunesmith_contract.report import RunReport
from tunesmith_contract.run_config import DataFormat, GenerateConfig
from tunesmith_data.endpoints.journal import Journal
from tunesmith_data.failures import DataError
from tunesmith_data.pod.progress import Progress
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rewards.build import (
    ModelRewardBuilder,
    RewardedRows,
    build_reward_functions,
    check_rewards,
)
from tunesmith_data.rows.reading import raise_findings, read_source
from tunesmith_data.rows.schema.formats import ANY, Purpose, Row

from .budgeted_chat import BudgetedChat
from .manifest import commit
from .rate_limiter import Clock, Pace
from .row_filter import Copies, Fate, RewardSieve, Tally
from .row_maker import Maker, Voices, Yield
from .similar_questions import HeldOutQuestions
from .tasks import AnswerTask, ParaphraseTask, PreferenceTask, SelfInstructTask, Task
from .token_budget import Purse

JOURNAL_FILE = "journal.jsonl"
#: A full file of the journal is never sent to a bucket again.
_LINES_PER_FILE = 64
#: Judges are to say the same each time.
_JUDGE_TEMPERATURE = 0.0


def generate(
    config: GenerateConfig,
    storage: Storage,
    workspace: Workspace,
    progress: Progress,
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
    task, tally = _task_of(config), Tally()
    rows = _read(config.generation.source, task.purpose, storage)
    held_out = _read_held_out(config, storage)
    rewards = _reward_sieve(config, storage, rows, build_model)
    start = _free_of(rows, held_out, config.generation, tally)
    path = workspace.journal / JOURNAL_FILE
    with Journal(path, workspace.push, keep_every=1, lines_per_file=_LINES_PER_FILE) as journal:
        purse = Purse(config.generation.budget, journal)
        voices = _voices(config.generation, storage.secrets, journal, purse, clock or Clock())
        copies = _copies(task, start, config.generation)
        maker = Maker(task, voices, purse, copies, held_out, rewards, config.generation)
        made = _make(maker, start, Yield(tally=tally), progress)
        return commit(config, storage, workspace, made, purse)


def _make(maker: Maker, start: Sequence[Row], made: Yield, progress: Progress) -> Yield:
    """All rows that can be made; what went wrong with them is in their warnings.

    Raises:
        DataError: they are too few.
    """
    task, spent = maker.task, maker.purse
    total = task.wanted or len(start)
    try:
        maker.make(
            task.items(start) if start else (), made, lambda: _tell(progress, made, spent, task, total)
        )
    finally:
        maker.voices.close()
    _tell(progress, made, spent, task, total)
    made.exhausted |= spent.exhausted
    made.warnings += _warn(made, task, total)
    _require_rows(made, maker.spec.minimum_rows, maker.voices)
    return made


def _task_of(config: GenerateConfig) -> Task:
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
    source = read_source(storage.dataset_file(uri), DataFormat.AUTO, uri.rpartition("/")[2], purpose)
    if source.findings:
        raise_findings(list(source.findings))
    return [row.row for row in source.rows]


def _read_held_out(config: GenerateConfig, storage: Storage) -> HeldOutQuestions:
    return HeldOutQuestions(row for held in config.held_out for row in _read(held.uri, ANY, storage))


def _reward_sieve(
    config: GenerateConfig, storage: Storage, rows: Sequence[Row], build_model: ModelRewardBuilder | None
) -> RewardSieve:
    """The rewards that rows have to pass; what can be wrong with them is said before anything is paid for.

    Raises:
        UserError: a reward can't be had.
        DataError: a reward compares with the rows' answers, and there is none.
    """
    sieve: GenerationFilter = config.generation.filter
    check_rewards(sieve.rewards)
    rewarded = RewardedRows(sieve.rewards)
    rewarded.see([{}] if config.generation.self_instruct else rows)
    rewarded.require_answers()
    tokenizer = None
    if config.base_model is not None:
        # Imported here: it brings transformers along, which most runs of the stage need not wait for.
        from tunesmith_data.models.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(storage.model_folder(config.base_model, weights=False))
    special = tokenizer.all_special_ids if tokenizer else ()
    functions, weights = build_reward_functions(sieve.rewards, special, storage, filter_role, build_model)
    return RewardSieve(functions, weights, sieve.minimum_reward, tokenizer)


def _free_of(rows: Sequence[Row], held_out: HeldOutQuestions, spec: Generation, tally: Tally) -> list[Row]:
    """The rows to start from: none that is held out, and of prompts that are answered each one once."""
    answered = spec.answers or spec.preferences
    seen, left = Copies(None), list[Row]()
    for row in rows:
        if held_out.holds(row):
            tally.add(Fate.LEAKED)
        elif answered and seen.holds(row):
            tally.add(Fate.DUPLICATE)
        else:
            seen.add(row)
            left.append(row)
    return left


def _copies(task: Task, start: Sequence[Row], spec: Generation) -> Copies:
    """What new questions must not repeat."""
    copies = Copies(task.near_copy)
    if spec.paraphrases or spec.self_instruct:
        for row in start:
            copies.add(row)
    return copies


def _voices(spec: Generation, secrets: Path, journal: Journal, purse: Purse, clock: Clock) -> Voices:
    """Who is asked; a judge that is not named is the teacher's own endpoint, at the teacher's pace."""
    pace = Pace(spec.requests_per_minute, clock)

    def open_endpoint(judge: Judge | None, what: str, role: str) -> BudgetedChat:
        endpoint: ChatEndpoint = (judge and judge.endpoint) or spec.endpoint
        own = judge is not None and judge.endpoint is not None
        return BudgetedChat(
            endpoint,
            what,
            secrets / (role if own else SecretRole.GENERATOR),
            _JUDGE_TEMPERATURE if judge else spec.temperature,
            judge.max_tokens if judge else spec.max_tokens,
            journal,
            purse,
            Pace(spec.requests_per_minute, clock) if own else pace,
            clock,
        )

    comparing = spec.preferences.judge if spec.preferences else Judge()
    scoring = spec.filter.judge
    return Voices(
        teacher=open_endpoint(None, "the teacher", SecretRole.GENERATOR),
        judge=open_endpoint(comparing, "the judge", SecretRole.JUDGE),
        scorer=open_endpoint(scoring, "the filter's judge", SecretRole.FILTER_JUDGE) if scoring else None,
    )


def _tell(progress: Progress, so_far: Yield, purse: Purse, task: Task, total: int) -> None:
    done, spent = len(so_far.rows) if task.wanted else so_far.items, purse.spent
    progress.update(
        min(done, total),
        total,
        generated_rows=len(so_far.rows),
        calls=spent.calls,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
    )


def _warn(so_far: Yield, task: Task, total: int) -> Iterator[str]:
    done, name = (len(so_far.rows), "rows") if task.wanted else (so_far.items, "source rows")
    what = f"{done:,} of {total:,} {name}"
    if so_far.exhausted:
        yield f"the budget was used up after {what}: raise dataset.generate.budget for more"
    elif task.wanted and len(so_far.rows) < task.wanted:
        yield f"the teacher repeats itself and stopped at {what}: add seeds, or raise temperature"


def _require_rows(so_far: Yield, minimum: int, voices: Voices) -> None:
    """See that there are enough rows.

    Raises:
        DataError: there are fewer rows than that.
    """
    if len(so_far.rows) >= minimum:
        return
    counts = so_far.tally.to_dict()
    lost = ", ".join(f"{counts[fate]:,} {fate}" for fate in Fate if fate is not Fate.KEPT and counts[fate])
    refused = [f"refused: {refusal}" for voice in voices.all for refusal in voice.refusals.values()][:1]
    told = "; ".join(filter(None, (lost, *so_far.warnings, *refused))) or "no source rows are left"
    message = (
        f"{len(so_far.rows):,} rows were generated and minimumRows is {minimum:,} ({told}): "
        "add source rows, raise the budget, or lower what the filter asks for"
    )
    raise DataError("TooFewRows", message)
