"""JSON Schemas of the contract with containers that score answers."""

import json
from pathlib import Path

from tunesmith_contract.evaluation_container import DOCUMENTS, VERSION

FOLDER = Path(f"docs/schemas/evaluation-container/v{VERSION}")


def container_schemas() -> dict[Path, str]:
    """Text of each schema, by its path below the repository's root."""
    return {
        FOLDER / f"{name}.json": json.dumps(document.model_json_schema(by_alias=True), indent=2) + "\n"
        for name, document in DOCUMENTS.items()
    }
