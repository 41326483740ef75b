"""Quality checks of the content of rows: one pass over all rows, in bounded memory."""

from .survey import QualityResult, QualitySurvey

__all__ = ["QualityResult", "QualitySurvey"]
