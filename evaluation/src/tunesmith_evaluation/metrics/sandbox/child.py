"""Confined process, which runs code and then its tests, and reports their result.

It is started as a script, with a folder of its own as the working folder. One line of JSON each way: ``limits`` comes
first; ``{"ready": true}`` goes out; ``code`` comes; after it has run, ``{"ran": true}`` goes out; ``tests`` and
``proof`` come; if the tests pass, the proof goes out. The code can't know the proof before its tests run.
"""

import json
import os
import sys
from typing import Any

# The script's own folder, whose modules this process alone imports.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from confinement import Limits, confine  # type: ignore[import-not-found]

_LONGEST_REASON = 500


def main() -> None:
    """Run one answer."""
    results = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(nothing, 0)

    def say(**members: Any) -> None:
        os.write(results, json.dumps(members).encode() + b"\n")

    def read() -> dict[str, Any]:
        members: dict[str, Any] = json.loads(requests.readline())
        return members

    try:
        confine(_readable_paths(), os.getcwd(), Limits(**read()))
    except Exception as error:  # nothing may run without confinement, whatever is missing
        say(unavailable=f"{type(error).__name__}: {error}")
        return
    say(ready=True)
    space: dict[str, Any] = {"__name__": "answer", "__builtins__": __builtins__}
    try:
        exec(compile(read()["code"], "answer.py", "exec"), space)
        say(ran=True)
        check = read()
        exec(compile(check["tests"], "tests.py", "exec"), space)
    except BaseException as error:  # SystemExit, too, is no success
        say(failed=_describe(error))
    else:
        say(passed=check["proof"])
    # No clean-up of the answer's own may run: it could go on for ever.
    os._exit(0)


def _readable_paths() -> list[str]:
    """Files of Python and of the system's libraries."""
    paths = {sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.__file__)}
    system = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64")
    return [*paths, *system, "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom"]


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
    except BaseException:  # the answer's own exceptions may fail in turn
        return type(error).__name__[:_LONGEST_REASON]


if __name__ == "__main__":
    main()
