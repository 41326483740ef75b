"""Which of the numbers that TRL's online trainers gather are logged.

Progress holds 64 numbers at most. These trainers gather about 30 while they train, as many again when they measure, and
four more for each reward. Times are left out too: the same training has the same history.
"""

from typing import Any

from tunesmith_contract.progress import REWARD

_MEASURED = frozenset({REWARD, "reward_std", "kl", "completions/mean_length", "completions/clipped_ratio"})
_LOGGED = {
    "train": _MEASURED | {"num_tokens", "entropy", "frac_reward_zero_std", "clip_ratio/region_mean"},
    "eval": _MEASURED,
}


class FewMetrics:
    """Mixed into a trainer of TRL's: only those numbers are logged that people look at."""

    model: Any
    _metrics: dict[str, dict[str, list[float]]]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the numbers of the trainer, and each reward's mean."""
        mode = "train" if self.model.training else "eval"
        for name in set(self._metrics[mode]) - _LOGGED[mode]:
            if not (name.startswith("rewards/") and name.endswith("/mean")):
                del self._metrics[mode][name]
        if REWARD in self._metrics[mode]:
            # Of one answer to a prompt it is 0: what counts is the reward.
            logs.pop("eval_loss", None)
        super().log(logs, start_time)  # type: ignore[misc]
