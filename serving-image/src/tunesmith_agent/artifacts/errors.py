"""Errors of artifacts, by what can mend them."""


class ArtifactError(Exception):
    """Artifact that can't be served; ``reason`` is a PascalCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ArtifactUnreadable(ArtifactError):
    """Artifact that can't be read now, but perhaps later."""


class ArtifactInvalid(ArtifactError):
    """Artifact that is not what its digest says, or that these pods can't serve: a retry can't help."""
