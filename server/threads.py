"""Long work beside the event loop, and the bound on how much of it runs at once."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from starlette.exceptions import HTTPException

from server.limits import BUSY_RETRY_SECONDS

Answer = TypeVar("Answer")
WORK_THREAD = "larder-work"


async def in_thread(work: Callable[[], Answer]) -> Answer:
    """Runs blocking work in a thread of its own and returns its result.

    The thread is a daemon: a process that stops after its grace does not wait for a materialization of an hour,
    which the next run takes up again.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Answer] = loop.create_future()

    def settle(result: Answer | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: whoever awaits it gets the error
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=WORK_THREAD, daemon=True).start()
    return await outcome


def is_work_running() -> bool:
    """Whether a thread of `in_thread` is still at work in this process."""
    return any(thread.name == WORK_THREAD for thread in threading.enumerate())


class Slots:
    """A number of places for work of one kind; who finds none is told to come again."""

    def __init__(self, what: str, count: int) -> None:
        self.what = what
        self.count = count
        self._free = count

    def take(self) -> None:
        """Takes a place.

        Raises:
            HTTPException: 503 with Retry-After, none is free.
        """
        if not self._free:
            raise HTTPException(
                503,
                f"{self.count} {self.what} are running already, which is all that one worker takes at once; "
                f"try again in {BUSY_RETRY_SECONDS} seconds",
                {"Retry-After": str(BUSY_RETRY_SECONDS)},
            )
        self._free -= 1

    def give_back(self) -> None:
        """Gives a place back."""
        assert self._free < self.count, "a place was given back twice"
        self._free += 1
