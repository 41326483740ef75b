"""Local files as ``pvc://this-computer`` URIs, and URIs of data and models named in a command."""

import os
from pathlib import Path

from tunesmith_contract.uris import InvalidUri, Scheme, StorageUri, parse_uri
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import Storage

#: Name of the claim that stands for the local file system.
HOST_CLAIM = "this-computer"

_PREFIX = f"{Scheme.PVC}://{HOST_CLAIM}"


class HostStorage(Storage):
    """Storage that maps ``pvc://this-computer`` to local paths; other URIs work as in a pod."""

    def path(self, uri: StorageUri) -> Path:
        """The path of a ``pvc://`` or ``configmap://`` URI.

        Raises:
            InvalidUri: the rest is fetched, not mounted.
        """
        return Path("/") / uri.path if uri.name == HOST_CLAIM else super().path(uri)


def host_uri(path: Path) -> str:
    """URI of a local file or folder; the URI of a folder ends with a slash."""
    absolute = os.path.abspath(path.expanduser())
    return f"{_PREFIX}{absolute}{'/' if os.path.isdir(absolute) else ''}"


def data_uri(written: str) -> str:
    """URI of data that is named by a URI or by a local path.

    Raises:
        UserError: there is no such file or folder.
    """
    if "://" in written:
        return written
    if not Path(written).expanduser().exists():
        raise UserError("DatasetNotFound", f"{written} does not exist: write the path of a file")
    return host_uri(Path(written))


def model_uri(written: str) -> str:
    """URI of a model that is named by a URI, a local folder, or its name on the hub.

    Raises:
        UserError: the name is none of these.
    """
    if "://" in written:
        return written
    if Path(written).expanduser().is_dir():
        return host_uri(Path(written)).rstrip("/")
    try:
        return str(parse_uri(f"{Scheme.HF}://{written}"))
    except InvalidUri:
        message = f"{written} is not a folder: write a model's folder, or a hub's model such as org/name"
        raise UserError("ModelNotFound", message) from None


def as_paths(message: str) -> str:
    """The message with the URIs of local files replaced by their paths."""
    return message.replace(_PREFIX, "")
