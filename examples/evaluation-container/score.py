"""Example of a container that scores answers, by docs/evaluation-container.md: the share of expected words given."""

import json
import os
import signal
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ.get("TUNESMITH_FOLDER", "/tunesmith"))
INPUT, OUTPUT = FOLDER / "input", FOLDER / "output"
UNSUPPORTED = 64


def share_of_words(expected: str, answer: str) -> float:
    """Share of the expected words that the answer has."""
    words = set(expected.lower().split())
    return len(words & set(answer.lower().split())) / len(words) if words else float(not answer.strip())


def score_lines(item: dict) -> list[dict]:
    """Scores of all sides' answers to one item: the mean over repeats."""
    lines = []
    for side, answers in item["answers"].items():
        if not answers:
            continue
        shares = [share_of_words(item["expected"], answer["text"]) for answer in answers]
        lines.append({"digest": item["digest"], "side": side, "score": sum(shares) / len(shares)})
    return lines


def main() -> int:
    """Wait for input, score it, and say so; started again after that, do nothing."""
    # The first process of a container ignores SIGTERM unless it says otherwise, and the pod would wait for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if (OUTPUT / "done").exists():
        return 0
    while not (INPUT / "ready").exists():
        time.sleep(0.2)
    config = json.loads((INPUT / "config.json").read_text())
    if config["version"] != 1:
        return UNSUPPORTED
    with (INPUT / "items.jsonl").open() as items, (OUTPUT / "scores.jsonl").open("w") as scores:
        for number, line in enumerate(items, 1):
            scores.writelines(json.dumps(score) + "\n" for score in score_lines(json.loads(line)))
            (OUTPUT / "progress.json").write_text(json.dumps({"done": number, "total": config["items"]}))
    (OUTPUT / "done").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
