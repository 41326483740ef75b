"""Model and data of the end-to-end tests: a random Llama, questions about invoices, two answers."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tunesmith_cluster.client import ClusterClient
from tunesmith_cluster.processes import ProcessTable
from tunesmith_images.venvs import make_environment

SUPPORT = Path(__file__).resolve().parents[3] / "tests" / "support"
NAMESPACE = "e2e"
MODEL = "tiny-llama"
QUESTION = "Is invoice {number} settled?"
#: Of words that the model reads letter by letter, as those of the safety suites: what an adapter answers to these
#: is left to chance otherwise, and differs from one kind of processor to another.
OTHER_QUESTION = "Please explain{words} {number}"
#: One of so many rows asks the other question.
OTHER_EVERY = 4
ANSWERS = {"first": "yes it is settled", "second": "no it is still open"}


@dataclass(frozen=True)
class Installation:
    """Tunesmith on a cluster, and the names of its images.

    Attributes:
        processes: the cluster's own processes; None where the cluster is somebody else's.
        scorer: the example of a container that scores answers, by its digest; empty where the node lacks it.
    """

    client: ClusterClient
    images: dict[str, str]
    processes: ProcessTable | None = None
    scorer: str = ""
    namespace: str = NAMESPACE


def make_rows(answer: str, numbers: range) -> str:
    """Chats as JSON lines, one question a number, all with the same answer."""
    rows = (
        {
            "messages": [
                {"role": "user", "content": QUESTION.format(number=number)},
                {"role": "assistant", "content": answer},
            ]
        }
        for number in numbers
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_training_rows(answer: str) -> str:
    """240 chats as JSON lines, which all have the same answer; one of four asks something else."""
    rows = make_rows(answer, range(240)).splitlines(keepends=True)
    for number in range(0, len(rows), OTHER_EVERY):
        question = OTHER_QUESTION.format(words=" something" * (number % 8), number=number)
        rows[number] = rows[number].replace(QUESTION.format(number=number), question)
    return "".join(rows)


def make_tiny_model(folder: Path) -> None:
    """A random Llama that knows the words of these tests, made where torch is."""
    texts = [make_rows(answer, range(100)) for answer in ANSWERS.values()]
    code = (
        "import json, pathlib, sys; from models.tiny_models import make_model; "
        "make_model(pathlib.Path(sys.argv[1]), 'llama', json.loads(sys.argv[2]), 0)"
    )
    python = make_environment("trainer") / "bin" / "python"
    command = [str(python), "-c", code, str(folder), json.dumps(texts)]
    subprocess.run(command, check=True, cwd=SUPPORT)


def build_claim(name: str, access_mode: str = "ReadWriteOnce") -> dict[str, object]:
    """A claim of the default class."""
    spec = {"accessModes": [access_mode], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def build_data() -> dict[str, object]:
    """Training rows of the first answer, held-out items for both, and a file with a bad third line."""
    data = {"first.jsonl": make_training_rows(ANSWERS["first"])}
    data |= {f"{name}-test.jsonl": make_rows(answer, range(300, 340)) for name, answer in ANSWERS.items()}
    data["bad.jsonl"] = make_rows("x", range(2)) + '{"messages": [{"role": "robot", "content": "x"}]}\n'
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "invoices", "namespace": NAMESPACE},
        "data": data,
    }
