"""Ten minutes on a new GPU: what the trainer does there, one line per check, without network.

    python3 bench/gpu_smoke.py OUT

OUT gets ``gpu-smoke.json``, logs, and the adapters that ``bench/gpu_serve.sh`` serves. Copy the JSON to
``bench/results`` and run ``bench/report.py`` for a table in ``docs/benchmarks.md``. In the trainer image, which has all
libraries, from the root of the source tree (podman: ``--device nvidia.com/gpu=all`` instead of ``--gpus all``)::

    mkdir -p out && chmod 777 out
    docker run --rm --network none --gpus all --shm-size 8g --read-only --tmpfs /tmp:exec,size=40g \
        -e HOME=/tmp -v "$PWD:/repo:ro" -v "$PWD/out:/out" -w /repo \
        --entrypoint python3 TRAINER_IMAGE bench/gpu_smoke.py /out

Every check has a process and a time limit of its own: an exception, a hang or a full memory ends one check. A check
whose library is missing is SKIPPED, and without a GPU so are those that need one; the others then use a tiny model.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Folders of this source tree that the checks import from; they go before what an image has installed.
SOURCES = (
    "contract/src", "storage/src", "gpu/src", "search/src", "operator/src", "data/src", "trainer-image/src",
    "docs/generate/src", "tests/support", "bench/trainer", "bench/gpu",
)  # fmt: skip
sys.path[:0] = [str(ROOT / folder) for folder in SOURCES]

from check_runner import Check, Place, Result, Status, run_checks, with_needs  # noqa: E402

RESULT_FILE = "gpu-smoke.json"
#: Seconds for which the limits of the checks are meant; they grow with a larger budget.
_USUAL_BUDGET = 600
_TRAINED = ("model",)

#: The most telling first: what does not fit into the budget is skipped.
CHECKS = (
    Check("versions", "installed_libraries:find_versions", 30),
    Check("facts", "library_checks:find_facts", 60),
    Check("preflight", "library_checks:check_preflight", 60),
    Check("bitsandbytes", "library_checks:check_bitsandbytes", 60),
    Check("deepspeed", "library_checks:check_deepspeed", 60),
    Check("triton", "library_checks:check_triton", 90),
    Check("packed-attention", "library_checks:check_packed_attention", 90),
    Check("model", "training_checks:make_model_and_data", 120),
    Check("lora", "training_checks:train_lora", 120, _TRAINED),
    Check("qlora-low-memory", "training_checks:train_qlora_with_little_memory", 120, _TRAINED),
    Check("zero3-merged", "training_checks:train_zero3_merged", 150, _TRAINED),
    Check("zero3-offload", "training_checks:train_zero3_offloaded", 150, _TRAINED),
    Check("full", "training_checks:train_full", 120, _TRAINED),
    Check("resume", "training_checks:resume_after_sigterm", 200, _TRAINED),
    Check("noise", "proof_checks:measure_noise", 90, ("lora",)),
    Check("reload-full", "proof_checks:reload_full", 90, ("full",)),
    Check("reload-merged", "proof_checks:reload_merged", 90, ("zero3-merged",)),
    Check("grpo", "training_checks:train_grpo", 150, _TRAINED),
    Check("qlora", "training_checks:train_qlora", 120, _TRAINED),
    Check("lora-unpacked", "training_checks:train_lora_unpacked", 120, _TRAINED),
    Check("evaluate", "training_checks:evaluate", 120, ("lora",)),
    Check("defaults", "speed_checks:compare_defaults", 180, _TRAINED),
    Check("unsloth", "speed_checks:compare_unsloth", 180, _TRAINED),
    Check("memory", "speed_checks:measure_memory", 150),
)  # fmt: skip


def main() -> int:
    """Run the checks; 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    names = [check.name for check in CHECKS]
    parser.add_argument("--only", nargs="+", choices=names, help="these and what they need")
    parser.add_argument(
        "--budget",
        type=float,
        default=_USUAL_BUDGET,
        help="seconds for all checks together; with more, each check has more time as well",
    )
    options = parser.parse_args()
    place = Place(options.output.resolve())
    place.folder.mkdir(parents=True, exist_ok=True)
    # A model and checkpoints of an earlier run would be taken for this one's.
    shutil.rmtree(place.folder / "work", ignore_errors=True)
    start = time.monotonic()

    def report(results: Sequence[Result]) -> None:
        print(results[-1].line(), flush=True)
        document = {
            "seconds": time.monotonic() - start,
            "budget": options.budget,
            "checks": [asdict(result) for result in results],
        }
        (place.folder / RESULT_FILE).write_text(json.dumps(document, indent=1) + "\n")

    patience = max(1.0, options.budget / _USUAL_BUDGET)
    checks = [
        replace(check, seconds=check.seconds * patience)
        for check in with_needs(CHECKS, options.only or names)
    ]
    results = run_checks(checks, place, options.budget, report)
    counts = ", ".join(f"{sum(result.status is status for result in results)} {status}" for status in Status)
    print(f"{counts}; {time.monotonic() - start:.0f} s; {place.folder / RESULT_FILE}")
    return int(any(result.status is Status.FAILED for result in results))


if __name__ == "__main__":
    sys.exit(main())
