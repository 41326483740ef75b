"""Formats of rows, and artifacts by address and digest."""

from enum import StrEnum

from .base import Digest, Document


class DataFormat(StrEnum):
    """Format of the rows of a data set."""

    AUTO = "Auto"
    CHAT = "Chat"
    PROMPT_COMPLETION = "PromptCompletion"
    PREFERENCE = "Preference"
    UNPAIRED_PREFERENCE = "UnpairedPreference"
    PROMPT = "Prompt"
    TEXT = "Text"
    SHAREGPT = "ShareGPT"
    ALPACA = "Alpaca"


class ArtifactSource(Document):
    """An artifact by address and digest."""

    uri: str
    digest: Digest
