"""Labels as an attempt of prepare leaves them."""

import json
from pathlib import Path
from typing import Any

from tunesmith_data.labels.agreement_report import AGREEMENT_FILE, AgreementReport
from tunesmith_data.labels.tasks import LabelTask, TaskKind
from tunesmith_data.labels.training_source import LABELS_FILE
from tunesmith_data.rows.report.label_agreement import LabelAgreement


def labels_left(folder: Path, rows: list[dict[str, Any]], agreement: LabelAgreement) -> None:
    """What an earlier attempt pulled: later ones don't ask the server again."""
    report = AgreementReport(task=LabelTask(kind=TaskKind.PREFERENCE), **agreement.model_dump())
    for name, text in (
        (f"prepared/{LABELS_FILE}", "".join(json.dumps(row) + "\n" for row in rows)),
        (f"data-report/{AGREEMENT_FILE}", report.to_json()),
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
