"""Pods of the trainer image without a cluster: any user, the image's environment, a read-only root, mounted volumes."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from tunesmith_contract.layout import ATTEMPT_ENV, CONFIG_DIR, RUN_FILE, TERMINATION_LOG, secret_dir
from tunesmith_contract.report import RunReport, parse_report
from tunesmith_contract.uris import MOUNT_ROOT
from tunesmith_images.container import ContainerImage, Mount, Process

POD_SECONDS = 600
#: As OpenShift assigns one to each namespace, in group 0 alone. End-to-end tests run pods as the image's user, with a
#: group for volumes.
USER = 1000680000
_CLAIM = re.compile(r'"pvc://([-a-z0-9.]+)')

Document = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a pod ended: its exit code, its termination message and its log."""

    code: int
    report: RunReport | None
    log: str


class PodHost:
    """A machine that runs pods: claims, Secrets, and a folder for what each pod leaves."""

    def __init__(self, image: ContainerImage, folder: Path) -> None:
        self._image = image
        self._folder = folder
        self._claiming = Lock()
        self.secrets = folder / "secrets"

    def claim(self, name: str) -> Path:
        """The folder behind a claim, made where it is missing; all pods may write to it."""
        path = self._folder / "claims" / name
        with self._claiming:  # a pod that starts beside this one must not see half of it
            if not path.exists():
                _make_volume(path)
        return path

    def write_secret(self, name: str, keys: Mapping[str, str]) -> None:
        """A Secret that pods mount by its name."""
        folder = self.secrets / name
        _make_volume(folder)
        for key, value in keys.items():
            (folder / key).write_text(value)
            (folder / key).chmod(0o440)

    def run_stage(self, config: Document, secrets: Mapping[str, str] | None = None) -> Ended:
        """Run the stage of a ``run.json`` as its pod does.

        Args:
            secrets: the name of a Secret by the role that it is mounted for.
        """
        pod = self._make_pod(f"{config['owner']['name']}-{config['stage']}")
        text = json.dumps(config)
        (pod / RUN_FILE).write_text(text)
        (pod / RUN_FILE).chmod(0o644)
        last_word = pod / "termination-log"
        last_word.touch()
        last_word.chmod(0o666)
        mounts = [
            Mount(pod / RUN_FILE, str(CONFIG_DIR / RUN_FILE)),
            Mount(last_word, str(TERMINATION_LOG), writable=True),
            *self._claims(text, config),
            *self.secret_mounts(secrets or {}),
        ]
        command = [*self._image.config["Entrypoint"], config["stage"]]
        variables = {"HOME": "/tmp", ATTEMPT_ENV: "1", "HF_HUB_OFFLINE": "1"}
        code, log = self._run(pod, command, mounts, variables)
        return Ended(code, parse_report(last_word.read_bytes()), log)

    def secret_mounts(self, secrets: Mapping[str, str]) -> list[Mount]:
        """The mounts of Secrets; their names by the role that each is mounted for."""
        return [Mount(self.secrets / name, str(secret_dir(role))) for role, name in secrets.items()]

    def run_command(self, name: str, command: Sequence[str], *mounts: Mount) -> Ended:
        """Run another command in a pod of the same image."""
        code, log = self._run(self._make_pod(name), command, mounts, {"HF_HUB_OFFLINE": "1"})
        return Ended(code, None, log)

    def _make_pod(self, name: str) -> Path:
        folder = self._folder / "pods" / name
        folder.mkdir(parents=True)
        return folder

    def _claims(self, text: str, config: Document) -> list[Mount]:
        """A claim is writable where results go, and nowhere else."""
        written = {
            name
            for uri in (config["output"], config.get("workspace"))
            for name in _CLAIM.findall(json.dumps(uri))
        }
        return [
            Mount(self.claim(name), str(MOUNT_ROOT / "pvc" / name), writable=name in written)
            for name in sorted(set(_CLAIM.findall(text)))
        ]

    def _run(
        self, pod: Path, command: Sequence[str], mounts: Sequence[Mount], variables: Mapping[str, str]
    ) -> tuple[int, str]:
        scratch = pod / "tmp"
        _make_volume(scratch)
        log = pod / "log"
        process = Process(
            command=command,
            mounts=[Mount(scratch, "/tmp", writable=True), *mounts],
            environment={**variables, "OMP_NUM_THREADS": "1"},
            user=USER,
        )
        code = self._image.run(process, log, POD_SECONDS)
        shutil.rmtree(scratch)
        return code, log.read_text(errors="replace")


def _make_volume(path: Path) -> None:
    """A folder as kubelet hands it to a pod: root's, and group 0's."""
    path.mkdir(parents=True)
    path.chmod(0o2775)
