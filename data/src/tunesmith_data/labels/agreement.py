"""Agreement report: Krippendorff's alpha, Cohen's kappa, annotators, disputed items.

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
    DisputedItem,
    PairReport,
    PositionBias,
)

from .agreement_report import AgreementReport
from .reliability import (
    AnswerTable,
    MeasurementLevel,
    ValueCounts,
    alpha_interval,
    answer_disagreement,
    krippendorff_alpha,
    observed_agreement,
    value_counts,
    value_domain,
)
from .task_items import LabelItem
from .tasks import TIE, A, TaskKind
from .votes import Vote, VoteTable

#: Below this p-value, position bias is mentioned.
_BIAS_P_VALUE = 0.01
UNCHANGED, CHANGED = "unchanged", "changed"


def measure_agreement(
    items: Mapping[str, LabelItem], votes: Sequence[Vote], votes_by_item: VoteTable, seed: int
) -> AgreementReport:
    """Agreement report on items; missing answers are not disagreement."""
    task = next(iter(items.values())).task
    table = answer_categories(items, votes_by_item)
    level: MeasurementLevel = "ordinal" if task.kind is TaskKind.RATING else "nominal"
    domain = value_domain(table, level)
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
        skipped=sum(votes_by_item.skipped.values()),
        values={value: int(count) for value, count in zip(domain, counts.sum(axis=0), strict=True)},
        level=level,
        alpha=alpha,
        alpha_low=interval[0] if interval else None,
        alpha_high=interval[1] if interval else None,
        agreement=observed_agreement(counts),
        verdict=verdict(counts, alpha, interval, position),
        position_bias=position,
        annotators=_annotators(table, votes_by_item, task.kind),
        pairs=_pairs(table, domain, level),
        disputed=_disputed(table, items, votes),
    )


def answer_categories(items: Mapping[str, LabelItem], votes_by_item: VoteTable) -> AnswerTable:
    """Category of each answer by item and annotator; for corrections, changed or unchanged."""
    table = {}
    for digest, values in votes_by_item.values.items():
        item = items[digest]
        if item.task.kind is TaskKind.CORRECTION:
            values = {
                annotator: UNCHANGED if text.strip() == item.answer.strip() else CHANGED
                for annotator, text in values.items()
            }
        table[digest] = values
    return table


def position_bias(table: AnswerTable) -> PositionBias | None:
    """Share of answers that prefer the first of two; None without such answers."""
    from scipy.stats import binomtest  # takes a second to import

    values_given = [value for values in table.values() for value in values.values() if value != TIE]
    if not values_given:
        return None
    first = values_given.count(A)
    return PositionBias(
        answers=len(values_given),
        share_of_a=first / len(values_given),
        p_value=float(binomtest(first, len(values_given)).pvalue),
    )


def verdict(
    counts: ValueCounts,
    alpha: float | None,
    interval: tuple[float, float] | None,
    position: PositionBias | None,
) -> str:
    """Verdict on alpha by Krippendorff's thresholds, and on a preference for the first answer."""
    bias = ""
    if position and position.p_value < _BIAS_P_VALUE:
        bias = f" Answer A is chosen in {position.share_of_a:.0%} of the answers, though it stands first by chance."
    return _verdict(counts, alpha, interval) + bias


def _verdict(counts: ValueCounts, alpha: float | None, interval: tuple[float, float] | None) -> str:
    shared = int((counts.sum(axis=1) > 1).sum())
    if not shared:
        return "No item has two answers, so agreement is not known: let several people answer the same items."
    if alpha is None:
        return f"All answers to {shared:,} shared items are the same, so agreement cannot be measured."
    between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    finding = f"Krippendorff's alpha is {alpha:.2f}{between} on {shared:,} shared items"
    if alpha >= RELIABLE_ALPHA:
        return f"{finding}: the labels are reliable."
    if alpha >= TENTATIVE_ALPHA:
        return f"{finding}: the labels allow tentative conclusions; look at the most disputed items."
    return f"{finding}: the labels are not reliable; make the guidelines clearer and label the disputed items again."


def _annotators(table: AnswerTable, votes_by_item: VoteTable, kind: TaskKind) -> tuple[AnnotatorReport, ...]:
    answers: defaultdict[str, list[str]] = defaultdict(list)
    agrees: defaultdict[str, list[bool]] = defaultdict(list)
    for values in table.values():
        majority = _majority(list(values.values()))
        for annotator, value in values.items():
            answers[annotator].append(value)
            if majority is not None:
                agrees[annotator].append(value == majority)
    reports = [
        AnnotatorReport(
            name=name,
            answers=len(answers[name]),
            skipped=votes_by_item.skipped.get(name, 0),
            with_majority=float(np.mean(agrees[name])) if agrees[name] else None,
            share_of_a=_share_of_a(answers[name]) if kind is TaskKind.PREFERENCE else None,
        )
        for name in votes_by_item.annotators
    ]
    return tuple(sorted(reports, key=lambda report: -report.answers)[:MAX_ANNOTATORS])


def _majority(values: Sequence[str]) -> str | None:
    """The most frequent of two or more values; None if two are equally frequent."""
    frequent = Counter(values).most_common(2)
    if len(values) < 2 or (len(frequent) == 2 and frequent[0][1] == frequent[1][1]):
        return None
    return frequent[0][0]


def _share_of_a(values: Sequence[str]) -> float | None:
    decided = [value for value in values if value != TIE]
    return decided.count(A) / len(decided) if decided else None


def _pairs(table: AnswerTable, domain: Sequence[str], level: MeasurementLevel) -> tuple[PairReport, ...]:
    common: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for values in table.values():
        for first, second in combinations(sorted(values), 2):
            common[first, second].append((values[first], values[second]))
    largest = sorted(common.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:MAX_PAIRS]
    return tuple(
        PairReport(
            first=first,
            second=second,
            items=len(value_pairs),
            agreement=float(np.mean([one == other for one, other in value_pairs])),
            kappa=cohen_kappa(value_pairs, domain, level),
        )
        for (first, second), value_pairs in largest
    )


def cohen_kappa(
    value_pairs: Sequence[tuple[str, str]], domain: Sequence[str], level: MeasurementLevel
) -> float | None:
    """Cohen's kappa; None if both annotators gave one and the same answer throughout."""
    from sklearn.metrics import cohen_kappa_score  # takes seconds to import

    if len({value for pair in value_pairs for value in pair}) < 2:
        return None
    first, second = zip(*value_pairs, strict=True)
    weights = "quadratic" if level == "ordinal" else None
    return float(cohen_kappa_score(first, second, labels=list(domain), weights=weights))


def _disputed(
    table: AnswerTable, items: Mapping[str, LabelItem], votes: Sequence[Vote]
) -> tuple[DisputedItem, ...]:
    comments: defaultdict[str, list[str]] = defaultdict(list)
    for vote in votes:
        if vote.comment:
            comments[vote.item].append(excerpt(vote.comment))
    disputes = []
    for digest, values in table.items():
        counts = Counter(values.values())
        if len(counts) > 1:
            disagreement = answer_disagreement(np.array(list(counts.values())))
            disputes.append((-disagreement, -len(values), digest, counts))
    return tuple(
        DisputedItem(
            id=digest,
            file=items[digest].file,
            line=items[digest].line,
            excerpt=excerpt(items[digest].prompt),
            answer_counts=dict(sorted(counts.items())),
            disagreement=-negative,
            comments=tuple(comments[digest]),
        )
        for negative, _, digest, counts in sorted(disputes, key=lambda dispute: dispute[:3])[:MAX_DISPUTED]
    )
