"""A server whose Redis misbehaves, with a proxy of ours between: in time, never wrong, and well again by itself."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from server.limits import MATERIALIZE_CONCURRENT_MAX
from tests.redis_proxy import RedisProxy, redis_proxy
from tests.redis_servers import RedisServer, free_port, installed_redis, poll_until, private_redis_tcp, redis_binary
from tests.server.callers import CALLERS, DRIVERS, ask, assert_refused, assert_right, calling, write
from tests.server.live import LiveServer, copy_repo, serving
from tests.server.test_slow_clients import connected

LEAVING = 50


@dataclass
class Scene:
    """A server, its Redis, and the proxy between them."""

    folder: Path
    binary: Path
    port: int
    proxy: RedisProxy
    live: LiveServer
    redis: RedisServer = field(init=False)
    _running: ExitStack = field(default_factory=ExitStack)

    def start_redis(self, *options: str) -> None:
        running = private_redis_tcp(self.folder, *options, port=self.port, binary=self.binary)
        self.redis = self._running.enter_context(running)

    def kill_redis(self) -> None:
        self._running.close()

    def is_loading(self) -> bool:
        with self.redis.client() as client:
            return bool(client.info("persistence")["loading"])

    def command(self, *words: object) -> object:
        with self.redis.client() as client:
            return client.execute_command(*words)


@pytest.fixture(scope="module", params=[redis_binary, installed_redis], ids=["embedded", "installed"])
def scene(request: pytest.FixtureRequest, applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, port = tmp_path_factory.mktemp("faults"), free_port()
    with redis_proxy(port) as proxy, serving(copy_repo(applied, folder / "repo", proxy.address)) as live:
        scene = Scene(folder, request.param(), port, proxy, live)
        scene.start_redis()
        try:
            drivers = list(range(1, DRIVERS + 1))
            poll_until(lambda: write(live, drivers).status_code == 200, what="the server finds its Redis")
            yield scene
        finally:
            scene.kill_redis()


Fault = Callable[[Scene], AbstractContextManager[None]]


def name_of(fault: Fault) -> str:
    return getattr(fault, "__name__", "")


# --- faults that lookups notice -----------------------------------------------------------------------


@contextmanager
def stalled_answers(scene: Scene) -> Iterator[None]:
    """Requests are taken and answers kept back; what was kept back comes when nobody waits for it any more."""
    scene.proxy.stall()
    try:
        yield
    finally:
        scene.proxy.pass_on()


@contextmanager
def stopped_process(scene: Scene) -> Iterator[None]:
    """The kernel accepts connections; Redis never answers."""
    scene.redis.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        scene.redis.process.send_signal(signal.SIGCONT)


@contextmanager
def trickling_answers(scene: Scene) -> Iterator[None]:
    """Each byte comes within the deadline of a read, the whole never does."""
    scene.proxy.trickle(0.2)
    try:
        yield
    finally:
        scene.proxy.pass_on()


@contextmanager
def answers_cut_in_the_middle(scene: Scene) -> Iterator[None]:
    """The connection is reset after the first bytes of each answer."""
    scene.proxy.cut_answers(after_bytes=9)
    try:
        yield
    finally:
        scene.proxy.pass_on()


@contextmanager
def killed_process(scene: Scene) -> Iterator[None]:
    """Redis is gone, and comes back with what it had saved."""
    scene.command("SAVE")
    scene.kill_redis()
    try:
        yield
    finally:
        scene.start_redis()


@contextmanager
def loading(scene: Scene) -> Iterator[None]:
    """Redis is back and still loads its file, as it does for minutes with gigabytes."""
    # It looks at its connections once every 2 MB that it loads: 50 of these keys.
    fill = "for n = 1, 3000 do redis.call('SET', 'fill' .. n, string.rep('x', 40000)) end"
    empty = "for n = 1, 3000 do redis.call('DEL', 'fill' .. n) end"
    scene.command("CONFIG", "SET", "rdbcompression", "no")
    scene.command("EVAL", fill, 0)
    scene.command("SAVE")
    scene.kill_redis()
    scene.start_redis("--key-load-delay", "2000")
    try:
        assert scene.is_loading()
        yield
        assert scene.is_loading(), "the fault was over before the test was"
    finally:
        # A server that loads takes no orders, so it is started anew as one whose file loads at once.
        scene.kill_redis()
        scene.start_redis()
        poll_until(lambda: not scene.is_loading(), what="the file is loaded")
        scene.command("EVAL", empty, 0)


@contextmanager
def replica_without_its_master(scene: Scene) -> Iterator[None]:
    """Redis has become a replica that answers nothing until it has found its master."""
    scene.command("CONFIG", "SET", "replica-serve-stale-data", "no")
    scene.command("REPLICAOF", "127.0.0.1", free_port())
    try:
        yield
    finally:
        scene.command("REPLICAOF", "NO", "ONE")


def assert_refused_in_time_and_served_again(scene: Scene, fault: Fault) -> None:
    with calling(scene.live) as callers:
        poll_until(callers.is_served_again(), what="lookups are answered before the fault")
        with fault(scene):
            # The deadline stands for all of it, also for callers who come while others wait.
            assert_refused(lambda: ask(scene.live, [1, 2, 3]))
            assert_refused(lambda: write(scene.live, [1]))
            assert scene.live.get("/ready").status_code == 503
            assert scene.live.get("/health").status_code == 200
            poll_until(lambda: callers.refused >= CALLERS, what="the callers are refused")
        poll_until(callers.is_served_again(), what="lookups are answered after the fault")
        assert_right(ask(scene.live, list(range(1, DRIVERS + 1))), list(range(1, DRIVERS + 1)))
        assert write(scene.live, [1]).status_code == 200
        assert scene.live.get("/ready").status_code == 200


@pytest.mark.parametrize("fault", [killed_process, loading, replica_without_its_master], ids=name_of)
def test_what_redis_cannot_serve_is_refused_in_time_and_service_resumes(scene: Scene, fault: Fault) -> None:
    assert_refused_in_time_and_served_again(scene, fault)


# Redis has no part in these, so one of the two is enough for every day.
@pytest.mark.parametrize(
    "scene",
    [pytest.param(redis_binary, id="embedded"), pytest.param(installed_redis, id="installed", marks=pytest.mark.long)],
    indirect=True,
    scope="module",
)
@pytest.mark.parametrize(
    "fault", [stalled_answers, stopped_process, trickling_answers, answers_cut_in_the_middle], ids=name_of
)
def test_what_does_not_come_through_is_refused_in_time_and_service_resumes(scene: Scene, fault: Fault) -> None:
    assert_refused_in_time_and_served_again(scene, fault)


def test_connections_that_are_reset_now_and_then_cost_no_answer(scene: Scene) -> None:
    with calling(scene.live) as callers:
        for _ in range(10):
            poll_until(callers.is_served_again(), what="lookups go on")
            scene.proxy.reset_all()
        poll_until(callers.is_served_again(), what="lookups go on")
    assert callers.refused == 0


# --- faults that only writes notice -------------------------------------------------------------------


@contextmanager
def full_memory(scene: Scene) -> Iterator[None]:
    scene.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    scene.command("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        scene.command("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def replica(scene: Scene) -> Iterator[None]:
    scene.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
    scene.command("REPLICAOF", "127.0.0.1", free_port())
    try:
        yield
    finally:
        scene.command("REPLICAOF", "NO", "ONE")


@contextmanager
def unwritable_file(scene: Scene) -> Iterator[None]:
    """Redis cannot save, and refuses writes rather than lose them later."""
    in_the_way = scene.folder / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    (in_the_way / "something").mkdir(parents=True)
    scene.command("CONFIG", "SET", "save", "3600 100000")
    try:
        with scene.redis.client() as client:
            client.bgsave()
            poll_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="the save fails")
        yield
    finally:
        scene.command("CONFIG", "SET", "save", "")
        shutil.rmtree(in_the_way)


@pytest.mark.parametrize("fault", [full_memory, replica, unwritable_file], ids=name_of)
def test_reads_go_on_while_writes_are_refused(scene: Scene, fault: Fault) -> None:
    with calling(scene.live) as callers:
        with fault(scene):
            poll_until(callers.is_served_again(), what="lookups go on")
            assert_refused(lambda: write(scene.live, [1]))
            # A push too large for one script call: some of it could be there, and each row is whole or as it was.
            assert_refused(lambda: write(scene.live, list(range(1, DRIVERS + 1))))
            assert_right(ask(scene.live, [1, 2, 3]), [1, 2, 3])
            assert scene.live.get("/ready").status_code == 200
        assert write(scene.live, [1]).status_code == 200
    assert callers.refused == 0


# --- clients that leave while Redis is silent ---------------------------------------------------------


def raw_request(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = "HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"POST {path} {head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def clients_of(live: LiveServer) -> list[object]:
    """Returns the connections of a server's clients; those to its Redis are none."""
    port = int(live.url.rpartition(":")[2])
    found = psutil.Process(live.process.pid).net_connections("tcp")
    return [each for each in found if each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED]


@pytest.mark.parametrize("scene", [pytest.param(redis_binary, id="embedded")], indirect=True, scope="module")
def test_clients_that_leave_while_redis_is_silent_cost_nothing(scene: Scene) -> None:
    entities = {"driver_id": [1, 2, 3], "city": ["york"] * 3}
    asked = raw_request("/get-online-features", {"features": ["areas:tips"], "entities": entities})
    interval = {"start_ts": "2000-01-01", "end_ts": "2100-01-01", "feature_views": ["driver_stats"]}
    started = raw_request("/materialize", interval)
    # The connections that a server keeps are there before they are counted: one for lookups, one for pushes.
    with calling(scene.live) as callers:
        poll_until(callers.is_served_again(), what="lookups and pushes are answered")
    with scene.redis.client() as redis:
        at_redis = redis.info("clients")["connected_clients"]
        # A materialization connects by itself, and hangs up at its end.
        assert scene.live.post("/materialize", interval).status_code == 200
        poll_until(lambda: redis.info("clients")["connected_clients"] <= at_redis, what="a run has hung up")
        scene.proxy.stall()
        with ExitStack() as stack:
            for request in [asked] * LEAVING + [started] * MATERIALIZE_CONCURRENT_MAX:
                stack.enter_context(connected(scene.live)).sendall(request)
            poll_until(lambda: scene.proxy.kept_back, what="Redis is asked")
        scene.proxy.pass_on()
        with calling(scene.live) as callers:
            poll_until(callers.is_served_again(), what="others are answered")
        # A run whose caller has left ends as it would have; then its place is free again.
        poll_until(lambda: scene.live.post("/materialize", interval).status_code == 200, what="a place is free")
        poll_until(lambda: not clients_of(scene.live), what="the connections are given back")
        poll_until(lambda: redis.info("clients")["connected_clients"] <= at_redis, what="so are those to Redis")
