"""Agreement of the annotators who labeled the rows, and issues for low agreement."""

from collections.abc import Iterator

from tunesmith_contract.run_config import PrepareConfig
from tunesmith_data.labels.agreement_report import AGREEMENT_FILE, AgreementReport
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rows.findings import Example, Issue, RowPlace, Severity
from tunesmith_data.rows.report.label_agreement import RELIABLE_ALPHA, TENTATIVE_ALPHA, LabelAgreement


def read_agreement(config: PrepareConfig, workspace: Workspace) -> LabelAgreement | None:
    """Agreement measured when the labels were pulled; None if rows come from files."""
    data = workspace.read(workspace.data_report / AGREEMENT_FILE) if config.argilla else None
    return AgreementReport.model_validate_json(data).agreement_alone if data else None


def agreement_issues(agreement: LabelAgreement | None) -> Iterator[Issue]:
    """Issues for labels that are unreliable by Krippendorff's thresholds, or that no second person checked."""
    if agreement is None:
        return
    if not agreement.shared_items:
        yield Issue(
            check="unknown_agreement",
            severity=Severity.NOTE,
            rows=agreement.items,
            message="no item was labeled by two people, so agreement is unknown",
            advice="let several people label some of the same items",
        )
    elif agreement.alpha is not None and agreement.alpha < RELIABLE_ALPHA:
        yield _low_agreement(agreement, agreement.alpha)


def _low_agreement(agreement: LabelAgreement, alpha: float) -> Issue:
    reliable = alpha >= TENTATIVE_ALPHA
    items = f"{agreement.shared_items:,} items labeled by two or more people"
    measurement = f"Krippendorff's alpha is {alpha:.3g} on {items}"
    meaning = "allows tentative conclusions" if reliable else "is not reliable"
    limit = RELIABLE_ALPHA if reliable else TENTATIVE_ALPHA
    return Issue(
        check="low_agreement",
        severity=Severity.NOTE if reliable else Severity.WARNING,
        rows=agreement.disputed_items,
        message=f"{measurement}: below {limit} that {meaning}",
        advice="make the guidelines clearer, and label the disputed items again",
        examples=tuple(
            Example(place=RowPlace(file=item.file, line=item.line), excerpt=item.excerpt, detail=item.votes)
            for item in agreement.disputed
        ),
    )
