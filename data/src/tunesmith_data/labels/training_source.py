"""Labels as training data: pulled from Argilla once, so that all attempts use the same rows."""

from pathlib import Path

from tunesmith_contract.base import canonical_json
from tunesmith_contract.labels import ArgillaSource
from tunesmith_data.failures import DataError
from tunesmith_data.pod.storage import write_atomically
from tunesmith_data.rows.clean.personal_data import PersonalDataFinder, mask_quotations

from .aggregation import AggregationRules
from .agreement_report import AGREEMENT_FILE
from .argilla_connection import find_key
from .argilla_push import DatasetName
from .pull import label_rows, pull_from_argilla, report_agreement, write_rows

LABELS_FILE = "labels.jsonl"


def pull_rows(source: ArgillaSource, secret: Path, folder: Path, reports: Path, seed: int) -> Path:
    """The file of the rows that people labeled.

    Args:
        source: the Argilla dataset, and the rules by which answers become rows.
        secret: the folder of the mounted Secret with the API key; the environment where there is none.
        folder: the folder of the file; an existing file is reused.
        reports: the folder of the agreement report.
        seed: seed of the report's bootstrap.

    Raises:
        UserError, InfrastructureError: see ``argilla_connection``.
        DataError: no rows come out.
    """
    path = folder / LABELS_FILE
    if path.exists():
        return path
    key = find_key(secret if secret.is_dir() else None)
    answers = pull_from_argilla(source.url, key, DatasetName(source.dataset, source.workspace))
    rules = AggregationRules(source.aggregate, source.min_annotators, source.output, source.approve_from)
    labeled = label_rows(answers, rules)
    report = report_agreement(answers, seed, labeled)
    quoted = mask_quotations(report.to_dict(), PersonalDataFinder())
    write_atomically(reports / AGREEMENT_FILE, canonical_json(quoted))
    if not labeled.rows:
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in labeled.left_out.items())
        message = (
            f"dataset {source.dataset} gives no rows ({left_out}): let people answer, or lower minAnnotators"
        )
        raise DataError("NoLabels", message)
    write_rows(path, labeled.rows)
    return path
