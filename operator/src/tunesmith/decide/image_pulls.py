"""Causes of images that can't be pulled, as registries, container runtimes and kubelets word them."""

import re
from enum import StrEnum


class PullFailure(StrEnum):
    """Whether time or a person can help.

    UNKNOWN: the message names no cause, such as the kubelet's back-off between two pulls.
    """

    TRANSIENT = "Transient"
    PERMANENT = "Permanent"
    UNKNOWN = "Unknown"


#: Rate limits, time-outs, servers that fail or can't be reached, full disks. An HTTP status stands before its words, or
#: behind "status" and a colon; the tag of an image has no space before it.
_TRANSIENT = re.compile(
    r"toomanyrequests|too many requests|rate limit"
    r"|\b(429|50[0234]) [A-Z]|status( code)?:? (429|5\d\d)\b"
    r"|time(d )?-?out|deadline ?exceeded|code = (Unavailable|ResourceExhausted)|service unavailable"
    r"|connection (refused|reset)|broken pipe|unexpected EOF|: EOF\b|no such host|server misbehaving"
    r"|no route to host|network is unreachable|temporary failure|no space left",
    re.IGNORECASE,
)
_PERMANENT = re.compile(
    r"not found|no such image|does not exist|manifest unknown|name unknown|no match for platform|not present"
    r"|unauthorized|forbidden|denied|authentication|no basic auth|insufficient_scope|40[13]\b"
    r"|invalid reference|couldn't parse image|InvalidImageName|x509|HTTP response to HTTPS client|signature",
    re.IGNORECASE,
)
_PERMANENT_REASONS = frozenset(
    {"InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "SignatureValidationFailed"}
)
_TRANSIENT_REASONS = frozenset({"RegistryUnavailable"})


def is_transient(message: str) -> bool:
    """True for an error that may pass by itself: a rate limit, a time-out, a server that fails."""
    return _TRANSIENT.search(message) is not None


def classify_pull(reason: str, message: str) -> PullFailure:
    """Kind of a failed pull.

    Args:
        reason: the kubelet's, such as ``ErrImagePull``.
        message: its message, with that of the registry.
    """
    if reason in _PERMANENT_REASONS:
        return PullFailure.PERMANENT
    if is_transient(message):
        return PullFailure.TRANSIENT
    if _PERMANENT.search(message):
        return PullFailure.PERMANENT
    return PullFailure.TRANSIENT if reason in _TRANSIENT_REASONS else PullFailure.UNKNOWN
