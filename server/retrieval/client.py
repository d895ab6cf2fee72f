"""A worker's side of retrievals: it keeps a zygote, gives it orders, and reads what their children answer."""

import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.exceptions import HTTPException

from server.limits import BUSY_RETRY_SECONDS, HISTORICAL_BODIES_BYTES_MAX, ZYGOTE_END_SECONDS
from server.retrieval.messages import MESSAGE_BYTES_MAX, Death, Kind, Order, PagesOrder, Refusal
from server.retrieval.places import Places
from server.retrieval.spool import Body, Spool
from store import errors
from store.errors import BadBody
from store.limits import HISTORICAL_CONCURRENT_MAX

if TYPE_CHECKING:
    from store.service import StoreService

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_KILLED = 9
# OpenBLAS and the allocator of pyarrow would start threads, which a process that forks must not have.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


class RetrievalFailed(Exception):
    """A retrieval that failed for a reason that nobody foresaw, or after the answer had begun."""


class RemoteTraceback(Exception):
    """The traceback of a child, as text; the cause of a `RetrievalFailed`."""


class Retrieval:
    """A retrieval under way in a process of its own; closing it kills that process."""

    def __init__(self, answer: socket.socket) -> None:
        answer.setblocking(False)
        self._answer = answer
        self._is_accepted = False
        self._has_begun = False

    async def next_chunk(self) -> bytes | None:
        """Returns the next bytes of the answer, or None when it is whole.

        Raises:
            LarderError, HTTPException: refused, before any chunk.
            RetrievalFailed: it failed; the answer is not whole.
        """
        loop = asyncio.get_running_loop()
        while True:
            message = await loop.sock_recv(self._answer, MESSAGE_BYTES_MAX)
            kind = Kind(message[0]) if message else Kind.DIED
            if kind == Kind.ACCEPTED:
                self._is_accepted = True
                continue
            if kind == Kind.CHUNK:
                self._has_begun = True
                return message[1:]
            if kind == Kind.END:
                return None
            if kind == Kind.REFUSAL:
                raise self._refused(msgspec.json.decode(message[1:], type=Refusal))
            raise self._died(msgspec.json.decode(message[1:], type=Death) if message else None)

    def close(self) -> None:
        """Kills the process if it still runs, and frees its place."""
        self._answer.close()

    def _refused(self, refusal: Refusal) -> Exception:
        if refusal.traceback or self._has_begun:
            failed = RetrievalFailed(refusal.message)
            failed.__cause__ = RemoteTraceback(refusal.traceback) if refusal.traceback else None
            return failed
        if refusal.error:
            error: type[errors.LarderError] = getattr(errors, refusal.error)
            return error(refusal.message)
        return HTTPException(refusal.status, refusal.message)

    def _died(self, death: Death | None) -> Exception:
        how = "without a word"
        if death is not None:
            how = f"by signal {death.signal}" if death.signal else f"with exit code {death.exit_code}"
        if self._has_begun:
            return RetrievalFailed(f"the retrieval's process ended {how} in the middle of its answer")
        if death is not None and death.signal and death.signal != _KILLED and not self._is_accepted:
            return BadBody(
                f"body: the process that read it ended {how}: it is damaged, or takes more memory than a body may; "
                "write it anew"
            )
        reason = ", most likely because the machine ran out of memory" if death and death.signal == _KILLED else ""
        return HTTPException(
            503,
            f"the retrieval's process ended {how}{reason}; ask for fewer rows or features at once, or set a "
            "`memory_limit` under offline_store in feature_store.yaml",
            {"Retry-After": str(BUSY_RETRY_SECONDS)},
        )


class Retrievals:
    """The retrievals of one worker; `start` at its beginning, `close` at its end."""

    def __init__(
        self,
        service: "StoreService",
        places: Places | None = None,
        bodies_bytes_max: int = HISTORICAL_BODIES_BYTES_MAX,
    ) -> None:
        self._service = service
        self._places = places
        self._zygote: _ZygoteHandle | None = None
        self._registry: tuple[str, int] | None = None
        self.spool = Spool(bodies_bytes_max)

    @property
    def places(self) -> Places:
        """The places that retrievals take."""
        if self._places is None:
            self._places = Places.beside_the_data_of(self._service.repo_path, HISTORICAL_CONCURRENT_MAX)
        return self._places

    def start(self) -> None:
        """Starts a zygote, which loads Feast in the background."""
        self._zygote = _ZygoteHandle(self._service.repo_path, self.places.folder)

    async def close(self) -> None:
        """Ends all retrievals of this worker."""
        if self._zygote is not None:
            await asyncio.to_thread(self._zygote.close)
        if self._registry is not None:
            os.close(self._registry[1])
        self._zygote = self._registry = None

    def refuse_if_full(self) -> None:
        """Refuses a request before its body is read.

        Raises:
            HTTPException: 503 with Retry-After, all places are taken.
        """
        if self.places.is_full():
            raise self._full({"Connection": "close"})

    def begin(self, order: Order, body: Body) -> Retrieval:
        """Gives an order to the zygote; returns the retrieval, which the caller closes.

        Raises:
            HTTPException: 503 with Retry-After, all places are taken.
            RegistryUnavailable: there is no registry yet.
        """
        registry = self._registry_descriptor()
        place = self.places.take()
        if place is None:
            raise self._full({})
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            descriptors = [theirs.fileno(), place, body.descriptor, *([] if registry is None else [registry])]
            self._send(msgspec.json.encode(order), descriptors)
        except BaseException:
            ours.close()
            raise
        finally:
            # The child holds them from here on: when it ends, the place is free and the answer's end is seen.
            theirs.close()
            os.close(place)
        return Retrieval(ours)

    def begin_pages(self) -> socket.socket:
        """Has a process for pages forked; returns the socket to it, which ends that process when it is closed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._send(msgspec.json.encode(PagesOrder()), [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return ours

    def _full(self, headers: dict[str, str]) -> HTTPException:
        return HTTPException(
            503,
            f"{self.places.count} retrievals are running already, which is all that this feature repo takes at once; "
            f"try again in {BUSY_RETRY_SECONDS} seconds",
            {"Retry-After": str(BUSY_RETRY_SECONDS), **headers},
        )

    def _send(self, order: bytes, descriptors: list[int]) -> None:
        if self._zygote is None:
            self.start()
        assert self._zygote is not None
        try:
            self._zygote.send(order, descriptors)
        except ConnectionError:
            # The zygote was killed: the next one takes the order.
            self._zygote.close()
            self.start()
            self._zygote.send(order, descriptors)

    def _registry_descriptor(self) -> int | None:
        """Returns a descriptor of the registry that is served now; each version is written out once."""
        version = self._service.registry_version
        if self._registry is None or self._registry[0] != version:
            content = self._service.registry_copy()
            if content is None:
                return None
            descriptor = os.memfd_create("larder-registry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(content)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            if self._registry is not None:
                os.close(self._registry[1])
            self._registry = version, descriptor
        return self._registry[1]


class _ZygoteHandle:
    """A zygote and the socket to it."""

    def __init__(self, repo_path: Path, places_folder: Path) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        descriptor = theirs.fileno()
        # -P: what lies in the current folder must not be taken for a module.
        command = [sys.executable, "-P", "-m", "server.retrieval.zygote"]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(descriptor), str(repo_path), str(places_folder)],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, order: bytes, descriptors: list[int]) -> None:
        """Sends an order.

        Raises:
            ConnectionError: the zygote is gone.
        """
        socket.send_fds(self._control, [order], descriptors)

    def close(self) -> None:
        """Ends the zygote and its children; one that is still loading has none, and is killed."""
        try:
            # What it says when it is loaded has not been read before.
            self._control.recv(MESSAGE_BYTES_MAX)
            is_loading = False
        except BlockingIOError:
            is_loading = True
        except ConnectionError:
            is_loading = False
        self._control.close()
        if is_loading:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ZYGOTE_END_SECONDS)
            return
        self._process.kill()
        self._process.wait()
