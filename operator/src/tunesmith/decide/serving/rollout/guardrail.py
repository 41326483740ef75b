"""Sequential test of "the failure rate exceeds a bound", which may be evaluated at any number of times.

The null hypothesis is "each request fails with probability ``bound`` or less". Against it stands a mixture of
alternatives, each with odds of failure a fixed factor above those of the bound. Under the null the mixture's likelihood
ratio is a non-negative supermartingale that starts at 1, so by Ville's inequality the chance that it *ever* reaches
``1 / alpha`` is at most ``alpha``: no correction for the number of evaluations and no memory between them is needed.

Requests of one client (sticky key) fail together. Counts are therefore divided by the design effect of these clusters
(the variance of their failures, compared with that of independent requests) before they are tested, and failures of
fewer than three keys prove nothing.
"""

from math import exp, inf, log, log1p

from tunesmith.decide.serving.evidence import Arm

#: Odds of failure of the alternatives, as multiples of the bound's odds: from a quarter worse to thirty times.
ODDS_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)

#: Keys that must have failing requests. The variance between fewer clusters says nothing about others.
MINIMUM_FAILING_KEYS = 3


def is_violated(arm: Arm, bound: float, alpha: float) -> bool:
    """True if the failure rate of a version exceeds the bound.

    Args:
        bound: the rate that is allowed, in [0, 1).
        alpha: probability of a false alarm over all evaluations.
    """
    if failing_keys(arm) < MINIMUM_FAILING_KEYS:
        return False
    effect = design_effect(arm, bound)
    return is_crossed(arm.total.requests / effect, arm.total.failures / effect, bound, alpha)


def is_worse(candidate: Arm, stable: Arm, alpha: float) -> bool:
    """True if the candidate's failure rate exceeds that of the stable version, or if that one had no request.

    Given all failures of both, the candidate's part follows its share of the requests if they are equally good
    (the conditional test of two rates).
    """
    failures = candidate.total.failures + stable.total.failures
    requests = candidate.total.requests + stable.total.requests
    if not stable.total.requests:
        return True
    if not failures:
        return False
    share = candidate.total.requests / requests
    effect = max(design_effect(arm, failures / requests) for arm in (candidate, stable))
    return is_crossed(failures / effect, candidate.total.failures / effect, share, alpha)


def failing_keys(arm: Arm) -> float:
    """Effective number of keys with failing requests: (sum f)² / sum f², which is their number if all fail alike."""
    failures = arm.total.failures
    if not failures:
        return 0.0
    return failures / _over_pods(arm.total.failures_squared / failures, arm)


def design_effect(arm: Arm, bound: float) -> float:
    """Factor by which failures of clusters vary more than independent ones, at least 1.

    With ``n`` requests of a key, of which ``f`` failed: sum (f - p n)² / (p (1 - p) sum n). ``p`` is the bound, or the
    observed rate if that is higher. See Kish, Survey Sampling (1965), and Rao and Scott, A simple method for the
    analysis of clustered binary data (1992).
    """
    total = arm.total
    if not total.requests:
        return 1.0
    rate = max(bound, total.failures / total.requests)
    if not 0.0 < rate < 1.0:
        return 1.0
    deviation = (
        total.failures_squared - 2 * rate * total.requests_failures + rate * rate * total.requests_squared
    )
    return max(_over_pods(deviation / (rate * (1.0 - rate) * total.requests), arm), 1.0)


def _over_pods(effect: float, arm: Arm) -> float:
    """Design effect over all pods, of one that each pod measured for itself.

    A client whose requests several pods answered is a key on each of them. At worst that holds for all clients; then
    the part above 1 is as many times larger as there are pods.
    """
    return max(1.0 + max(arm.sources, 1) * (effect - 1.0), 1.0)


def log_evidence(requests: float, errors: float, bound: float) -> float:
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


def is_crossed(requests: float, errors: float, bound: float, alpha: float) -> bool:
    """True if the error rate exceeds the bound, at a false alarm probability of ``alpha`` over all evaluations."""
    return log_evidence(requests, errors, bound) >= -log(alpha)


def _log_likelihood_ratio(requests: float, errors: float, bound: float, factor: float) -> float:
    failure = bound * factor / (1.0 - bound + bound * factor)
    return errors * log(failure / bound) + (requests - errors) * (log1p(-failure) - log1p(-bound))
