"""Recommendation of method and adapter, with reasons."""

from dataclasses import replace

import pytest

from tunesmith_data.rows.findings import Issue, Severity
from tunesmith_data.rows.quality.recommendation import MAX_SUMMARY, DataProfile, recommend
from tunesmith_data.rows.quality.row_views import RowKind

ANSWERS = DataProfile("sft", RowKind.ANSWER, rows=800, tokens=80_000, answer_characters=300)


@pytest.mark.parametrize(
    ("profile", "method", "adapter"),
    [
        (ANSWERS, "sft", "LoRA"),
        (replace(ANSWERS, method="dpo", kind=RowKind.PAIR), "dpo", "LoRA"),
        (replace(ANSWERS, method="reward", kind=RowKind.PAIR), "reward", "LoRA"),
        (replace(ANSWERS, method="kto", kind=RowKind.PAIR), "dpo", "LoRA"),
        (replace(ANSWERS, method="kto", kind=RowKind.JUDGED), "kto", "LoRA"),
        (replace(ANSWERS, method="grpo", kind=RowKind.PROMPT, answer_characters=8), "grpo", "LoRA"),
        (replace(ANSWERS, method="grpo", kind=RowKind.PROMPT), "sft", "LoRA"),
        (replace(ANSWERS, method="rloo", kind=RowKind.PROMPT, answer_characters=0), "rloo", "LoRA"),
        (replace(ANSWERS, method="distillation", kind=RowKind.PROMPT), "distillation", "LoRA"),
        (replace(ANSWERS, method="pretraining", kind=RowKind.TEXT), "pretraining", "RSLoRA"),
        (replace(ANSWERS, parameters=70_000_000_000), "sft", "QLoRA"),
        (replace(ANSWERS, tokens=200_000_000, parameters_per_rank=1_000_000), "sft", "RSLoRA"),
        (replace(ANSWERS, tokens=10_000_000_000, parameters_per_rank=1_000_000), "sft", None),
        (replace(ANSWERS, tokens=80_000, parameters_per_rank=1_000_000), "sft", "LoRA"),
    ],
)
def test_what_suits_the_data(profile: DataProfile, method: str, adapter: str | None) -> None:
    found = recommend(profile)
    assert (found.method, found.adapter) == (method, adapter)
    assert all(found.reasons)
    asks = any(f"The job asks for {profile.method}" in reason for reason in found.reasons)
    assert asks == (method != profile.method)


def test_the_rank_follows_from_the_tokens() -> None:
    profile = replace(ANSWERS, tokens=200_000_000, parameters_per_rank=1_000_000)
    assert "RSLoRA of rank 128" in recommend(profile).summary
    assert any("need about rank 100" in reason for reason in recommend(profile).reasons)
    assert "LoRA of rank 32" in recommend(replace(profile, tokens=64_000_000)).summary


def test_few_examples_are_put_into_the_prompt_first() -> None:
    assert "40 rows are few: try examples in the prompt first" in recommend(replace(ANSWERS, rows=40)).summary


def test_grave_issues_come_first() -> None:
    issues = [
        Issue(check=check, severity=severity, rows=1_200, message="", advice="")
        for check, severity in (
            ("contradicting_answers", Severity.ERROR),
            ("too_few_rows", Severity.WARNING),
            ("low_diversity", Severity.NOTE),
        )
    ]
    assert (
        "Deal with contradicting_answers (1,200) first." in recommend(replace(ANSWERS, issues=issues)).summary
    )


def test_the_summary_fits_the_status() -> None:
    issues = [
        Issue(check=40 * name, severity=Severity.ERROR, rows=1_000_000, message="", advice="")
        for name in "abc"
    ]
    for kind in RowKind:
        profile = replace(
            ANSWERS, kind=kind, rows=40, issues=issues, tokens=10**12, parameters_per_rank=10**6
        )
        summary = recommend(profile).summary
        assert 0 < len(summary) <= MAX_SUMMARY
        assert summary.endswith(".")
