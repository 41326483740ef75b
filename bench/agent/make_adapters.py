"""A tiny model and adapters with probes, made where torch and PEFT are.

``make_adapters.py FOLDER COUNT``: FOLDER gets ``model/``, a claim ``mnt/pvc/artifacts`` and ``versions.json``, a list.
"""

import json
import sys
from pathlib import Path

from models.probed_adapters import STEPS, commit, make_adapter, make_probes
from models.tiny_models import make_model


def main(folder: Path, count: int) -> None:
    """Make all of it; each adapter has learnt texts of its own."""
    storage = folder / "mnt/pvc/artifacts"
    storage.mkdir(parents=True)
    texts = [f"Item {number} costs {7 * number} euros on day {number}." for number in range(1, count + 1)]
    model_folder = make_model(folder / "model", "llama", texts)
    versions = []
    for text in texts:
        adapter = make_adapter(model_folder, [text], STEPS)
        versions.append(commit(adapter, make_probes(adapter, model_folder), storage))
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
