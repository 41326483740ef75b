"""Stages of several training runs one after another in a single process of the trainer image, without a launcher.

``python image_run_series.py SERIES``: SERIES is a JSON file with a list of ``run.json``. Those of training lack what
their preparation tells them. How each run ended is written beside it: the exit code and report of its last stage, by
the name of the run.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from tunesmith_contract.uris import MOUNT_ROOT
from tunesmith_trainer import worker


def main(series: Path) -> None:
    """Run all stages; a run whose preparation fails is not trained."""
    # Where torch is loaded, preparation starts no processes of its own, which would import it again.
    importlib.import_module("torch")
    prepared: dict[str, dict[str, Any]] = {}
    ended: dict[str, dict[str, Any]] = {}
    for document in json.loads(series.read_text()):
        stage, run = document["stage"], document["owner"]["uid"]
        if stage == "train":
            rows = document.get("preparedBy", run)
            if rows not in prepared:
                continue
            report = prepared[rows]
            document["baseModelRevision"] = report["model"]["revision"]
            document["datasetDigest"] = report["dataset"]["digest"]
        ended[run] = _run_stage(document, series.parent)
        if stage == "prepare" and ended[run]["code"] == 0:
            prepared[run] = ended[run]["report"]
    series.with_name("ended.json").write_text(json.dumps(ended))


def _run_stage(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    config, report = folder / "run.json", folder / "report.json"
    config.write_text(json.dumps(document))
    report.unlink(missing_ok=True)
    arguments = ["--stage", document["stage"], "--config", str(config)]
    arguments += ["--mount-root", str(MOUNT_ROOT), "--report-file", str(report)]
    code = worker.main(arguments)
    if code == 0 and not report.exists():
        # A stage without a report is finished by a new process of its pod.
        code = worker.main(arguments)
    return {"code": int(code), "report": json.loads(report.read_text()) if report.exists() else None}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
