"""Agreement report as a table for a terminal."""

from collections.abc import Iterator, Sequence

from tunesmith_data.rows.report.label_agreement import describe_kappa

from .agreement_report import AgreementReport

_SHOWN_PAIRS = 10
_SHOWN_DISPUTED = 5
_SHOWN_EXCERPT = 60


def render(report: AgreementReport) -> str:
    """Summary of the report in a few lines."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: AgreementReport) -> Iterator[str]:
    yield report.verdict
    yield (
        f"{report.items:,} items answered, {report.shared_items:,} by two or more; {report.answers:,} answers, "
        f"{report.skipped:,} skipped; the same in {_percent(report.agreement)} of the pairs"
    )
    yield "answers: " + ", ".join(f"{value} ({count:,})" for value, count in report.values.items())
    if report.annotators:
        yield ""
        yield from _aligned(
            ["annotator", "answers", "skipped", "with majority", "share of A"],
            [
                [
                    annotator.name,
                    f"{annotator.answers:,}",
                    f"{annotator.skipped:,}",
                    _percent(annotator.with_majority),
                    _percent(annotator.share_of_a),
                ]
                for annotator in report.annotators
            ],
        )
    if report.pairs:
        yield ""
        yield from _aligned(
            ["two annotators", "items", "the same", "Cohen's kappa", "level"],
            [
                [
                    f"{pair.first}, {pair.second}",
                    f"{pair.items:,}",
                    _percent(pair.agreement),
                    "-" if pair.kappa is None else f"{pair.kappa:.2f}",
                    "-" if pair.kappa is None else describe_kappa(pair.kappa),
                ]
                for pair in report.pairs[:_SHOWN_PAIRS]
            ],
        )
        if len(report.pairs) > _SHOWN_PAIRS:
            yield f"and {len(report.pairs) - _SHOWN_PAIRS} more pairs"
    if report.disputed:
        yield ""
        yield "most disputed:"
        for item in report.disputed[:_SHOWN_DISPUTED]:
            yield f"  {item.file}:{item.line}: {item.votes}: {item.excerpt[:_SHOWN_EXCERPT]}"
    if report.rows is not None:
        yield ""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.left_out.items())
        yield f"{report.rows:,} rows produced; left out: {reasons or 'none'}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([row[0].ljust(len(first)), *rest])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
