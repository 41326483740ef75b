"""What people read when nothing goes on."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tunesmith.decide.refusal import (
    MAX_MESSAGE,
    RefusalReason,
    describe,
    plan_invalid,
    plan_refusal,
    without_invalid,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BODY: dict[str, Any] = {"metadata": {"generation": 3}, "status": {"phase": "Training", "conditions": []}}


class Spec(BaseModel):
    rank: int


def conditions(status: dict[str, Any] | None) -> dict[str, tuple[str, str]]:
    assert status is not None
    return {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}


def test_a_refusal_keeps_what_is_known_and_goes_on_trying() -> None:
    plan = plan_refusal(BODY, RefusalReason.REFUSED, "exceeded quota", NOW)
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["observedGeneration"]) == ("Training", 3)
    assert conditions(plan.status) == {"Ready": ("False", "Refused"), "Reconciling": ("True", "Refused")}
    assert [(event.type, event.reason, event.message) for event in plan.events] == [
        ("Warning", "Refused", "exceeded quota")
    ]


def test_an_invalid_resource_is_stalled_until_its_next_form() -> None:
    plan = plan_invalid(BODY, ValueError("write it so"), NOW)
    assert conditions(plan.status) == {
        "Ready": ("False", "Invalid"),
        "Reconciling": ("False", "Invalid"),
        "Stalled": ("True", "Invalid"),
    }
    mended = without_invalid({**BODY, "status": plan.status})
    assert set(conditions(mended["status"])) == {"Ready", "Reconciling"}


def test_the_kinds_own_stalled_stays() -> None:
    own = {"conditions": [{"type": "Stalled", "status": "True", "reason": "Failed"}]}
    assert without_invalid({**BODY, "status": own})["status"] == own


def test_mistakes_name_their_field() -> None:
    with pytest.raises(ValidationError) as error:
        Spec.model_validate({"rank": "many"})
    assert describe(error.value).startswith("rank: Input should be a valid integer")
    assert len(describe(ValueError("x" * 5000))) == MAX_MESSAGE
