"""Concurrent calls in a thread pool of limited size."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

Call = Callable[[], None]


def call_all(calls: Iterator[Call], concurrency: int, on_answer: Call) -> None:
    """Make all calls, some at a time; ``on_answer`` is called in this thread after each.

    After a failure no further call is started; the error, or that of ``on_answer``, is raised when all started calls
    have ended.
    """
    failures: list[Exception] = []
    with ThreadPoolExecutor(concurrency) as pool:
        for future in _completed_futures(pool, calls, concurrency, lambda: not failures):
            try:
                future.result()
                on_answer()
            except Exception as error:  # raised when what is on its way has come in
                failures.append(error)
    if failures:
        raise failures[0]


def _completed_futures(
    pool: ThreadPoolExecutor, calls: Iterator[Call], concurrency: int, wanted: Callable[[], bool]
) -> Iterator[Future[None]]:
    """Futures in order of completion; starts no more calls once ``wanted`` is false."""
    running: set[Future[None]] = set()
    while True:
        while wanted() and len(running) < concurrency and (call := next(calls, None)):
            running.add(pool.submit(call))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from done
