"""Memory of a side under load for long: clients that come and go, and ever new users."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from load import PATH, request_body, run_wrk
from sides import KEY, OTHER_KEYS, Side, resident_mib

CONNECTIONS = 64
#: Requests after which a client leaves and another one comes.
REQUESTS_OF_CLIENT = 20
USERS = 10**9
#: Load before the first look: memory is taken for the first time.
WARM_SECONDS = 10
LOOKS = 20

#: A user, and a key, by chance.
_SCRIPT = """
wrk.method = "POST"
local keys = {%s}
local n = 0
function request()
  n = n + 1
  local headers = {["content-type"] = "application/json"}
  headers["authorization"] = "Bearer " .. keys[math.random(#keys)]
  if n %% %d == 0 then headers["connection"] = "close" end
  return wrk.format(nil, "%s", headers, (%s):gsub("USER", math.random(%d)))
end
function delay() return %d end
"""


def soak(side: Side, seconds: float, folder: Path, most_per_second: int = 0) -> dict[str, Any]:
    """Resident memory over the time, in MiB, and how much it grew in the second half.

    `most_per_second` bounds the load; 0 is as much as the side takes.
    """
    pause_ms = CONNECTIONS * 1000 // most_per_second if most_per_second else 0
    script = folder / "soak.lua"
    keys = ", ".join(f'"{key}"' for key in (KEY, *OTHER_KEYS))
    body = json.dumps(json.dumps(request_body(side.model, "user-USER")))
    script.write_text(_SCRIPT % (keys, REQUESTS_OF_CLIENT, PATH, body, USERS, pause_ms))
    run_wrk(side.url, script, CONNECTIONS, WARM_SECONDS)
    looks: list[float] = [resident_mib(side.pid)]
    watcher = threading.Thread(target=_watch, args=(side.pid, seconds, looks))
    watcher.start()
    figures = run_wrk(side.url, script, CONNECTIONS, seconds)
    watcher.join()
    requests = figures["requestsPerSecond"] * seconds
    grown = looks[-1] - looks[len(looks) // 2]
    return {
        "seconds": seconds,
        "requests": round(requests),
        "requestsPerSecond": figures["requestsPerSecond"],
        "residentMiB": looks,
        "startMiB": looks[0],
        "endMiB": looks[-1],
        "grownInSecondHalfMiB": round(grown, 1),
    }


def _watch(pid: int, seconds: float, looks: list[float]) -> None:
    for _ in range(LOOKS):
        time.sleep(seconds / LOOKS)
        looks.append(resident_mib(pid))
