"""A teacher and judge behind a local server: it answers by what it is asked, and says what it took."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from servers.scripted_server import Received, Reply

Say = Callable[[str], str]


def said(text: str | None, prompt: int = 10, completion: int = 5, finish: str = "stop") -> Reply:
    """An answer as OpenAI's endpoint gives it."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return Reply(body={"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage})


def text_of(request: Received) -> str:
    """What the user said last."""
    text: str = request.body["messages"][-1]["content"]
    return text


class Teacher:
    """Answers each of the requests that the stage makes, and counts them.

    Attributes:
        asked: how often each question came.
    """

    def __init__(self, **ways: Say) -> None:
        self._ways = {
            "answer": answer,
            "paraphrase": paraphrase,
            "invent": invent,
            "compare": compare,
            "score": score,
        }
        self._ways |= ways
        self._lock = threading.Lock()
        self.asked: Counter[str] = Counter()

    def __call__(self, request: Received) -> Reply:
        with self._lock:
            self.asked[json.dumps(request.body, sort_keys=True)] += 1
        return said(self._ways[kind_of(request)](text_of(request)))


def kind_of(request: Received) -> str:
    """What a request is for, by the words that the stage uses."""
    text = text_of(request)
    starts = {"Rewrite": "paraphrase", "Below are": "invent", "Compare": "compare", "Judge": "score"}
    return next((kind for start, kind in starts.items() if text.startswith(start)), "answer")


def answer(text: str) -> str:
    """The question's words, backwards."""
    return " ".join(reversed(text.split()))


def paraphrase(text: str) -> str:
    """As many other ways as it is asked for, with words around them."""
    question = text.rsplit("Request:\n", 1)[1]
    count = int(re.search(r"in (\d+) different", text)[1])  # type: ignore[index]
    ways = [{"question": f"{question}, way {number}"} for number in range(count)]
    return f"Sure!\n```json\n{json.dumps(ways)}\n```"


def invent(text: str) -> str:
    """New questions, made of the examples' digest so that each request brings others."""
    seed = sum(map(ord, text)) * 31 + len(text)
    rows = [
        {"question": f"topic{seed * 7 + n} aspect{seed + n * 13} detail{seed + n}", "answer": f"fact {n}"}
        for n in range(5)
    ]
    return json.dumps(rows)


def compare(text: str) -> str:
    """The longest answer is the best, the shortest the worst, wherever they stand."""
    answers = dict(re.findall(r"^Answer ([A-H]):\n(.*)$", text, re.MULTILINE))
    ranked = sorted(answers, key=lambda letter: (len(answers[letter]), answers[letter]))
    return json.dumps({"best": ranked[-1], "worst": ranked[0]})


def score(text: str) -> str:
    """By the digit in the question, if there is one."""
    digit = re.search(r"\d", text.rsplit("Request:\n", 1)[1])
    return f'{{"score": {digit[0] if digit else 5}}}'


def stuck(release: threading.Event, after: int, way: Any) -> Any:
    """A way that answers so many, and no more until it is released."""
    seen = Counter[str]()
    lock = threading.Lock()

    def reply(request: Received) -> Reply:
        with lock:
            seen["all"] += 1
            late = seen["all"] > after
        if late:
            release.wait(60)
        found: Reply = way(request)
        return found

    return reply
