"""YAML read by libyaml: PyYAML's own parser takes seconds for the chart with its CRDs, most of all under coverage."""

from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """The one document of a text."""
    return yaml.load(text, Loader=yaml.CSafeLoader)


def read_all_yaml(text: str) -> list[Any]:
    """The documents of a text that are not empty."""
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]
