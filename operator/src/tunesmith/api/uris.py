"""Types of storage URIs, by what they may refer to."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tunesmith_contract.uris import parse_uri

from .rules import Rule, matching

_CLAIM = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_PATH = r"[-A-Za-z0-9_.]+(/[-A-Za-z0-9_.]+)*"
_KEY = r"[-A-Za-z0-9_.=+]+(/[-A-Za-z0-9_.=+]+)*"
_REPO = r"[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*"
_REVISION = r"(@[-A-Za-z0-9_./]+)?"
_PVC_FILE = rf"pvc://{_CLAIM}/{_PATH}/?"
_PVC_ROWS = rf"pvc://{_CLAIM}/([-A-Za-z0-9_.]+/)*[-A-Za-z0-9_.*]*"
_PVC_FOLDER = rf"pvc://{_CLAIM}(/{_PATH})?/?"
_HF_ROWS = rf"hf://{_REPO}(/([-A-Za-z0-9_.]+/)*[-A-Za-z0-9_.*]*)?{_REVISION}"
_CONFIGMAP = rf"configmap://{_CLAIM}/[-._a-zA-Z0-9]+"
_BUCKET = r"(s3|gs|az)://[a-z0-9][-a-z0-9._]{1,61}[a-z0-9]"
_BUCKET_FILE = rf"{_BUCKET}/{_KEY}/?"
_BUCKET_ROWS = rf"{_BUCKET}/([-A-Za-z0-9_.=+]+/)*[-A-Za-z0-9_.=+*]*"
_BUCKET_FOLDER = rf"{_BUCKET}(/{_KEY})?/?"
_OCI = r"oci://[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
_OCI_PINNED = rf"{_OCI}(:[A-Za-z0-9_][-A-Za-z0-9_.]{{0,127}}|@sha256:[0-9a-f]{{64}})?"

_NO_PARENT = Rule(
    "!self.contains('..')",
    "Write a path without '..': it must stay within its volume.",
    lambda uri: ".." not in uri,
)


def _check_parsable(uri: str) -> str:
    """Reject URIs that the pods can't parse; after the patterns, only a key named "." remains."""
    parse_uri(uri)
    return uri


_Uri = Annotated[str, Field(max_length=512), AfterValidator(_check_parsable)]

ModelUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_FOLDER}|hf://{_REPO}{_REVISION})$",
        "Write the location of the model: pvc://claim/path or hf://org/repo@revision.",
    ),
    _NO_PARENT,
]
"""URI of a model that is served or evaluated."""

TrainedModelUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_FOLDER}|hf://{_REPO}{_REVISION}|{_BUCKET_FOLDER}|{_OCI_PINNED})$",
        "Write the location of the model: pvc://claim/path, hf://org/repo@revision, "
        "s3://bucket/folder, gs://bucket/folder, az://container/folder or oci://registry/repository@sha256:….",
    ),
    _NO_PARENT,
]
"""URI of a model that is trained or used in training."""

DataUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_FILE}|{_CONFIGMAP}|hf://{_REPO}(/{_PATH})?{_REVISION})$",
        "Write the location of the rows: pvc://claim/file.jsonl, configmap://name/key or "
        "hf://org/repo/file@revision.",
    ),
    _NO_PARENT,
]
"""URI of evaluation rows."""

ValidationDataUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_FILE}|{_CONFIGMAP}|hf://{_REPO}(/{_PATH})?{_REVISION}|{_BUCKET_FILE})$",
        "Write the location of the rows: pvc://claim/file.jsonl, configmap://name/key, "
        "hf://org/repo/file@revision, s3://bucket/file.jsonl, gs://bucket/file.jsonl or az://container/file.jsonl.",
    ),
    _NO_PARENT,
]
"""URI of a file of validation rows."""

TrainedDataUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_ROWS}|{_CONFIGMAP}|{_HF_ROWS}|{_BUCKET_ROWS})$",
        "Write the location of the rows: pvc://claim/file.jsonl, configmap://name/key, "
        "hf://org/repo/file@revision, s3://bucket/file.jsonl, gs://bucket/file.jsonl or az://container/file.jsonl; "
        "a folder with"
        " a slash at its end for all its files, such as pvc://claim/folder/; or a pattern in its last"
        " part for some of them, such as s3://bucket/folder/rows-*.jsonl.",
    ),
    _NO_PARENT,
]
"""URI of training rows: a file, a folder or a pattern."""

OutputUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_FOLDER}|{_BUCKET_FOLDER}|{_OCI}|hf://{_REPO}(/{_PATH})?)$",
        "Write the location of artifacts: pvc://claim/folder on a claim that pods can write to, "
        "s3://bucket/folder, gs://bucket/folder, az://container/folder, oci://registry/repository (lower case, "
        "without a "
        "tag) or hf://org/repo (without a revision).",
    ),
    _NO_PARENT,
]
"""URI of the storage of artifacts."""

WorkspaceUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_FOLDER}|{_BUCKET_FOLDER})$",
        "Write the location of work files: pvc://claim/folder, s3://bucket/folder, gs://bucket/folder or "
        "az://container/folder.",
    ),
    _NO_PARENT,
]
"""URI of the storage of work files."""

ArtifactUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_FILE}|{_BUCKET_FILE}|{_OCI_PINNED}|hf://{_REPO}(/{_PATH})?{_REVISION})$",
        "Write the location of the artifact as shown in status: pvc://claim/folder/sha256/…, "
        "s3://bucket/folder/sha256/…, gs://bucket/folder/sha256/…, az://container/folder/sha256/…, "
        "oci://registry/repository:sha256-…"
        " or hf://org/repo/sha256/….",
    ),
    _NO_PARENT,
]
"""URI of an artifact that is served or evaluated."""

HarnessDataUri = Annotated[
    _Uri,
    matching(
        rf"^({_PVC_FOLDER}|{_BUCKET_FOLDER})$",
        "Write the location of a file or folder: pvc://claim/path, s3://bucket/path, gs://bucket/path or "
        "az://container/path.",
    ),
    _NO_PARENT,
]
"""URI of the data of a harness task."""

HttpUrl = Annotated[
    str,
    Field(max_length=512),
    matching(
        r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[-A-Za-z0-9._~/%?=&+]*)?$",
        "Write a URL such as http://grader.team.svc:8080/score, without a user name or password: "
        "credentials belong in the Secret.",
    ),
]
"""URL of an HTTP endpoint."""
