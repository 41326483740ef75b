"""``python -m contracts.freeze NAME`` writes the present contract of ``run.json`` beside those of earlier releases."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tunesmith.api.adapterdeployment import AdapterDeploymentSpec
from tunesmith.api.evalrun import EvalRunSpec
from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith_contract.run_config import RunConfig, parse_run_config

from .run_files import begun_jobs, write_evaluation_file, write_training_files
from .schema_reader import SchemaReader

FOLDER = Path(__file__).parents[2] / "contract" / "previous"


def present_schema() -> dict[str, Any]:
    """The schema of ``run.json``, without descriptions."""
    schema: dict[str, Any] = _without_texts(TypeAdapter(RunConfig).json_schema(by_alias=True))
    return schema


def api_defaults() -> dict[str, Any]:
    """Default values of the fields of all specs, by kind, model and field."""
    found: dict[str, Any] = {}
    for model in (FineTuneJobSpec, EvalRunSpec, AdapterDeploymentSpec):
        kind, schema = model.__name__.removesuffix("Spec"), model.model_json_schema(by_alias=True)
        spec = {member: value for member, value in schema.items() if member != "$defs"}
        reader = SchemaReader({"$defs": schema["$defs"] | {"Spec": spec}})
        found |= {f"{kind}: {name}": value for name, value in reader.defaults().items()}
    return found


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {
            key: item
            for key, item in value.items()
            if key not in ("description", "title") or isinstance(item, dict)
        }
        return {key: _without_texts(item) for key, item in kept.items()}
    return [_without_texts(item) for item in value] if isinstance(value, list) else value


def main(name: str) -> None:
    """Write the files of a release."""
    texts = dict(write_training_files()) | {"evaluation": write_evaluation_file()}
    documents = {title: parse_run_config(text).to_dict() for title, text in texts.items()}
    contents = {
        "schema": present_schema(),
        "documents": documents,
        "defaults": api_defaults(),
        "jobs": begun_jobs(),
    }
    for kind, content in contents.items():
        (FOLDER / f"{name}.{kind}.json").write_text(f"{_lines(content)}\n", encoding="utf-8")


def _lines(content: Mapping[str, Any]) -> str:
    """JSON with a line for each document, and for each definition of a schema."""
    members = [
        f"{json.dumps(name)}: {_lines(value) if name == '$defs' else json.dumps(value, sort_keys=True)}"
        for name, value in sorted(content.items())
    ]
    return "{\n" + ",\n".join(members) + "\n}"


if __name__ == "__main__":
    main(sys.argv[1])
