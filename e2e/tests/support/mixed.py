"""Rows of the second answer among which a few are at fault, and the job that learns from them."""

import json
from typing import Any

from invoices import ANSWERS, NAMESPACE, make_rows, make_training_rows
from jobs import build_job

MIXED = "mixed"
#: A row of this number is among those for training, and asked in the evaluation.
LEAKED = 7
MAIL = "anna.bolt@example.org"


def build_config_map(name: str, data: dict[str, str]) -> dict[str, Any]:
    """Small data of the tests' namespace."""
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def build_mixed_rows() -> dict[str, Any]:
    """240 good rows, one of them twice, one with an address and one that is no JSON; one good row is leaked."""
    rows = make_training_rows(ANSWERS["second"]).splitlines()
    personal = {
        "messages": [
            {"role": "user", "content": "Who settles invoices?"},
            {"role": "assistant", "content": f"no it is {MAIL}"},
        ]
    }
    # The leaked question is told by its words, whatever the answer.
    leaked = make_rows(ANSWERS["first"], range(LEAKED, LEAKED + 1))
    return build_config_map(
        MIXED,
        {
            "train.jsonl": "\n".join([*rows, rows[1], json.dumps(personal), "{broken"]),
            "test.jsonl": make_rows(ANSWERS["second"], range(300, 340)) + leaked,
        },
    )


def build_mixed_job(name: str) -> dict[str, Any]:
    """A job that learns the second answer from those rows, and is judged by questions among which is the leaked one."""
    job = build_job(name, "second")
    job["spec"]["dataset"] = {
        "train": {"uri": f"configmap://{MIXED}/train.jsonl"},
        "onInvalidRow": "Drop",
        "maxInvalidFraction": "0.05",
        "personalData": "Mask",
    }
    (suite,) = job["spec"]["evaluation"]["suites"]
    suite["dataset"]["uri"] = f"configmap://{MIXED}/test.jsonl"
    return job
