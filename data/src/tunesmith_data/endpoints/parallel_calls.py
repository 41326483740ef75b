"""Calls that wait for others, a few at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

Call = Callable[[], None]


def call_all(calls: Iterator[Call], concurrency: int, ended: Call) -> None:
    """Make all calls, so many at a time; ``ended`` is called in this thread after each.

    After the first that fails none is begun; its error, or that of ``ended``, is raised once all that have begun are
    over.
    """
    failures: list[Exception] = []
    with ThreadPoolExecutor(concurrency) as pool:
        for future in _as_they_end(pool, calls, concurrency, lambda: not failures):
            try:
                future.result()
                ended()
            except Exception as error:  # raised when what is on its way has come in
                failures.append(error)
    if failures:
        raise failures[0]


def _as_they_end(
    pool: ThreadPoolExecutor, calls: Iterator[Call], concurrency: int, wanted: Callable[[], bool]
) -> Iterator[Future[None]]:
    """Begin a few at a time, and no more once they are not wanted; what has begun is waited for."""
    running: set[Future[None]] = set()
    while True:
        while wanted() and len(running) < concurrency and (call := next(calls, None)):
            running.add(pool.submit(call))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from done
