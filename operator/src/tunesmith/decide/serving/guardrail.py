"""Sequential test of "the failure rate exceeds a bound", which may be evaluated at any number of times.

The null hypothesis is "each request fails with probability ``bound`` or less". Against it stands a mixture of
alternatives, each with odds of failure a fixed factor above those of the bound. Under the null the mixture's likelihood
ratio is a non-negative supermartingale that starts at 1, so by Ville's inequality the chance that it *ever* reaches
``1 / alpha`` is at most ``alpha``: no correction for the number of evaluations and no memory between them is needed.
"""

from math import exp, inf, log, log1p

#: Odds of failure of the alternatives, as multiples of the bound's odds: from a quarter worse to thirty times.
ODDS_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


def log_evidence(requests: int, errors: int, bound: float) -> float:
    """Natural logarithm of the evidence against the hypothesis that the error rate is at most ``bound``.

    Args:
        requests: requests seen since the step began.
        errors: number of failed requests.
        bound: the rate that is allowed, in [0, 1).

    Returns:
        0 without requests; infinity when an error was seen where none is allowed.
    """
    if bound == 0.0:
        return inf if errors else 0.0
    ratios = [_log_likelihood_ratio(requests, errors, bound, factor) for factor in ODDS_RATIOS]
    highest = max(ratios)
    return highest + log(sum(exp(ratio - highest) for ratio in ratios) / len(ratios))


def is_crossed(requests: int, errors: int, bound: float, alpha: float) -> bool:
    """True if the error rate exceeds the bound, at a false alarm probability of ``alpha`` over all evaluations."""
    return log_evidence(requests, errors, bound) >= -log(alpha)


def _log_likelihood_ratio(requests: int, errors: int, bound: float, factor: float) -> float:
    failure = bound * factor / (1.0 - bound + bound * factor)
    return errors * log(failure / bound) + (requests - errors) * (log1p(-failure) - log1p(-bound))
