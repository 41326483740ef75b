"""Types of Kubernetes objects as plain data: as read from the API server, and as sent to it."""

from collections.abc import Mapping
from typing import Any

#: An object as the API server returned it; never changed.
Body = Mapping[str, Any]

#: An object, or a patch of one, built to be sent to the API server.
KubernetesObject = dict[str, Any]
