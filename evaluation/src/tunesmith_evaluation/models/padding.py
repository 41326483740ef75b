"""Order and padding of the prompts of a batch."""

from collections.abc import Sequence


def longest_first(prompts: Sequence[list[int]]) -> list[int]:
    """Indices of the prompts, by length."""
    return sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))


def pad_left(
    prompts: Sequence[list[int]], prefix_length: int, pad: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and attention mask, both (prompts, longest prompt); padding follows the shared prefix."""
    width = max(len(prompt) for prompt in prompts)
    ids, mask = [], []
    for prompt in prompts:
        missing = width - len(prompt)
        ids.append([*prompt[:prefix_length], *[pad] * missing, *prompt[prefix_length:]])
        mask.append([*[1] * prefix_length, *[0] * missing, *[1] * (len(prompt) - prefix_length)])
    return ids, mask
