"""Marks of pins that only x86-64 has: ``python -m tunesmith_images.architectures LOCK OTHER``.

A lock file is resolved for x86-64. The images install it on ARM64 as well, so it must hold the same versions there.
"""

import re
import sys
from pathlib import Path

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?==(?P<version>[^\s;]+)", re.MULTILINE)
MARKER = 'platform_machine == "x86_64"'


def mark_pins(lock: str, other: str) -> str:
    """The lock file, with a marker on the pins that the resolution for ARM64 does without.

    Args:
        lock: lock file with hashes, resolved for x86-64.
        other: resolution of the same requirements for ARM64, in the versions of the lock file.

    Raises:
        ValueError: ARM64 needs other versions, or packages that the lock file lacks.
    """
    pins, others = (dict(_pins(text)) for text in (lock, other))
    differing = {name for name, version in others.items() if pins.get(name) != version}
    if differing:
        names = ", ".join(f"{name}=={others[name]}" for name in sorted(differing))
        raise ValueError(f"ARM64 needs {names}, which the lock file does not have")

    def mark(pin: re.Match[str]) -> str:
        return pin[0] if pin["name"] in others else f"{pin[0]} ; {MARKER}"

    return _PIN.sub(mark, lock)


def _pins(text: str) -> list[tuple[str, str]]:
    return [(pin["name"], pin["version"]) for pin in _PIN.finditer(text)]


def main(arguments: list[str]) -> None:
    """Mark the pins of a lock file in place."""
    lock, other = map(Path, arguments)
    lock.write_text(mark_pins(lock.read_text(), other.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
