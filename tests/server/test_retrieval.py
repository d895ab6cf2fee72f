"""Retrievals as processes: who may run, what ends them, and what is left behind."""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from server.limits import HISTORICAL_BATCH_ROWS, RETRIEVAL_NICENESS, RETRIEVAL_OOM_SCORE
from server.policy import ARROW_STREAM, CSV, JSON, PARQUET
from server.retrieval.places import Places
from store.limits import HISTORICAL_CONCURRENT_MAX
from tests.redis_servers import poll_until
from tests.server.live import LiveServer, copy_repo, serving
from tests.server.retrieval_server import (
    ASK,
    OBEDIENT,
    ask,
    connection,
    entity_rows,
    entity_table,
    free_places,
    processes,
    request_bytes,
    waiting_retrieval,
    work_folders,
    zygotes,
)

QUERY = "&".join(f"features={feature}" for feature in OBEDIENT)
MANY_ROWS = HISTORICAL_BATCH_ROWS + 1


@pytest.fixture(scope="module")
def spill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spill")


@pytest.fixture(scope="module")
def shared(obedient_repo: Path, spill: Path) -> Iterator[LiveServer]:
    with serving(obedient_repo, environ={"TMPDIR": str(spill)}) as live:
        yield live


@pytest.fixture
def live(shared: LiveServer, obedient_repo: Path, spill: Path) -> Iterator[LiveServer]:
    """A server on which nothing is left of a retrieval, before a test and after it."""
    yield shared
    poll_until(lambda: not processes(shared), what="the processes are gone")
    poll_until(lambda: free_places(obedient_repo) == HISTORICAL_CONCURRENT_MAX, what="all places are free")
    assert work_folders(spill) == []


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def post_table(live: LiveServer, table: pa.Table, accept: str = ARROW_STREAM) -> httpx.Response:
    headers = {"Content-Type": ARROW_STREAM, "Accept": accept}
    return live.post(f"{ASK}?{QUERY}", content=arrow(table), headers=headers)


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [JSON, ARROW_STREAM, PARQUET, CSV])
@pytest.mark.parametrize("content_type", [JSON, ARROW_STREAM, PARQUET])
def test_every_body_is_answered_in_every_form(live: LiveServer, content_type: str, accept: str) -> None:
    headers = {"Accept": accept, "Content-Type": content_type}
    if content_type == JSON:
        answer = live.post(ASK, {"entities": entity_rows(["a", ""]), "features": OBEDIENT}, headers={"Accept": accept})
    else:
        content = (arrow if content_type == ARROW_STREAM else parquet)(entity_table(["a", ""]))
        answer = live.post(f"{ASK}?{QUERY}", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == accept
    content = io.BytesIO(answer.content)
    columns = {
        JSON: lambda: answer.json()["columns"],
        ARROW_STREAM: lambda: pa.ipc.open_stream(content).read_all().to_pydict(),
        PARQUET: lambda: pq.read_table(content).to_pydict(),
        CSV: lambda: pa_csv.read_csv(content).to_pydict(),
    }[accept]()
    assert list(columns) == ["driver_id", "event_timestamp", "order", "rate", "done"]
    assert columns["driver_id"] == [1, 1]
    assert columns["order"] == columns["done"] == ["a", ""]
    assert columns["rate"] == [0.5, 0.5]


def test_a_body_that_decodes_to_more_than_its_bound_is_refused(live: LiveServer) -> None:
    # 5 million rows of one text of 1,000 letters: 5 GB, and less than 1 MB as a file.
    text = pa.DictionaryArray.from_arrays(_zeros(5_000_000), pa.array(["x" * 1_000]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"order": text}), sink, store_schema=False)
    assert len(sink.getvalue()) < 1_000_000
    answer = live.post(f"{ASK}?{QUERY}", content=sink.getvalue(), headers={"Content-Type": PARQUET})
    assert answer.status_code == 413, answer.text
    assert "decoded bytes" in answer.json()["detail"]


def _zeros(count: int) -> pa.Array:
    return pa.Array.from_buffers(pa.int8(), count, [None, pa.py_buffer(bytes(count))])


@pytest.mark.parametrize("instant_us", [2**62, -(2**62)])
def test_an_instant_beyond_the_calendar_is_refused(live: LiveServer, instant_us: int) -> None:
    times = pa.array([instant_us], pa.timestamp("us", "UTC"))
    table = entity_table(["a"]).set_column(1, "event_timestamp", times)
    answer = post_table(live, table)
    assert answer.status_code == 422
    assert "column 'event_timestamp', row 0" in answer.json()["detail"]


# --- places ---------------------------------------------------------------------------------------


def test_retrievals_beyond_the_bound_are_told_to_come_again(
    live: LiveServer, obedient_repo: Path, tmp_path: Path
) -> None:
    with waiting_retrieval(live, tmp_path / "first"), waiting_retrieval(live, tmp_path / "second"):
        answer = ask(live)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "2 retrievals" in answer.json()["detail"]
    poll_until(lambda: free_places(obedient_repo) == HISTORICAL_CONCURRENT_MAX, what="all places are free")
    assert ask(live).status_code == 200


def test_the_bound_holds_over_all_processes_that_serve_the_repo(live: LiveServer, obedient_repo: Path) -> None:
    places = Places(obedient_repo / "data" / "retrievals", HISTORICAL_CONCURRENT_MAX)
    taken = [places.take() for _ in range(places.count)]
    assert ask(live).status_code == 503
    os.close(taken.pop())
    assert ask(live).status_code == 200
    os.close(taken.pop())


def test_a_place_is_free_as_soon_as_the_answer_is_whole(live: LiveServer, obedient_repo: Path) -> None:
    places = Places(obedient_repo / "data" / "retrievals", HISTORICAL_CONCURRENT_MAX)
    other = places.take()
    statuses = [ask(live).status_code for _ in range(10)]
    refusals = [live.post(ASK, {"entities": {}, "features": OBEDIENT}).status_code for _ in range(10)]
    os.close(other)
    assert statuses == [200] * 10
    assert refusals == [422] * 10


def test_slow_senders_hold_no_place(live: LiveServer) -> None:
    with connection(live) as first, connection(live) as second, connection(live) as third:
        for sender in (first, second, third):
            sender.sendall(request_bytes(["nothing"])[:-10])
        assert ask(live).status_code == 200


def test_lookups_are_answered_beside_retrievals(live: LiveServer, tmp_path: Path) -> None:
    with waiting_retrieval(live, tmp_path / "first"), waiting_retrieval(live, tmp_path / "second"):
        assert live.lookup({"driver_id": [1]}, "driver_stats:rate").status_code == 200


def test_a_retrieval_runs_with_lower_priority_and_is_the_first_to_go(live: LiveServer, tmp_path: Path) -> None:
    server = psutil.Process(live.process.pid)
    with waiting_retrieval(live, tmp_path / "fifo"):
        (process,) = processes(live)
        poll_until(lambda: process.nice() == server.nice() + RETRIEVAL_NICENESS, what="it is nice")
        assert os.getsid(process.pid) != os.getsid(server.pid)
        score = Path(f"/proc/{process.pid}/oom_score_adj")
        poll_until(lambda: int(score.read_text()) == RETRIEVAL_OOM_SCORE, what="it goes first")


# --- ends -----------------------------------------------------------------------------------------


def test_a_client_that_leaves_before_the_first_byte_ends_its_retrieval(
    live: LiveServer, obedient_repo: Path, spill: Path, tmp_path: Path
) -> None:
    with waiting_retrieval(live, tmp_path / "fifo"):
        poll_until(lambda: work_folders(spill), what="the retrieval has its folder")
        assert free_places(obedient_repo) == HISTORICAL_CONCURRENT_MAX - 1
    poll_until(lambda: not processes(live), what="the process is gone")
    poll_until(lambda: not work_folders(spill), what="the folder is gone")


def test_a_client_that_leaves_in_the_middle_of_its_answer_ends_its_retrieval(live: LiveServer, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    table = entity_table(["x" * 100] * HISTORICAL_BATCH_ROWS + [f"read {fifo}"])
    headers = {"Content-Type": ARROW_STREAM, "Accept": ARROW_STREAM}
    with live.client.stream("POST", f"{live.url}{ASK}?{QUERY}", content=arrow(table), headers=headers) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_raw())
        assert len(processes(live)) == 1
    poll_until(lambda: not processes(live), what="the process is gone")


def test_a_process_that_is_killed_before_its_answer_is_503(live: LiveServer) -> None:
    answer = ask(live, f"die {signal.SIGKILL.value}")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "memory" in answer.json()["detail"]
    assert ask(live).status_code == 200


@pytest.mark.parametrize("accept", [ARROW_STREAM, PARQUET, CSV])
@pytest.mark.parametrize("last", [f"die {signal.SIGKILL.value}", "fail on purpose"])
def test_a_failure_after_the_first_chunk_breaks_the_transfer(live: LiveServer, accept: str, last: str) -> None:
    table = entity_table(["nothing"] * HISTORICAL_BATCH_ROWS + [last])
    with pytest.raises(httpx.RemoteProtocolError):
        post_table(live, table, accept)
    # The server tells of it first, and uvicorn, to which it is passed on, after that.
    poll_until(lambda: "Exception in ASGI application" in live.log(), what="the failure is in the log twice")
    assert "request failed" in live.log().partition("Exception in ASGI application")[0]
    # It is meant to be there, and nothing else is.
    live.lines.clear()


def test_a_computed_feature_that_fails_is_refused_by_name(live: LiveServer) -> None:
    answer = ask(live, "fail on-purpose")
    assert answer.status_code == 422
    assert "obedient" in answer.json()["detail"]


@pytest.mark.long
def test_a_warm_process_that_was_killed_is_replaced(live: LiveServer, tmp_path: Path) -> None:
    with waiting_retrieval(live, tmp_path / "fifo") as waiting:
        (zygote,) = zygotes(live)
        zygote.kill()
        assert waiting.recv(100).startswith(b"HTTP/1.1 503 ")
    assert ask(live).status_code == 200
    assert zygotes(live) != [zygote]


def test_a_registry_that_is_torn_is_served_as_it_was(live: LiveServer, obedient_repo: Path) -> None:
    registry = obedient_repo / "data" / "registry.db"
    whole = registry.read_bytes()
    try:
        registry.write_bytes(whole[: len(whole) // 2])
        poll_until(lambda: live.get("/ready").json()["registry"]["problem"], what="the server notices")
        assert ask(live).status_code == 200
    finally:
        registry.write_bytes(whole)
    poll_until(lambda: not live.get("/ready").json()["registry"]["problem"], what="the server notices the repair")


def test_the_server_holds_little_of_an_answer(live: LiveServer) -> None:
    # About 160 MB: an answer that the server gathered would show in its peak.
    table = entity_table(["x" * 500] * (2 * HISTORICAL_BATCH_ROWS))
    headers = {"Content-Type": ARROW_STREAM, "Accept": ARROW_STREAM}
    text = table.column("order").combine_chunks().dictionary_encode()
    body = arrow(table.set_column(2, "order", text))
    assert len(body) < 10_000_000
    assert ask(live).status_code == 200
    before, size = _peak_bytes(live), 0
    with live.client.stream("POST", f"{live.url}{ASK}?{QUERY}", content=body, headers=headers) as answer:
        for chunk in answer.iter_raw():
            size += len(chunk)
    assert size > 2 * 500 * 2 * HISTORICAL_BATCH_ROWS
    assert _peak_bytes(live) - before < 50_000_000


def _peak_bytes(live: LiveServer) -> int:
    status = Path(f"/proc/{live.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def test_nothing_outlives_a_server_that_is_killed(obedient_repo: Path, tmp_path: Path) -> None:
    repo = copy_repo(obedient_repo, tmp_path / "repo", "embedded")
    spill = tmp_path / "spill"
    spill.mkdir()
    killed = serving(repo, environ={"TMPDIR": str(spill)}, exit_code=-signal.SIGKILL)
    with killed as live, waiting_retrieval(live, tmp_path / "fifo"):
        poll_until(lambda: work_folders(spill), what="the retrieval has its folder")
        everybody = [*zygotes(live), *processes(live)]
        assert len(everybody) == 2
        live.process.kill()
        poll_until(lambda: not any(process.is_running() for process in everybody), what="both are gone")
    assert free_places(repo) == HISTORICAL_CONCURRENT_MAX
    assert work_folders(spill) == []


@pytest.mark.long
def test_a_server_that_stops_ends_its_retrievals(obedient_repo: Path, tmp_path: Path) -> None:
    repo = copy_repo(obedient_repo, tmp_path / "repo", "embedded")
    with serving(repo) as live, waiting_retrieval(live, tmp_path / "fifo"):
        everybody = [*zygotes(live), *processes(live)]
        live.process.send_signal(signal.SIGTERM)
        poll_until(lambda: not any(process.is_running() for process in everybody), 60, "both are gone")
        live.process.wait(60)
    assert free_places(repo) == HISTORICAL_CONCURRENT_MAX
