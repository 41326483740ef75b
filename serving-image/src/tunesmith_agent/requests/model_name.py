"""Name of the version that a request asks for: by ``model`` alone, or by the header beside it."""

from tunesmith_agent.http.messages import Refusal
from tunesmith_contract.agent import VERSION_HEADER

_SEPARATOR = "@"


def resolve_model(model: str, version: bytes) -> str | Refusal:
    """Name that ``model`` and the header stand for together.

    Args:
        model: the ``model`` of the body.
        version: value of the header ``x-tunesmith-version``: the name of a version as answers have it, or the twelve
            digits behind its ``@`` alone.

    Returns:
        The name of a version, which may not be served, or a refusal where the two contradict each other.
    """
    asked = version.decode("ascii", "replace").strip()
    if asked == model:
        return model
    alias = model.partition(_SEPARATOR)[0]
    name = asked if _SEPARATOR in asked else f"{alias}{_SEPARATOR}{asked}"
    if name.startswith(f"{model}{_SEPARATOR}") or name == model:
        return name
    message = (
        f"The header {VERSION_HEADER} asks for {asked[:100]!r}, and model for {model[:100]!r}: leave the header out, "
        "or write the alias of that version as model."
    )
    return Refusal(400, message, param="model")
