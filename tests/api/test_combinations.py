"""Rules over several fields of a FineTuneJob: complete, distinct, and with advice. The API server evaluates them."""

import re

import pytest
from custom_resources.manifest_cases import bad_cases

from tunesmith.api.combinations import SPEC_RULES
from tunesmith.api.generate import LEARNED_TASKS, TASKS
from tunesmith.api.methods import MEMBERS
from tunesmith.api.rules import Rule
from tunesmith_contract.formats import LEARNED_FORMATS

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
