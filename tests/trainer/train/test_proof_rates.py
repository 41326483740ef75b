"""Error rates of proofs, simulated: honest adapters that are refused, wrong and inactive ones that pass.

The noise is what others publish for transformers against vLLM in bfloat16: 0.04 nats per token for dense models, 0.08
for mixtures of experts. Errors of tokens are independent; those of base and adapter at one token have the correlation
``rho``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from long_form import cases
from numpy.typing import NDArray

from tunesmith_agent.control.proof import Evidence, Measurement, ProofResult, judge, weigh
from tunesmith_contract.artifact import Probe
from tunesmith_contract.shared_rules.probe_effect import PROVABLE_RATIO, PUBLISHED_NOISE, difference_noise

Array = NDArray[np.float64]
REFUSED = (ProofResult.PROOF_FAILED, ProofResult.BASE_MODEL_MISMATCH)
ATTEMPTS = 3
SHORT, LONG = 800, 20_000
#: Noise of the engine; its correlation; the part of it that the trainer measured, None in earlier manifests.
ENGINES = [(0.04, 0.9, 0.25), (0.08, 0.0, 0.25), (0.08, 0.9, None)]

pytestmark = pytest.mark.many_cases


@dataclass(frozen=True)
class Engine:
    """An engine with noise per token, whose trainer measured a part of it."""

    sigma: float
    rho: float
    measured: float | None
    random: np.random.Generator
    degrees: float = np.inf

    @property
    def noise(self) -> float:
        """Noise that the manifest makes expect."""
        return PUBLISHED_NOISE if self.measured is None else self.measured * self.sigma

    def judge(self, expected: Array, true: Array) -> list[ProofResult]:
        """One result for each row: what the manifest expects, and the effect of the adapter that is loaded."""
        base, other = self._errors(expected.shape), self._errors(expected.shape)
        adapter = self.rho * base + np.sqrt(1 - self.rho**2) * other
        shown = true + adapter - base
        return [judge(evidence, self.noise).result for evidence in weigh_rows(expected, base, shown)]

    def passes(self, expected: Array, true: Array) -> float:
        """Share of the rows that are proved in any attempt, each with noise of its own."""
        proved = np.zeros(len(expected), bool)
        for _ in range(ATTEMPTS):
            proved |= [result is ProofResult.PROVED for result in self.judge(expected, true)]
        return float(proved.mean())

    def refusals(self, expected: Array) -> float:
        """Share of the honest adapters that are refused; another attempt is not counted on."""
        return float(np.mean([result in REFUSED for result in self.judge(expected, expected)]))

    def _errors(self, shape: tuple[int, ...]) -> Array:
        if np.isinf(self.degrees):
            errors: Array = self.random.standard_normal(shape)
        else:
            scale = np.sqrt((self.degrees - 2) / self.degrees)
            errors = scale * self.random.standard_t(self.degrees, shape)
        return self.sigma * errors


def weigh_rows(expected: Array, base_errors: Array, shown: Array) -> Iterator[Evidence]:
    """The sums that the agent makes of one row's tokens, for many rows at once."""
    squares = (expected**2).sum(1)
    columns = (
        base_errors.mean(1),
        np.sqrt((base_errors**2).mean(1)),
        np.sqrt(squares),
        (expected * shown).sum(1) / squares,
        np.sqrt(((shown - expected) ** 2).mean(1)),
    )
    tokens = expected.shape[1]
    for values in zip(*(column.tolist() for column in columns), strict=True):
        yield Evidence(tokens, tokens, *values)


def make_effects(random: np.random.Generator, rows: int, tokens: int, size: float) -> Array:
    """Effects per token, few of them large, as training leaves them; each row has the root sum of squares ``size``."""
    effects: Array = random.laplace(size=(rows, tokens))
    effects *= size / np.sqrt((effects**2).sum(1, keepdims=True))
    return effects


def make_answers(random: np.random.Generator, rows: int, tokens: int, prior: float) -> tuple[Array, Array]:
    """Effects of two yes/no adapters on the answers of the first; both learned the form, ``prior`` in nats.

    The first knows the answer with probability 0.9; the second answers another question with the same confidence.
    """
    base = np.log(0.5) - prior
    own = random.beta(18, 2, (rows, tokens)).clip(1e-4)
    other = random.beta(18, 2, (rows, tokens)).clip(1e-4, 1 - 1e-4)
    other = np.where(random.random((rows, tokens)) < 0.5, other, 1 - other)
    return np.log(own) - base, np.log(other) - base


@pytest.fixture(params=ENGINES, ids=lambda values: "sigma {} rho {} measured {}".format(*values))
def engine(request: pytest.FixtureRequest) -> Engine:
    sigma, rho, measured = request.param
    return Engine(sigma, rho, measured, np.random.default_rng(9))


def provable(engine: Engine) -> float:
    """Smallest effect that is provable at this noise."""
    return PROVABLE_RATIO * difference_noise(max(engine.noise, engine.sigma))


@pytest.mark.parametrize(("tokens", "times"), [(32, 0.3), (64, 1.0), (64, 3.0), (256, 1.0)])
def test_honest_adapters_are_not_refused(engine: Engine, tokens: int, times: float) -> None:
    rows = cases(SHORT, LONG)
    effects = make_effects(engine.random, rows, tokens, times * provable(engine))
    assert engine.refusals(effects) < 0.01


@pytest.mark.parametrize("times", [1.1, 3.0])
def test_adapters_that_are_inactive_or_others_are_not_proved(engine: Engine, times: float) -> None:
    rows = cases(SHORT, LONG)
    size = times * provable(engine)
    effects, others = (make_effects(engine.random, rows, 64, size) for _ in range(2))
    assert engine.passes(effects, 0 * effects) < 0.001
    assert engine.passes(effects, others) < 0.001


@pytest.mark.parametrize("prior", [0.0, 1.0, 6.0], ids=["form known", "form half known", "form unknown"])
def test_answers_of_one_token(engine: Engine, prior: float) -> None:
    """Joined over 32 rows: also another yes/no adapter, which shares most of the effect, is told apart."""
    own, other = make_answers(engine.random, cases(SHORT, LONG), 32, prior)
    assert engine.refusals(own) < 0.01
    assert engine.passes(own, 0 * own) < 0.001
    assert engine.passes(own, other) < 0.001


def test_rare_large_errors_refuse_no_honest_adapter() -> None:
    """Noise of improbable tokens is larger: Student's t with 4 degrees of freedom."""
    engine = Engine(0.08, 0.0, 0.25, np.random.default_rng(9), degrees=4)
    effects = make_effects(engine.random, cases(SHORT, LONG), 64, 2 * provable(engine))
    assert engine.refusals(effects) < 0.01


def test_effect_below_the_noise_is_neither_proved_nor_refused(engine: Engine) -> None:
    effects = make_effects(engine.random, 500, 64, 0.3 * provable(engine))
    results = engine.judge(effects, effects)
    assert sum(result is ProofResult.UNPROVEN for result in results) >= 495


def test_base_model_with_other_weights_is_found(engine: Engine) -> None:
    """Weights that move each token by 0.3 nats, as quantization to 4 bits does: other models move them by more."""
    effects = make_effects(engine.random, 500, 64, 3 * provable(engine))
    shifted = Engine(0.35, engine.rho, engine.measured, engine.random)
    noise = engine.noise
    base = shifted._errors(effects.shape)
    results = [judge(evidence, noise).result for evidence in weigh_rows(effects, base, effects)]
    assert all(result is ProofResult.BASE_MODEL_MISMATCH for result in results)


def test_the_simulated_sums_are_the_agents() -> None:
    random = np.random.default_rng(9)
    expected, errors, shown = (random.standard_normal((20, 40)) for _ in range(3))
    for row, evidence in enumerate(weigh_rows(expected, errors, shown)):
        base = tuple(-5 - abs(random.standard_normal(40)))
        probe = Probe(
            token_ids=tuple(range(42)), prompt_length=2, base_log_prob=0, tuned_log_prob=0,
            base_token_log_probs=base, tuned_token_log_probs=tuple(base + expected[row]),
        )  # fmt: skip
        measured = base + errors[row]
        agents = weigh([Measurement(probe, tuple(measured), tuple(measured + shown[row]))])
        for name in Evidence.__slots__:
            assert getattr(agents, name) == pytest.approx(getattr(evidence, name))
