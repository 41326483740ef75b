"""Recommendation of a method and adapter for the data, with reasons.

The rules, and where they come from:

- Fewer than 100 examples: examples in the prompt first. Fine-tune from 100 on, where prompting is 20 % or more behind
  the goal. Both numbers are this project's choice.
- Pairs: DPO, on a model that was fine-tuned on good answers before (Rafailov et al. 2023, arXiv:2305.18290). Judged
  answers: KTO (Ethayarajh et al. 2024, arXiv:2402.01306).
- Short answers that can be compared: supervised fine-tuning first, then GRPO (Shao et al. 2024, arXiv:2402.03300), here
  with an exact reward; theirs was a model.
- Text: pre-training, with a high rank or all weights: LoRA learns less there (Biderman et al. 2024, arXiv:2405.09673).
- LoRA learns as well as full fine-tuning as long as its capacity holds the data (Schulman et al. 2025, "LoRA Without
  Regret"). It names 2 bits a parameter, which models hold after long training (Allen-Zhu and Li 2024,
  arXiv:2404.05405), and about 1 bit a token, an upper bound of what there is to learn; to set one against the other is
  this project's estimate. In learning from rewards a whole answer carries about 1 bit, and any rank will do.
- High ranks are scaled by the square root: RSLoRA (Kalajdzievski 2023, arXiv:2312.03732). Frozen weights of large
  models are kept in 4 bits: QLoRA (Dettmers et al. 2023, arXiv:2305.14314). Where both begin, above rank 64 and at
  20 billion parameters, is this project's choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith_data.rows.findings import Issue, Severity
from tunesmith_data.rows.quality.checks.too_few_rows import NEEDED
from tunesmith_data.rows.report.data_report import LearningCurve, Recommendation

from .row_views import RowKind

MAX_SUMMARY = 300

_BITS_OF_PARAMETER, _BITS_OF_TOKEN = 2, 1
_RANK, _HIGH_RANK, _HIGHEST_RANK = 16, 64, 256
_LARGE_MODEL = 20_000_000_000
#: An answer up to this length can be compared as it is.
_COMPARABLE = 40

_SUITED_METHODS = {
    RowKind.ANSWER: ("sft",),
    RowKind.PAIR: ("dpo", "reward"),
    RowKind.JUDGED: ("kto",),
    RowKind.PROMPT: ("grpo", "rloo", "distillation"),
    RowKind.TEXT: ("pretraining",),
}


@dataclass(frozen=True, slots=True)
class DataProfile:
    """Facts about data, job and model on which a recommendation is based.

    Attributes:
        method: training method of the job, named as in a FineTuneJob.
        kind: kind of the rows.
        rows, tokens: number of rows, and their tokens in total.
        answer_characters: median length of an answer; 0 if there are none.
        classes: number of classes among the answers; None without classes.
        issues: the issues, most severe first.
        curve: learning curve.
        parameters: number of parameters of the base model, if known.
        parameters_per_rank: number of parameters of a rank 1 adapter on all linear layers, if known.
    """

    method: str
    kind: RowKind
    rows: int
    tokens: int
    answer_characters: int
    classes: int | None = None
    issues: Sequence[Issue] = ()
    curve: LearningCurve | None = None
    parameters: int | None = None
    parameters_per_rank: int | None = None


@dataclass(frozen=True, slots=True)
class _AdapterChoice:
    """Recommended adapter (None: all weights), its description, and the reason."""

    adapter: str | None
    words: str
    reason: str


def recommend(profile: DataProfile) -> Recommendation:
    """Method and adapter for the profile; ``summary`` has at most MAX_SUMMARY characters."""
    method = _method(profile)
    choice = _adapter(profile, method)
    sentences = [
        f"{method} with {choice.words} suits {profile.rows:,} {_describe_rows(profile)}.",
        *_disagreement(profile, method),
        *_too_few(profile, method),
        *_issues_to_fix(profile.issues),
        *([profile.curve.verdict] if profile.curve else []),
    ]
    return Recommendation(
        method=method,
        adapter=choice.adapter,
        summary=_fit_summary(sentences),
        reasons=(*_method_reasons(profile, method), choice.reason, *sentences[1:]),
    )


def _method(profile: DataProfile) -> str:
    """The job's method where it suits the rows, else the first that does."""
    if (
        profile.kind is RowKind.PROMPT
        and profile.answer_characters > _COMPARABLE
        and profile.method != "distillation"
    ):
        return "sft"
    suited = _SUITED_METHODS[profile.kind]
    return profile.method if profile.method in suited else suited[0]


def _describe_rows(profile: DataProfile) -> str:
    match profile.kind:
        case RowKind.PAIR:
            return "pairs of a better and a worse answer"
        case RowKind.JUDGED:
            return "answers that are judged good or bad"
        case RowKind.TEXT:
            return "passages of text"
        case RowKind.PROMPT if not profile.answer_characters:
            return "prompts without answers"
    if profile.classes:
        return f"rows that name one of {profile.classes:,} classes"
    length = "short" if profile.answer_characters <= _COMPARABLE else "free"
    return f"rows with {length} answers"


def _method_reasons(profile: DataProfile, method: str) -> Iterator[str]:
    match method:
        case "sft":
            yield "answers that are given are imitated: supervised fine-tuning"
            if 0 < profile.answer_characters <= _COMPARABLE:
                yield "answers are short enough to compare: GRPO with an exact reward may follow"
        case "dpo" | "reward":
            yield "pairs say which answer is better: DPO, on a model fine-tuned on good answers before"
        case "kto":
            yield "answers are judged one by one: KTO needs no pairs"
        case "pretraining":
            yield "there are no prompts: text is learned as it is, by pre-training"
        case "grpo" | "rloo":
            yield "the model tries answers itself, and rewards judge them: they have to be right in some of its tries"
        case "distillation":
            yield "prompts are answered by a teacher, whose answers are imitated"


def _adapter(profile: DataProfile, method: str) -> _AdapterChoice:
    if method in ("grpo", "rloo"):
        return _lora(profile, "a reward carries few bits, so that any rank holds what is learned")
    per_rank = profile.parameters_per_rank
    if per_rank is None:
        return _default_adapter(profile, method)
    needed = profile.tokens * _BITS_OF_TOKEN / _BITS_OF_PARAMETER / per_rank
    rank = max(1, round(needed))
    tokens = f"{profile.tokens:,} tokens need about rank {rank:,}, at 1 bit a token and 2 bits a parameter"
    if needed > _HIGHEST_RANK:
        return _AdapterChoice(None, "all weights", f"{tokens}: more than adapters hold well")
    if needed > _HIGH_RANK or method == "pretraining":
        rank = max(_HIGH_RANK, _power_of_two(needed))
        reason = f"{tokens}; high ranks learn better scaled by the square root"
        return _AdapterChoice("RSLoRA", f"RSLoRA of rank {rank}", reason)
    return _lora(profile, tokens, max(_RANK, _power_of_two(needed)))


def _lora(profile: DataProfile, reason: str, rank: int = _RANK) -> _AdapterChoice:
    large = profile.parameters is not None and profile.parameters >= _LARGE_MODEL
    kind = "QLoRA" if large else "LoRA"
    saved = f"; {profile.parameters or 0:,} frozen parameters fit in 4 bits" if large else ""
    return _AdapterChoice(kind, f"{kind} of rank {rank}", reason + saved)


def _default_adapter(profile: DataProfile, method: str) -> _AdapterChoice:
    if method == "pretraining":
        reason = "text takes more capacity than tasks do; all weights, where there is much of it"
        return _AdapterChoice("RSLoRA", f"RSLoRA of rank {_HIGH_RANK}", reason)
    return _lora(profile, "an adapter holds a task's data as well as all weights do")


def _power_of_two(number: float) -> int:
    return 1 << max(0, int(-(-number // 1)) - 1).bit_length()


def _disagreement(profile: DataProfile, method: str) -> Iterator[str]:
    if method == profile.method:
        return
    if profile.method == "kto" and method == "dpo":
        yield "The job asks for kto, which splits the pairs and forgets which belong together."
    elif profile.kind is RowKind.PROMPT:
        yield f"The job asks for {profile.method}, but answers are too long to compare."
    else:
        yield f"The job asks for {profile.method}, which does not learn what these rows teach."


def _too_few(profile: DataProfile, method: str) -> Iterator[str]:
    fewest, suits = NEEDED[method]
    if profile.rows < fewest:
        first = (
            "Try examples in the prompt first" if method in ("sft", "distillation") else "Gather more first"
        )
        yield f"{profile.rows:,} rows are few: {first.lower()}; {suits}."


def _issues_to_fix(issues: Sequence[Issue]) -> Iterator[str]:
    """Sentence about errors and warnings to fix before training."""
    grave = [
        issue for issue in issues if issue.severity is not Severity.NOTE and issue.check != "too_few_rows"
    ]
    if grave:
        named = ", ".join(f"{issue.check} ({issue.rows:,})" for issue in grave[:3])
        yield f"Deal with {named} first."


def _fit_summary(sentences: Sequence[str]) -> str:
    """Summary of as many sentences as fit, in their order."""
    summary = ""
    for sentence in sentences:
        longer = f"{summary} {sentence}".strip()
        if len(longer) <= MAX_SUMMARY:
            summary = longer
    return summary
