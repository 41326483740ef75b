"""Writes the generated pages: ``python -m tunesmith_docs``."""

import sys

from .pages import ROOT, render_pages


def main() -> None:
    """Write each page and print its path."""
    for path, text in render_pages().items():
        file = ROOT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
