"""Which method and adapter suit the data, and why.

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

from .row_views import Kind

MAX_SUMMARY = 300

_BITS_OF_PARAMETER, _BITS_OF_TOKEN = 2, 1
_RANK, _HIGH_RANK, _HIGHEST_RANK = 16, 64, 256
_LARGE_MODEL = 20_000_000_000
#: An answer up to this length can be compared as it is.
_COMPARABLE = 40

_SUITED = {
    Kind.ANSWER: ("sft",),
    Kind.PAIR: ("dpo", "reward"),
    Kind.JUDGED: ("kto",),
    Kind.PROMPT: ("grpo", "rloo", "distillation"),
    Kind.TEXT: ("pretraining",),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a recommendation goes by.

    Attributes:
        method: what the job asks for, named as in a FineTuneJob.
        kind: what the rows teach.
        rows, tokens: of all rows.
        answer_characters: of the median answer; 0 where there are none.
        classes: how many different answers there are, where those are classes.
        issues: what was found, the gravest first.
        curve: whether more data would help.
        parameters: of the base model, where it is known.
        parameters_per_rank: of an adapter of rank 1 on all linear layers, where it is known.
    """

    method: str
    kind: Kind
    rows: int
    tokens: int
    answer_characters: int
    classes: int | None = None
    issues: Sequence[Issue] = ()
    curve: LearningCurve | None = None
    parameters: int | None = None
    parameters_per_rank: int | None = None


@dataclass(frozen=True, slots=True)
class _Choice:
    """An adapter (None: all weights), as people call it, and why."""

    adapter: str | None
    words: str
    reason: str


def recommend(facts: Facts) -> Recommendation:
    """The method and adapter that suit the facts; ``summary`` has at most MAX_SUMMARY characters."""
    method = _method(facts)
    choice = _adapter(facts, method)
    sentences = [
        f"{method} with {choice.words} suits {facts.rows:,} {_describe(facts)}.",
        *_disagreement(facts, method),
        *_few(facts, method),
        *_first_of_all(facts.issues),
        *([facts.curve.verdict] if facts.curve else []),
    ]
    return Recommendation(
        method=method,
        adapter=choice.adapter,
        summary=_fitting(sentences),
        reasons=(*_method_reasons(facts, method), choice.reason, *sentences[1:]),
    )


def _method(facts: Facts) -> str:
    """The job's method where it suits the rows, else the first that does."""
    if facts.kind is Kind.PROMPT and facts.answer_characters > _COMPARABLE and facts.method != "distillation":
        return "sft"
    suited = _SUITED[facts.kind]
    return facts.method if facts.method in suited else suited[0]


def _describe(facts: Facts) -> str:
    match facts.kind:
        case Kind.PAIR:
            return "pairs of a better and a worse answer"
        case Kind.JUDGED:
            return "answers that are judged good or bad"
        case Kind.TEXT:
            return "passages of text"
        case Kind.PROMPT if not facts.answer_characters:
            return "prompts without answers"
    if facts.classes:
        return f"rows that name one of {facts.classes:,} classes"
    length = "short" if facts.answer_characters <= _COMPARABLE else "free"
    return f"rows with {length} answers"


def _method_reasons(facts: Facts, method: str) -> Iterator[str]:
    match method:
        case "sft":
            yield "answers that are given are imitated: supervised fine-tuning"
            if 0 < facts.answer_characters <= _COMPARABLE:
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


def _adapter(facts: Facts, method: str) -> _Choice:
    if method in ("grpo", "rloo"):
        return _small(facts, "a reward carries few bits, so that any rank holds what is learned")
    per_rank = facts.parameters_per_rank
    if per_rank is None:
        return _unknown(facts, method)
    needed = facts.tokens * _BITS_OF_TOKEN / _BITS_OF_PARAMETER / per_rank
    rank = max(1, round(needed))
    tokens = f"{facts.tokens:,} tokens need about rank {rank:,}, at 1 bit a token and 2 bits a parameter"
    if needed > _HIGHEST_RANK:
        return _Choice(None, "all weights", f"{tokens}: more than adapters hold well")
    if needed > _HIGH_RANK or method == "pretraining":
        rank = max(_HIGH_RANK, _power_of_two(needed))
        reason = f"{tokens}; high ranks learn better scaled by the square root"
        return _Choice("RSLoRA", f"RSLoRA of rank {rank}", reason)
    return _small(facts, tokens, max(_RANK, _power_of_two(needed)))


def _small(facts: Facts, reason: str, rank: int = _RANK) -> _Choice:
    large = facts.parameters is not None and facts.parameters >= _LARGE_MODEL
    kind = "QLoRA" if large else "LoRA"
    saved = f"; {facts.parameters or 0:,} frozen parameters fit in 4 bits" if large else ""
    return _Choice(kind, f"{kind} of rank {rank}", reason + saved)


def _unknown(facts: Facts, method: str) -> _Choice:
    if method == "pretraining":
        reason = "text takes more capacity than tasks do; all weights, where there is much of it"
        return _Choice("RSLoRA", f"RSLoRA of rank {_HIGH_RANK}", reason)
    return _small(facts, "an adapter holds a task's data as well as all weights do")


def _power_of_two(number: float) -> int:
    return 1 << max(0, int(-(-number // 1)) - 1).bit_length()


def _disagreement(facts: Facts, method: str) -> Iterator[str]:
    if method == facts.method:
        return
    if facts.method == "kto" and method == "dpo":
        yield "The job asks for kto, which splits the pairs and forgets which belong together."
    elif facts.kind is Kind.PROMPT:
        yield f"The job asks for {facts.method}, but answers are too long to compare."
    else:
        yield f"The job asks for {facts.method}, which does not learn what these rows teach."


def _few(facts: Facts, method: str) -> Iterator[str]:
    fewest, suits = NEEDED[method]
    if facts.rows < fewest:
        first = (
            "Try examples in the prompt first" if method in ("sft", "distillation") else "Gather more first"
        )
        yield f"{facts.rows:,} rows are few: {first.lower()}; {suits}."


def _first_of_all(issues: Sequence[Issue]) -> Iterator[str]:
    """The grave issues of rows, which are to be dealt with before anything is trained."""
    grave = [
        issue for issue in issues if issue.severity is not Severity.NOTE and issue.check != "too_few_rows"
    ]
    if grave:
        named = ", ".join(f"{issue.check} ({issue.rows:,})" for issue in grave[:3])
        yield f"Deal with {named} first."


def _fitting(sentences: Sequence[str]) -> str:
    """As many of the sentences, in their order, as fit."""
    summary = ""
    for sentence in sentences:
        longer = f"{summary} {sentence}".strip()
        if len(longer) <= MAX_SUMMARY:
            summary = longer
    return summary
