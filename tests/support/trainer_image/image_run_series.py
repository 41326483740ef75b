"""Training runs one after another in a single process of the trainer image: each on a copy of the same prepared rows.

``python image_run_series.py SERIES``: SERIES is a JSON file with ``prepare``, the ``run.json`` of the preparation, and
``train``, those of the runs without what preparation tells them. The reports of training are written beside it.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tunesmith_contract.report import RunReport
from tunesmith_contract.run_config import AnyConfig, parse_run_config
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.worker import run_stage


def main(series: Path) -> None:
    """Prepare once, then train each run."""
    documents = json.loads(series.read_text())
    prepare, storage = _parse(documents["prepare"])
    prepared = run_stage(prepare, storage)
    rows = series.with_name("prepared")
    shutil.copytree(Workspace(storage, prepare).prepared, rows)
    assert prepared is not None
    reports = [_train(document, prepared, rows) for document in documents["train"]]
    series.with_name("reports.json").write_text(json.dumps(reports))


def _train(document: dict[str, Any], prepared: RunReport, rows: Path) -> dict[str, Any]:
    assert prepared.model is not None and prepared.dataset is not None
    inputs = {"baseModelRevision": prepared.model.revision, "datasetDigest": prepared.dataset.digest}
    config, storage = _parse({**document, **inputs})
    shutil.copytree(rows, Workspace(storage, config).prepared, dirs_exist_ok=True)
    # A stage without a report is finished by a new process of its pod.
    report = run_stage(config, storage) or run_stage(config, storage)
    assert report is not None
    return report.to_dict()


def _parse(document: dict[str, Any]) -> tuple[AnyConfig, Storage]:
    config = parse_run_config(json.dumps(document).encode())
    return config, Storage().for_run(config)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
