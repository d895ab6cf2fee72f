"""A server whose Redis misbehaves, with a proxy of ours between them: in time, never wrong, and well again by itself.

Every driver's tips are told by its number, so that an answer to somebody else's request would show.
"""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import pytest

from store.limits import LOOKUP_SECONDS_MAX
from tests.redis_proxy import RedisProxy, redis_proxy
from tests.redis_servers import (
    RedisServer,
    free_port,
    installed_redis,
    poll_until,
    private_cluster,
    private_redis_tcp,
    private_sentinel,
    redis_binary,
)
from tests.server.live import LiveServer, copy_repo, serving

# Above the deadline of a lookup, for a machine that does other things as well.
DEADLINE_SECONDS = LOOKUP_SECONDS_MAX + 1.0
DRIVERS = 400
CALLERS = 6
AT = "2020-01-01T00:00:00Z"


def tips_of(driver: int) -> float:
    return driver * 1.5


def ask(live: LiveServer, drivers: list[int]) -> httpx.Response:
    return live.lookup({"driver_id": drivers, "city": ["york"] * len(drivers)}, "areas:tips")


def write(live: LiveServer, drivers: list[int]) -> httpx.Response:
    columns = {"driver_id": drivers, "city": ["york"] * len(drivers), "tips": [tips_of(d) for d in drivers]}
    rows = {**columns, "event_timestamp": [AT] * len(drivers)}
    return live.post("/write-to-online-store", {"feature_view_name": "areas", "df": rows})


def assert_right(answer: httpx.Response, drivers: list[int]) -> None:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    results = dict(zip(body["metadata"]["feature_names"], body["results"], strict=True))
    tips = results["tips"]
    assert (results["driver_id"]["values"], tips["values"]) == (drivers, [tips_of(driver) for driver in drivers])
    assert tips["statuses"] == ["PRESENT"] * len(drivers)


def assert_refused_in_form(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert list(answer.json()) == ["detail"]
    assert "Redis" in answer.json()["detail"]


def assert_refused(request: Callable[[], httpx.Response]) -> None:
    started = time.monotonic()
    answer = request()
    assert time.monotonic() - started < DEADLINE_SECONDS
    assert_refused_in_form(answer)


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


@dataclass
class Callers:
    """Threads that look drivers up all the time, and what became of it."""

    live: LiveServer
    answered: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds_max: float = 0.0
    _is_over: threading.Event = field(default_factory=threading.Event)

    def call(self, seed: int) -> None:
        random = Random(seed)
        while not self._is_over.wait(0.01):
            drivers = random.sample(range(1, DRIVERS + 1), random.choice([1, 3, 200]))
            started = time.monotonic()
            answer = ask(self.live, drivers)
            self.seconds_max = max(self.seconds_max, time.monotonic() - started)
            try:
                if answer.status_code == 200:
                    assert_right(answer, drivers)
                    self.answered += 1
                else:
                    assert_refused_in_form(answer)
                    self.refused += 1
            except AssertionError as error:
                self.wrong.append(str(error)[:1_000])

    def is_served_again(self) -> Callable[[], bool]:
        """Returns a condition that holds once enough lookups were answered from now on."""
        enough = self.answered + 5 * CALLERS
        return lambda: self.answered >= enough


@contextmanager
def calling(live: LiveServer) -> Iterator[Callers]:
    """Looks drivers up from many threads; at the end every answer was right, or a refusal in time."""
    callers = Callers(live)
    threads = [threading.Thread(target=callers.call, args=(seed,)) for seed in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        callers._is_over.set()
        for thread in threads:
            thread.join(60)
        # Also where the block failed: a wrong answer is the better reason.
        assert not callers.wrong, callers.wrong[0]
    assert callers.seconds_max < DEADLINE_SECONDS


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


@pytest.mark.parametrize(
    "fault",
    [
        stalled_answers,
        stopped_process,
        trickling_answers,
        answers_cut_in_the_middle,
        killed_process,
        loading,
        replica_without_its_master,
    ],
    ids=lambda fault: fault.__name__,
)
def test_what_redis_cannot_serve_is_refused_in_time_and_service_resumes(
    scene: Scene, fault: Callable[[Scene], "contextmanager[None]"]
) -> None:
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


@pytest.mark.parametrize("fault", [full_memory, replica, unwritable_file], ids=lambda fault: fault.__name__)
def test_reads_go_on_while_writes_are_refused(scene: Scene, fault: Callable[[Scene], "contextmanager[None]"]) -> None:
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


# --- servers of their own -----------------------------------------------------------------------------


def test_a_stopping_server_finishes_what_waits_for_redis(applied: Path, tmp_path: Path) -> None:
    with private_redis_tcp(tmp_path) as redis, redis_proxy(redis.port or 0) as proxy:
        # Redis may be silent for longer than the server takes to close its door, and shorter than its grace.
        repo = copy_repo(applied, tmp_path / "repo", f"{proxy.address},socket_timeout=8")
        with serving(repo) as live:
            assert write(live, [1, 2, 3]).status_code == 200
            answers: list[httpx.Response] = []
            proxy.stall()
            waiting = threading.Thread(target=lambda: answers.append(ask(live, [1, 2, 3])))
            waiting.start()
            poll_until(lambda: proxy.kept_back, what="the lookup waits for Redis")
            live.process.send_signal(signal.SIGTERM)
            poll_until(lambda: not is_open(live), what="the server takes no new connections")
            assert not answers
            proxy.pass_on()
            waiting.join(30)
            assert_right(answers[0], [1, 2, 3])
            assert live.process.wait(20) == 0


def is_open(live: LiveServer) -> bool:
    try:
        return live.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_a_failover_by_sentinel_is_followed_and_the_old_master_gets_no_writes(applied: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    hasty = ("sentinel down-after-milliseconds larder 500", "sentinel failover-timeout larder 3000")
    with (
        private_redis_tcp(folders[0]) as master,
        private_redis_tcp(folders[1], "--replicaof", "127.0.0.1", str(master.port)) as replica,
        private_sentinel(folders[2], master, "larder", *hasty) as sentinel,
    ):
        settings = f"{sentinel.address}\n  redis_type: redis_sentinel\n  sentinel_master: larder"
        watcher = sentinel.client()
        poll_until(lambda: watcher.execute_command("SENTINEL", "REPLICAS", "larder"), what="the replica is known")
        with serving(copy_repo(applied, tmp_path / "repo", settings)) as live:
            drivers = list(range(1, DRIVERS + 1))
            poll_until(lambda: write(live, drivers).status_code == 200, what="the server finds the master")
            known = replica.client()
            poll_until(lambda: known.dbsize() == master.client().dbsize(), what="the replica has all rows")
            with calling(live) as callers:
                poll_until(callers.is_served_again(), what="lookups are answered before the failover")
                master.process.send_signal(signal.SIGSTOP)
                poll_until(lambda: known.info("replication")["role"] == "master", what="the replica is promoted")
                poll_until(callers.is_served_again(), what="lookups are answered by the new master")
                master.process.send_signal(signal.SIGCONT)
                poll_until(lambda: write(live, [DRIVERS + 1]).status_code == 200, what="writes go to the new master")
                assert known.dbsize() == master_size(drivers)
                poll_until(callers.is_served_again(), what="lookups go on")
                assert_right(ask(live, [DRIVERS + 1]), [DRIVERS + 1])


def master_size(drivers: list[int]) -> int:
    """Returns the keys of a Redis with these drivers and one more: theirs, and the project's layouts."""
    return len(drivers) + 2


def test_a_silent_node_of_a_cluster_fails_requests_in_time_and_service_resumes(applied: Path, tmp_path: Path) -> None:
    with private_cluster(tmp_path) as nodes:
        settings = ",".join(node.address for node in nodes) + "\n  redis_type: redis_cluster"
        with serving(copy_repo(applied, tmp_path / "repo", settings)) as live:
            drivers = list(range(1, DRIVERS + 1))
            poll_until(lambda: write(live, drivers).status_code == 200, what="the server finds its cluster")
            with calling(live) as callers:
                poll_until(callers.is_served_again(), what="lookups are answered before the fault")
                nodes[1].process.send_signal(signal.SIGSTOP)
                try:
                    # Keys of all nodes, the silent one too.
                    assert_refused(lambda: ask(live, drivers))
                finally:
                    nodes[1].process.send_signal(signal.SIGCONT)
                poll_until(callers.is_served_again(), what="lookups are answered after the fault")
                poll_until(lambda: ask(live, drivers).status_code == 200, what="all nodes answer again")
                assert_right(ask(live, drivers), drivers)
