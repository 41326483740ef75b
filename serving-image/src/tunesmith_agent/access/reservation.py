"""Tokens that a request may take, before it is sent."""

from typing import Any, NamedTuple

#: Bytes of a request for which one token is reserved; most texts have more bytes per token.
BYTES_PER_TOKEN = 3

#: What vLLM generates for ``/v1/completions`` where the request says nothing.
_COMPLETION_TOKENS = 16

#: Members that limit an answer, by path, in the order in which the engine looks at them.
_LIMITS = {
    b"/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    b"/v1/completions": ("max_tokens",),
    b"/v1/responses": ("max_output_tokens",),
}


class Reservation(NamedTuple):
    """Most tokens that a request is expected to take.

    Attributes:
        prompt: estimate for the prompts.
        answer: limit of all answers together.
        default: member of the request that is to limit each answer, with its value; None if the request does.
    """

    prompt: int
    answer: int
    default: tuple[str, int] | None = None

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.answer


def reserve(path: bytes, body: dict[str, Any], size: int, default_max_tokens: int) -> Reservation:
    """Reservation for a request.

    Args:
        body: the request, whose members may have any type: what the engine refuses takes nothing.
        size: bytes of the body.
        default_max_tokens: limit of an answer where the request has none.
    """
    prompt = estimate_prompt(size)
    members = _LIMITS.get(path)
    if members is None:
        return Reservation(prompt, 0)
    answers = (_count(body["n"], 1) if "n" in body else 1) * (_prompts(body) if "prompt" in body else 1)
    for member in members:
        if body.get(member) is not None:
            return Reservation(prompt, answers * _count(body[member], default_max_tokens))
    if path == b"/v1/completions" and "max_tokens" not in body:
        return Reservation(prompt, answers * _COMPLETION_TOKENS)
    return Reservation(prompt, answers * default_max_tokens, (members[-1], default_max_tokens))


def estimate_prompt(size: int) -> int:
    """Tokens of a prompt in a request of so many bytes."""
    return size // BYTES_PER_TOKEN + 1


def _count(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default


def _prompts(body: dict[str, Any]) -> int:
    """Number of prompts in a request, each of which is answered."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1
