"""Models of the Hugging Face Hub on a volume that pods share, so that each is downloaded once.

The volume saves time and nothing else: a run continues without it where it can't be written, has no file locks, is
full, or holds damaged files.
"""

import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tunesmith_contract.layout import MODEL_CACHE_ENV

logger = logging.getLogger(__name__)


def fetch_through_cache(
    fetch: Callable[[Path | None], str], environment: Mapping[str, str] = os.environ
) -> str:
    """Path of what ``fetch`` downloaded: to the shared folder, or to the pod's own disk.

    Args:
        fetch: a download to a cache folder; None: to the default one, on the pod's own disk.
    """
    from huggingface_hub.errors import HfHubHTTPError

    cache = _usable_cache(environment)
    if cache is None:
        return fetch(None)
    try:
        return fetch(cache)
    except HfHubHTTPError:
        raise
    except (
        Exception
    ) as error:  # libraries report a full or damaged volume by many types, RuntimeError among them
        logger.warning("%s can't be used, downloading without it: %s", cache, error)
        return fetch(None)


def _usable_cache(environment: Mapping[str, str]) -> Path | None:
    """Shared folder, if this pod can write and lock files there.

    Without locks the hub's library marks a download by a file, for which others would wait forever if its pod died.
    """
    if MODEL_CACHE_ENV not in environment:
        return None
    cache = Path(environment[MODEL_CACHE_ENV])
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as probe:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        logger.warning("%s can't be used, downloading without it: %s", cache, error)
        return None
    return cache
