"""How far the people agree who labelled the rows, and what there is to say of it."""

from collections.abc import Iterator

from tunesmith_contract.run_config import PrepareConfig
from tunesmith_data.labels.agreement_report import AGREEMENT_FILE, AgreementReport
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rows.findings import Example, Issue, Place, Severity
from tunesmith_data.rows.report.label_agreement import RELIABLE_ALPHA, TENTATIVE_ALPHA, Agreement


def read_agreement(config: PrepareConfig, workspace: Workspace) -> Agreement | None:
    """What was measured when this attempt, or an earlier one, pulled the labels; None where rows come from files."""
    data = workspace.read(workspace.data_report / AGREEMENT_FILE) if config.argilla else None
    return AgreementReport.model_validate_json(data).agreement_alone if data else None


def agreement_issues(agreement: Agreement | None) -> Iterator[Issue]:
    """Labels that are not reliable, or hardly, by Krippendorff's thresholds; and those that nobody checked."""
    if agreement is None:
        return
    if not agreement.shared_items:
        yield Issue(
            check="unknown_agreement",
            severity=Severity.NOTE,
            rows=agreement.items,
            message="no item was labelled by two people, so how far they agree is not known",
            advice="let several people label some of the same items",
        )
    elif agreement.alpha is not None and agreement.alpha < RELIABLE_ALPHA:
        yield _low_agreement(agreement, agreement.alpha)


def _low_agreement(agreement: Agreement, alpha: float) -> Issue:
    reliable = alpha >= TENTATIVE_ALPHA
    found = (
        f"Krippendorff's alpha is {alpha:.3g} on {agreement.shared_items:,} items that two or more labelled"
    )
    meaning = "allows tentative conclusions" if reliable else "is not reliable"
    limit = RELIABLE_ALPHA if reliable else TENTATIVE_ALPHA
    return Issue(
        check="low_agreement",
        severity=Severity.NOTE if reliable else Severity.WARNING,
        rows=agreement.disputed_items,
        message=f"{found}: below {limit} that {meaning}",
        advice="make the guidelines clearer, and label the disputed items again",
        examples=tuple(_examples(agreement)),
    )


def _examples(agreement: Agreement) -> Iterator[Example]:
    for item in agreement.disputed:
        yield Example(place=Place(file=item.file, line=item.line), excerpt=item.excerpt, detail=item.votes)
