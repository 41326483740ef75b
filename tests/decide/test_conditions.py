"""Conditions move their transition time only with their status."""

from datetime import UTC, datetime, timedelta

from tunesmith.api.crd import UNSEEN_TIME
from tunesmith.decide.conditions import ConditionUpdate, merge_conditions

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_transition_time_moves_with_the_status_alone() -> None:
    first = merge_conditions([], [ConditionUpdate("Ready", "Unknown", "Pending")], 1, NOW)
    second = merge_conditions(
        first, [ConditionUpdate("Ready", "Unknown", "Preparing", "reading")], 2, NOW + timedelta(hours=1)
    )
    third = merge_conditions(
        second, [ConditionUpdate("Ready", "True", "Succeeded")], 2, NOW + timedelta(hours=2)
    )
    assert second[0]["lastTransitionTime"] == "2030-01-01T00:00:00Z"
    assert (second[0]["reason"], second[0]["message"], second[0]["observedGeneration"]) == (
        "Preparing",
        "reading",
        2,
    )
    assert third[0]["lastTransitionTime"] == "2030-01-01T02:00:00Z"
    assert (second[0]["status"], third[0]["status"]) == ("Unknown", "True")


def test_other_conditions_stay() -> None:
    before = merge_conditions([], [ConditionUpdate("Ready", "True", "Done")], 1, NOW)
    after = merge_conditions(before, [ConditionUpdate("DataReady", "True", "Prepared")], 1, NOW)
    assert [condition["type"] for condition in after] == ["DataReady", "Ready"]


def test_the_schemas_default_has_no_time_of_its_own() -> None:
    unseen = {"type": "Reconciling", "status": "True", "reason": "Pending", "lastTransitionTime": UNSEEN_TIME}
    (seen,) = merge_conditions([unseen], [ConditionUpdate("Reconciling", "True", "Preparing")], 1, NOW)
    assert seen["lastTransitionTime"] == "2030-01-01T00:00:00Z"
