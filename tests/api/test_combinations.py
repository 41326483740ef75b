"""Rules over several fields of a FineTuneJob: complete, distinct, and with advice. The API server evaluates them."""

import re

import pytest
from custom_resources.manifest_cases import bad_cases
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tunesmith.api.combinations import MANY_FILES, SPEC_RULES
from tunesmith.api.generate import LEARNED_TASKS, TASKS
from tunesmith.api.methods import MEMBERS
from tunesmith.api.rules import Rule
from tunesmith.api.uris import TrainedDataUri
from tunesmith_contract.formats import LEARNED_FORMATS
from tunesmith_contract.uris import names_one_file

ADVICE = re.compile(r"\b(write|leave|add|set|choose)\b", re.IGNORECASE)
CASES = bad_cases()
RULES = [pytest.param(rule, id=rule.message[:50]) for rule in SPEC_RULES]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_names_a_field_and_says_what_to_write(rule: Rule) -> None:
    assert re.fullmatch(r"(\.[a-zA-Z]+)+", rule.field)
    assert ADVICE.search(rule.message)


@pytest.mark.parametrize("rule", RULES)
def test_the_api_server_is_seen_to_refuse(rule: Rule) -> None:
    refused = [case for case in CASES if rule.message[:30] in case.message or case.message in rule.message]
    assert any(f"spec{rule.field}" in case.message or rule.message[:30] in case.message for case in refused)


def test_rules_are_distinct() -> None:
    assert (
        len({rule.cel for rule in SPEC_RULES})
        == len({rule.message for rule in SPEC_RULES})
        == len(SPEC_RULES)
    )


def test_every_method_has_its_formats() -> None:
    assert LEARNED_FORMATS.keys() <= set(MEMBERS)
    for method, formats in LEARNED_FORMATS.items():
        (rule,) = (
            rule for rule in SPEC_RULES if rule.cel.startswith(f"!has(self.method.{method}) || self.dataset")
        )
        allowed = ", ".join(f"'{name}'" for name in ("Auto", *formats))
        assert rule.cel.endswith(f"self.dataset.format in [{allowed}]")
        assert all(name in rule.message for name in formats)
        assert f"dataset.format: {formats[0]}," in rule.message


def test_every_task_has_its_methods() -> None:
    assert set(LEARNED_TASKS) == set(TASKS)
    for methods in LEARNED_TASKS.values():
        assert set(methods) <= set(MEMBERS)


PART = st.from_regex(r"[a-z]{1,3}(\.jsonl)?", fullmatch=True)
PATH = st.lists(PART, max_size=3).map("/".join)
URIS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["pvc://claim/", "s3://bucket/", "gs://bucket/", "hf://org/repo/", "hf://org/repo"]),
    PATH,
    st.sampled_from(["", "/", "*", "/rows-*.jsonl"]),
    st.sampled_from(["", "@main"]),
)


@given(URIS)
def test_many_files_are_what_does_not_name_one(uri: str) -> None:
    """The pattern in CEL and the contract's own function agree on every URI that is accepted."""
    try:
        TypeAdapter(TrainedDataUri).validate_python(uri)
    except ValidationError:
        return
    assert (re.search(MANY_FILES, uri) is None) == names_one_file(uri)
