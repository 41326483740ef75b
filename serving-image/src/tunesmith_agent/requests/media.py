"""Images, audio and video in requests. The engine itself fetches what a URL names: only from hosts that are listed."""

import re
from collections.abc import Callable, Iterable
from typing import Any

MAX_MEDIA = 16
MAX_MESSAGES = 4_096

#: One reading of a URL's host for everybody: no user, no backslash, no other port of the same name.
_URL = re.compile(
    r"https?://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::[0-9]{1,5})?(?:[/?#][!-~]*)?",
    # Letters of Unicode that are the same as those of ASCII but for their case are none.
    re.IGNORECASE | re.ASCII,
)

_TEXTS = frozenset(
    {"text", "input_text", "output_text", "refusal", "thinking", "reasoning_text", "summary_text"}
)
#: Kinds of parts with media, and the member that holds it.
_MEDIA = {
    "image_url": "image_url",
    "input_image": "image_url",
    "audio_url": "audio_url",
    "video_url": "video_url",
    "input_audio": "input_audio",
}
#: Members that make the engine take a part for media, whatever its type says. By a uuid it would take what another
#: client has sent.
_MEDIA_MEMBERS = frozenset(_MEDIA.values()) | {
    "image_embeds", "audio_embeds", "video_embeds", "prompt_embeds", "image_pil", "uuid", "file", "file_id",
    "input_file",
}  # fmt: skip

#: Items of a response's input; others belong to tools of OpenAI, or to state that nobody keeps here.
_ITEMS = frozenset({None, "message", "function_call", "function_call_output", "reasoning"})


def messages_check(hosts: Iterable[str]) -> Callable[[Any], str]:
    """Check of ``messages``.

    Args:
        hosts: hosts that media may come from.
    """
    allowed = frozenset(hosts)

    def check(value: Any) -> str:
        if type(value) is not list or len(value) > MAX_MESSAGES:
            return f"must be a list of at most {MAX_MESSAGES:,} messages"
        # Most contents are texts, which need no check.
        contents = [message.get("content") for message in value if type(message) is dict]
        return _check_contents(contents, allowed)

    return check


def input_check(hosts: Iterable[str]) -> Callable[[Any], str]:
    """Check of ``input`` of a response."""
    allowed = frozenset(hosts)

    def check(value: Any) -> str:
        if type(value) is str:
            return ""
        if type(value) is not list or len(value) > MAX_MESSAGES:
            return f"must be a text or a list of at most {MAX_MESSAGES:,} items"
        for item in value:
            kind = item.get("type") if type(item) is dict else ""
            if type(kind) is dict or type(kind) is list or kind not in _ITEMS:
                return (
                    f"can't hold an item of type {str(kind)[:40]!r}: send messages, calls and their results"
                )
        return _check_contents(
            (item.get(member) for item in value for member in ("content", "output")), allowed
        )

    return check


def check_url(url: Any, hosts: frozenset[str]) -> str:
    """Check one URL of media."""
    if type(url) is not str:
        return "must have a URL for each image, audio and video"
    if url[:5].lower() == "data:":
        return ""
    match = _URL.fullmatch(url)
    if match is None:
        return "has a URL of media that is not served: send data:…;base64,… or a plain https URL"
    if match[1].lower() in hosts:
        return ""
    listed = (
        f"the hosts that engine.mediaHosts lists are {', '.join(sorted(hosts))}"
        if hosts
        else "engine.mediaHosts lists no host"
    )
    return (
        f"has a URL on {match[1][:100]}, which the engine may not fetch from: send data:…;base64,… ({listed})"
    )


def _check_contents(contents: Iterable[Any], hosts: frozenset[str]) -> str:
    """Check of all media in these contents, which are texts or lists of parts."""
    count = 0
    for content in contents:
        if type(content) is list:
            found = _check_parts(content, hosts)
            if isinstance(found, str):
                return found
            count += found
    return "" if count <= MAX_MEDIA else f"must have at most {MAX_MEDIA} images, audios and videos together"


def _check_parts(parts: list[Any], hosts: frozenset[str]) -> str | int:
    """Number of media in the parts of a message, or what is wrong with one."""
    count = 0
    for part in parts:
        if type(part) is not dict:
            if type(part) is str:
                continue
            return "must have a content of text or of parts, which are objects"
        kind = part.get("type", "text")
        if type(kind) is not str:
            return "must have parts whose type is a text"
        members = _MEDIA_MEMBERS.intersection(part)
        if kind in _TEXTS and not members:
            continue
        member = _MEDIA.get(kind)
        if member is None or members != {member}:
            return _describe_part(kind, members)
        count += 1
        media = part[member]
        if kind == "input_audio":
            if type(media) is not dict or type(media.get("data")) is not str:
                return "must have input_audio as {data: …, format: …}"
        elif problem := check_url(media.get("url") if type(media) is dict else media, hosts):
            return problem
    return count


def _describe_part(kind: str, members: frozenset[str]) -> str:
    named = kind if not members else sorted(members)[0]
    return f"can't have a part with {named[:40]!r}: send text, image_url, audio_url, video_url or input_audio"
