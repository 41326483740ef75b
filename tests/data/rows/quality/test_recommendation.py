"""Which method and adapter are recommended for what was found, and why."""

from dataclasses import replace

import pytest

from tunesmith_data.rows.findings import Issue, Severity
from tunesmith_data.rows.quality.recommendation import MAX_SUMMARY, Facts, recommend
from tunesmith_data.rows.quality.row_views import Kind

ANSWERS = Facts("sft", Kind.ANSWER, rows=800, tokens=80_000, answer_characters=300)


@pytest.mark.parametrize(
    ("facts", "method", "adapter"),
    [
        (ANSWERS, "sft", "LoRA"),
        (replace(ANSWERS, method="dpo", kind=Kind.PAIR), "dpo", "LoRA"),
        (replace(ANSWERS, method="reward", kind=Kind.PAIR), "reward", "LoRA"),
        (replace(ANSWERS, method="kto", kind=Kind.PAIR), "dpo", "LoRA"),
        (replace(ANSWERS, method="kto", kind=Kind.JUDGED), "kto", "LoRA"),
        (replace(ANSWERS, method="grpo", kind=Kind.PROMPT, answer_characters=8), "grpo", "LoRA"),
        (replace(ANSWERS, method="grpo", kind=Kind.PROMPT), "sft", "LoRA"),
        (replace(ANSWERS, method="rloo", kind=Kind.PROMPT, answer_characters=0), "rloo", "LoRA"),
        (replace(ANSWERS, method="distillation", kind=Kind.PROMPT), "distillation", "LoRA"),
        (replace(ANSWERS, method="pretraining", kind=Kind.TEXT), "pretraining", "RSLoRA"),
        (replace(ANSWERS, parameters=70_000_000_000), "sft", "QLoRA"),
        (replace(ANSWERS, tokens=200_000_000, parameters_per_rank=1_000_000), "sft", "RSLoRA"),
        (replace(ANSWERS, tokens=10_000_000_000, parameters_per_rank=1_000_000), "sft", None),
        (replace(ANSWERS, tokens=80_000, parameters_per_rank=1_000_000), "sft", "LoRA"),
    ],
)
def test_what_suits_the_data(facts: Facts, method: str, adapter: str | None) -> None:
    found = recommend(facts)
    assert (found.method, found.adapter) == (method, adapter)
    assert all(found.reasons)
    asks = any(f"The job asks for {facts.method}" in reason for reason in found.reasons)
    assert asks == (method != facts.method)


def test_the_rank_follows_from_the_tokens() -> None:
    facts = replace(ANSWERS, tokens=200_000_000, parameters_per_rank=1_000_000)
    assert "RSLoRA of rank 128" in recommend(facts).summary
    assert any("need about rank 100" in reason for reason in recommend(facts).reasons)
    assert "LoRA of rank 32" in recommend(replace(facts, tokens=64_000_000)).summary


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
    for kind in Kind:
        facts = replace(ANSWERS, kind=kind, rows=40, issues=issues, tokens=10**12, parameters_per_rank=10**6)
        summary = recommend(facts).summary
        assert 0 < len(summary) <= MAX_SUMMARY
        assert summary.endswith(".")
