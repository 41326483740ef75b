"""The same numbers as statsmodels and lm-evaluation-harness on the same items."""

import numpy as np
import pytest
from lm_eval.api.metrics import exact_match_hf_evaluate, mean_stderr
from lm_eval.api.metrics import mean as harness_mean
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from tunesmith_contract.shared_rules.verdict import holm
from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.means import bounded_mean, standard_error


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_that_of_statsmodels(seed: int) -> None:
    p_values = np.random.default_rng(seed).uniform(0, 0.1, 16).tolist()
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_mean_and_standard_error_are_those_of_the_harness() -> None:
    chance = np.random.default_rng(3)
    answers = chance.choice(["yes", "no", "maybe"], 200).tolist()
    expected = chance.choice(["yes", "no"], 200).tolist()
    scores = [float(answer == wanted) for answer, wanted in zip(answers, expected, strict=True)]
    whole = exact_match_hf_evaluate(predictions=answers, references=expected)["exact_match"]
    found = bounded_mean(np.array(scores), Groups.of(None, 200), 0.95, binary=True)
    assert found.value == pytest.approx(whole)
    assert found.value == pytest.approx(harness_mean(scores))
    assert standard_error(np.array(scores), Groups.of(None, 200)) == pytest.approx(mean_stderr(scores))


def test_clustered_errors_are_those_of_statsmodels() -> None:
    chance = np.random.default_rng(7)
    labels = chance.integers(0, 30, 400)
    values = np.clip(chance.normal(0.5, 0.1, 30)[labels] + chance.normal(0, 0.1, 400), 0, 1)
    fitted = OLS(values, np.ones(400)).fit(
        cov_type="cluster", cov_kwds={"groups": labels, "use_correction": False}
    )
    number = len(set(labels.tolist()))
    expected = float(fitted.bse[0]) * np.sqrt(number / (number - 1))
    assert standard_error(values, Groups.of(labels.tolist(), 400)) == pytest.approx(expected)
