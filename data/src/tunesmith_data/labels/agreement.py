"""How far annotators agree: Krippendorff's alpha and what explains it.

Sources: Krippendorff, Content Analysis (2004), for alpha and its thresholds; Cohen (1960, 1968) for kappa.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from tunesmith_data.rows.findings import excerpt
from tunesmith_data.rows.report.label_agreement import (
    MAX_ANNOTATORS,
    MAX_DISPUTED,
    MAX_PAIRS,
    RELIABLE_ALPHA,
    TENTATIVE_ALPHA,
    AnnotatorReport,
    Disputed,
    PairReport,
    PositionBias,
)

from .agreement_report import AgreementReport
from .reliability import (
    Counts,
    Level,
    Table,
    alpha_interval,
    disagreement_of,
    domain_of,
    krippendorff_alpha,
    observed_agreement,
    value_counts,
)
from .task_items import Item
from .tasks import TIE, A, TaskKind
from .votes import Ballot, Vote

#: A smaller p-value of the position's test is worth a word.
_BIAS_P_VALUE = 0.01
UNCHANGED, CHANGED = "unchanged", "changed"


def measure_agreement(
    items: Mapping[str, Item], votes: Sequence[Vote], ballot: Ballot, seed: int
) -> AgreementReport:
    """How far annotators agree on items; missing answers are no disagreement."""
    task = next(iter(items.values())).task
    table = categories(items, ballot)
    level: Level = "ordinal" if task.kind is TaskKind.RATING else "nominal"
    domain = domain_of(table, level)
    counts = value_counts(table, domain)
    alpha = krippendorff_alpha(counts, level)
    interval = alpha_interval(counts, level, seed) if alpha is not None else None
    position = position_bias(table) if task.kind is TaskKind.PREFERENCE else None
    return AgreementReport(
        task=task,
        items=len(table),
        shared_items=int((counts.sum(axis=1) > 1).sum()),
        disputed_items=int(((counts > 0).sum(axis=1) > 1).sum()),
        answers=int(counts.sum()),
        skipped=sum(ballot.skipped.values()),
        values={value: int(count) for value, count in zip(domain, counts.sum(axis=0), strict=True)},
        level=level,
        alpha=alpha,
        alpha_low=interval[0] if interval else None,
        alpha_high=interval[1] if interval else None,
        agreement=observed_agreement(counts),
        verdict=verdict(counts, alpha, interval, position),
        position_bias=position,
        annotators=_annotators(table, ballot, task.kind),
        pairs=_pairs(table, domain, level),
        disputed=_disputed(table, items, votes),
    )


def categories(items: Mapping[str, Item], ballot: Ballot) -> Table:
    """What each annotator says of each item, as a category; of a correction whether it changes the answer."""
    table = {}
    for digest, values in ballot.values.items():
        item = items[digest]
        if item.task.kind is TaskKind.CORRECTION:
            values = {
                annotator: UNCHANGED if text.strip() == item.answer.strip() else CHANGED
                for annotator, text in values.items()
            }
        table[digest] = values
    return table


def position_bias(table: Table) -> PositionBias | None:
    """How often the first of two answers is preferred; None without any such answer."""
    from scipy.stats import binomtest  # takes a second to import

    said = [value for values in table.values() for value in values.values() if value != TIE]
    if not said:
        return None
    first = said.count(A)
    return PositionBias(
        answers=len(said), share_of_a=first / len(said), p_value=float(binomtest(first, len(said)).pvalue)
    )


def verdict(
    counts: Counts, alpha: float | None, interval: tuple[float, float] | None, position: PositionBias | None
) -> str:
    """What to make of alpha, by Krippendorff's thresholds, and of a preference for the left."""
    bias = ""
    if position and position.p_value < _BIAS_P_VALUE:
        bias = f" Answer A is chosen in {position.share_of_a:.0%} of the answers, though it stands first by chance."
    return _verdict(counts, alpha, interval) + bias


def _verdict(counts: Counts, alpha: float | None, interval: tuple[float, float] | None) -> str:
    shared = int((counts.sum(axis=1) > 1).sum())
    if not shared:
        return "No item has two answers, so agreement is not known: let several people answer the same items."
    if alpha is None:
        return f"All answers to {shared:,} shared items are the same: nothing tells agreement from habit."
    between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    found = f"Krippendorff's alpha is {alpha:.2f}{between} on {shared:,} shared items"
    if alpha >= RELIABLE_ALPHA:
        return f"{found}: the labels are reliable."
    if alpha >= TENTATIVE_ALPHA:
        return f"{found}: the labels allow tentative conclusions; look at the most disputed items."
    return f"{found}: the labels are not reliable; make the guidelines clearer and label the disputed items again."


def _annotators(table: Table, ballot: Ballot, kind: TaskKind) -> tuple[AnnotatorReport, ...]:
    own: defaultdict[str, list[str]] = defaultdict(list)
    agrees: defaultdict[str, list[bool]] = defaultdict(list)
    for values in table.values():
        most = _majority(list(values.values()))
        for annotator, value in values.items():
            own[annotator].append(value)
            if most is not None:
                agrees[annotator].append(value == most)
    reports = [
        AnnotatorReport(
            name=name,
            answers=len(own[name]),
            skipped=ballot.skipped.get(name, 0),
            with_majority=float(np.mean(agrees[name])) if agrees[name] else None,
            share_of_a=_share_of_a(own[name]) if kind is TaskKind.PREFERENCE else None,
        )
        for name in ballot.annotators
    ]
    return tuple(sorted(reports, key=lambda report: -report.answers)[:MAX_ANNOTATORS])


def _majority(values: Sequence[str]) -> str | None:
    """The most frequent of two or more values; None where there is a draw."""
    frequent = Counter(values).most_common(2)
    if len(values) < 2 or (len(frequent) == 2 and frequent[0][1] == frequent[1][1]):
        return None
    return frequent[0][0]


def _share_of_a(values: Sequence[str]) -> float | None:
    said = [value for value in values if value != TIE]
    return said.count(A) / len(said) if said else None


def _pairs(table: Table, domain: Sequence[str], level: Level) -> tuple[PairReport, ...]:
    common: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for values in table.values():
        for first, second in combinations(sorted(values), 2):
            common[first, second].append((values[first], values[second]))
    most = sorted(common.items(), key=lambda each: (-len(each[1]), each[0]))[:MAX_PAIRS]
    return tuple(
        PairReport(
            first=first,
            second=second,
            items=len(said),
            agreement=float(np.mean([one == other for one, other in said])),
            kappa=_kappa(said, domain, level),
        )
        for (first, second), said in most
    )


def _kappa(said: Sequence[tuple[str, str]], domain: Sequence[str], level: Level) -> float | None:
    """Cohen's kappa; None where both always say the same one thing."""
    from sklearn.metrics import cohen_kappa_score  # takes seconds to import

    if len({value for pair in said for value in pair}) < 2:
        return None
    first, second = zip(*said, strict=True)
    weights = "quadratic" if level == "ordinal" else None
    return float(cohen_kappa_score(first, second, labels=list(domain), weights=weights))


def _disputed(table: Table, items: Mapping[str, Item], votes: Sequence[Vote]) -> tuple[Disputed, ...]:
    comments: defaultdict[str, list[str]] = defaultdict(list)
    for vote in votes:
        if vote.comment:
            comments[vote.item].append(excerpt(vote.comment))
    found = []
    for digest, values in table.items():
        said = Counter(values.values())
        if len(said) > 1:
            disagreement = disagreement_of(np.array(list(said.values())))
            found.append((-disagreement, -len(values), digest, said))
    return tuple(
        Disputed(
            id=digest,
            file=items[digest].file,
            line=items[digest].line,
            excerpt=excerpt(items[digest].prompt),
            said=dict(sorted(said.items())),
            disagreement=-negative,
            comments=tuple(comments[digest]),
        )
        for negative, _, digest, said in sorted(found, key=lambda each: each[:3])[:MAX_DISPUTED]
    )
