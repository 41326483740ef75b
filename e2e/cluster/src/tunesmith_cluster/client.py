"""Operations on a running cluster for tests and demo: kubectl, apply, namespaces."""

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tunesmith_cluster.api import ApiClient, ApiError, Document
from tunesmith_cluster.binaries import program
from tunesmith_cluster.volumes import build_claim, build_storage_class, build_volume

VOLUME_SIZE = "100Gi"
ENFORCE_LABEL = "pod-security.kubernetes.io/enforce"
# Between two looks at what is waited for; more the longer it takes, so that waiting costs no processor time.
SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 0.5

T = TypeVar("T")


class KubectlError(Exception):
    """kubectl refused; `stderr` is what a person would have seen."""

    def __init__(self, arguments: Sequence[str], stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: {stderr.strip()}")
        self.stderr = stderr.strip()


def eventually(read: Callable[[], T | None], timeout: float = 30, *, what: str = "") -> T:
    """First true answer of `read`.

    Raises:
        TimeoutError: there was none within `timeout` seconds; names `what` was waited for.
    """
    began = time.monotonic()
    while True:
        answer = read()
        if answer:
            return answer
        waited = time.monotonic() - began
        if waited > timeout:
            raise TimeoutError(f"waited {timeout:g} s in vain for {what or getattr(read, '__name__', read)}")
        time.sleep(min(LONGEST_PAUSE, max(SHORTEST_PAUSE, waited / 20)))


class ClusterClient:
    """One cluster by its kubeconfig.

    Attributes:
        namespaces: those that this client has made, the oldest first.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.api = ApiClient(kubeconfig)
        self.namespaces: list[str] = []
        self._resources: dict[str, tuple[str, Document]] = {}

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Standard output of kubectl.

        Raises:
            KubectlError: it ended with another status than 0.
        """
        command = [program("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        result = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if result.returncode:
            raise KubectlError(arguments, result.stderr)
        return result.stdout

    def apply(self, manifest: str | Document | Sequence[Document], namespace: str | None = None) -> str:
        """`kubectl apply` of YAML text, one object or several.

        Raises:
            KubectlError: the API server refused, with the message that a person sees.
        """
        if isinstance(manifest, str):
            text = manifest
        else:
            items = [manifest] if isinstance(manifest, dict) else list(manifest)
            # JSON, because YAML writers and readers disagree on whether 1e-4 is a number.
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        scope = [f"--namespace={namespace}"] if namespace else []
        return self.kubectl("apply", *scope, "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str = "default") -> Document:
        """One object, by any name of its kind that kubectl knows.

        Raises:
            ApiError: it, or its kind, does not exist.
        """
        return self.api.get(f"{self._collection(kind, namespace)}/{name}")

    def _collection(self, kind: str, namespace: str) -> str:
        """Path of the objects of a kind; a namespace is left out where the kind has none."""
        name = kind.lower()
        if name not in self._resources:
            self._resources = self._discover()
        if name not in self._resources:
            raise ApiError(404, "NotFound", f"the API server has no kind {kind!r}: are its CRDs installed?")
        prefix, resource = self._resources[name]
        scope = f"/namespaces/{namespace}" if resource["namespaced"] else ""
        return f"{prefix}{scope}/{resource['name']}"

    def _discover(self) -> dict[str, tuple[str, Document]]:
        """Group path and discovery entry of each resource, by its plural, singular, short and full names.

        Where groups share a name the core group wins, as for kubectl.
        """
        groups = self.api.get("/apis")["groups"]
        versions = {"": "/api/v1"} | {
            f".{group['name']}": f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups
        }
        resources: dict[str, tuple[str, Document]] = {}
        for suffix, prefix in versions.items():
            for resource in self.api.get(prefix)["resources"]:
                plural = resource["name"]
                if "/" in plural:
                    continue
                for name in (
                    plural,
                    f"{plural}{suffix}",
                    resource["kind"].lower(),
                    *resource.get("shortNames", ()),
                ):
                    resources.setdefault(name, (prefix, resource))
        return resources

    def namespace(self, prefix: str = "test", *, enforce: str = "restricted") -> str:
        """Make a namespace of its own under a Pod Security level and wait until pods can be created in it."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        metadata = {"name": name, "labels": {ENFORCE_LABEL: enforce}}
        self.api.create("/api/v1/namespaces", {"metadata": metadata})
        self.namespaces.append(name)
        path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        eventually(lambda: self._find(path), what=f"the default service account of {name}")
        return name

    def _find(self, path: str) -> Document | None:
        """The object, None where it is not there (yet, or any more)."""
        try:
            return self.api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def add_volume(
        self, namespace: str, claim: str, path: Path, node: str, *, access_mode: str = "ReadWriteOnce"
    ) -> None:
        """A claim on a folder of a node. The folder must exist where a real kubelet is to mount it."""
        self.apply(
            [
                build_storage_class(),
                build_volume(namespace, claim, str(path), node, VOLUME_SIZE, access_mode),
                build_claim(namespace, claim, VOLUME_SIZE, access_mode),
            ]
        )
