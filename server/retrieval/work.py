"""What a child does with one order: parse the body, retrieve, and send the answer in the form that was asked for."""

import contextlib
import mmap
import os
import traceback
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from server.errors import feast_status_of
from server.retrieval.bodies import request_of
from server.retrieval.memory import bounded
from server.retrieval.messages import Kind, Order, Refusal, Task, pieces, say
from server.retrieval.places import give_back, make_folder
from server.tables import FORMATS, batch_rows
from store import errors
from store.errors import LarderError, OutOfSpace
from store.handed_over import service_of_one_retrieval, spill_base
from store.kernel import as_of, window_search
from store.offline.jobs import LarderRetrievalJob
from store.snapshot import load_config


class Workshop:
    """What all children of a zygote have in common: the repo and its settings, as they were when it started."""

    def __init__(self, repo_path: Path) -> None:
        self._repo_path = repo_path
        self._config = load_config(repo_path)
        as_of.prepare()
        window_search.prepare()

    def work(self, task: Task) -> None:
        """Does one order and says how it went; changes the settings, so it is for one call in a process."""
        assert task.place is not None, "a retrieval has a place"
        try:
            self._answer(task)
            last, content = Kind.END, b""
        except ConnectionError:
            # Nobody reads any more, so there is nobody to tell.
            give_back(task.place)
            return
        except Exception as error:  # noqa: BLE001 - the edge of a process: the worker answers, logs and counts
            last, content = Kind.REFUSAL, msgspec.json.encode(refusal_of(error))
        # Before the last word: whoever hears it may ask again at once, and finds a place.
        give_back(task.place)
        with contextlib.suppress(ConnectionError):
            say(task.answer, last, content)

    def _answer(self, task: Task) -> None:
        assert isinstance(task.order, Order)
        assert task.place is not None
        assert task.body is not None
        form = next(form for form in FORMATS if form.media_type == task.order.accept)
        with bounded():
            request = request_of(task.order, _content(task.body))
        rows = request.entity_rows
        form.check_rows(rows.num_rows)
        say(task.answer, Kind.ACCEPTED)
        # Read through the descriptor, as the store reads registries from files.
        registry = None if task.registry is None else Path(f"/proc/self/fd/{task.registry}")
        folder = make_folder(task.place, spill_base(self._config))
        service = service_of_one_retrieval(self._repo_path, self._config, registry, folder)
        job = service.retrieve(request)
        features = job.metadata.features if job.metadata else ()
        batches = _batches(job, batch_rows(rows.num_columns + len(features)))
        for chunk in form.encode(batches, rows.num_rows):
            for piece in pieces(chunk):
                say(task.answer, Kind.CHUNK, piece)


def _content(descriptor: int) -> mmap.mmap | bytes:
    """Returns a body without a copy."""
    size_bytes = os.fstat(descriptor).st_size
    return mmap.mmap(descriptor, size_bytes, prot=mmap.PROT_READ) if size_bytes else b""


def _batches(job: Any, rows_max: int) -> Iterator[pa.RecordBatch]:
    if isinstance(job, LarderRetrievalJob):
        return job.to_arrow_batches(rows_max)
    # Another offline store than ours has no batches to give.
    table = job.to_arrow()
    return iter(table.to_batches(max_chunksize=rows_max) or [pa.RecordBatch.from_pylist([], schema=table.schema)])


def refusal_of(error: Exception) -> Refusal:
    """Returns what is said of an error to the worker, which makes an error of its own from it."""
    if isinstance(error, LarderError):
        name = next(ancestor.__name__ for ancestor in type(error).__mro__ if hasattr(errors, ancestor.__name__))
        return Refusal(str(error), error=name)
    if isinstance(error, MemoryError):
        message = "the retrieval ran out of memory; ask for fewer rows or features at once"
        return Refusal(message, error=OutOfSpace.__name__)
    status = feast_status_of(error)
    if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Refusal(str(error), status=status)
    return Refusal(f"{type(error).__name__}: {error}", traceback="".join(traceback.format_exception(error)))
