"""Each manifest of the pages is one that the API's models take; the API server itself is asked in test_crds.py."""

from typing import Any

import pytest
from custom_resources.documented_manifests import DOCUMENTED, DOCUMENTED_RESOURCES, DocumentedManifest

from tunesmith.api import KINDS


def test_the_pages_show_manifests() -> None:
    assert len(DOCUMENTED) >= 25


@pytest.mark.parametrize("shown", DOCUMENTED_RESOURCES, ids=lambda shown: shown.title)
def test_what_a_page_shows_is_taken(shown: DocumentedManifest) -> None:
    kind: Any = next(kind for kind in KINDS if kind.kind_name == shown.body["kind"])
    assert kind.parse(shown.body).spec.to_dict()
