import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from store.errors import ConfigError, LarderError, OnlineStoreError, OnlineStoreTimeout, OnlineStoreUnavailable
from store.online.connection import (
    REDIS_ERRORS,
    RedisTarget,
    connect,
    connect_async,
    parse_target,
    settings_of,
    translate,
    translated,
)
from store.online.embedded import ensure_running, is_running, stop_if_unused
from store.online.targets import PARAMETERS
from tests.redis_servers import (
    RedisServer,
    free_port,
    poll_until,
    private_cluster,
    private_redis,
    private_redis_tcp,
    private_sentinel,
)

SECRET = "s3cret-Pässword"

# A refused connection is tried four times within 0.3 s and a silent one is given up after its timeout; the rest of
# this is for a machine that is busy with other tests.
GIVE_UP_SECONDS = 8.0


def config(connection_string: str, redis_type: Any = "redis", sentinel_master: str = "mymaster") -> SimpleNamespace:
    return SimpleNamespace(connection_string=connection_string, redis_type=redis_type, sentinel_master=sentinel_master)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Any:
    """Runs one command over a new client of either kind, as the store would: errors are translated."""

    def call_sync(target: RedisTarget, *words: object) -> object:
        client = connect(target)
        try:
            with translated(target):
                return client.execute_command(*words)
        finally:
            client.close()

    def call_async(target: RedisTarget, *words: object) -> object:
        async def run() -> object:
            client = connect_async(target)
            try:
                with translated(target):
                    return await client.execute_command(*words)
            finally:
                await client.aclose()
                # A cluster client closes the nodes that it has dropped in tasks of their own.
                await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

        return asyncio.run(run())

    return call_sync if request.param == "sync" else call_async


# --- parsing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hosts", "fields"),
    [
        ("localhost:6379", (("localhost", 6379),), {}),
        ("localhost", (("localhost", 6379),), {}),
        (" redis:6380 , db=3 ", (("redis", 6380),), {"db": 3}),
        ("[::1]:6379", (("::1", 6379),), {}),
        ("[fe80::1]", (("fe80::1", 6379),), {}),
        ("redis:6379,password=12345", (("redis", 6379),), {"password": "12345"}),
        ('redis:6379,password="12345"', (("redis", 6379),), {"password": "12345"}),
        ("redis:6379,password=a=b==,username=u", (("redis", 6379),), {"password": "a=b==", "username": "u"}),
        ("redis:6379,ssl=true,db=0", (("redis", 6379),), {"is_tls": True}),
        ("redis:6379,ssl=False", (("redis", 6379),), {"is_tls": False}),
        ("redis://h", (("h", 6379),), {}),
        ("redis://h:7000/2", (("h", 7000),), {"db": 2}),
        ("redis://h:7000/?db=2", (("h", 7000),), {"db": 2}),
        ("redis://u:p%2C%40%2F%23@h", (("h", 6379),), {"username": "u", "password": "p,@/#"}),
        ("redis://:p@[::1]:7000", (("::1", 7000),), {"password": "p"}),
        ("rediss://h:7000", (("h", 7000),), {"is_tls": True}),
        ("unix:///run/redis.sock", (), {"socket_path": "/run/redis.sock"}),
        ("unix://u:p@/run/r%20s.sock?db=4", (), {"socket_path": "/run/r s.sock", "db": 4, "password": "p"}),
        ("unix:///r.sock?password=p", (), {"socket_path": "/r.sock", "password": "p"}),
    ],
)
def test_connection_string_is_parsed(text: str, hosts: object, fields: dict[str, object]) -> None:
    target = parse_target(text)
    assert target.hosts == hosts
    assert {name: getattr(target, name) for name in fields} == fields


def test_cluster_and_sentinel_take_several_hosts() -> None:
    cluster = parse_target("a:1,b:2,skip_full_coverage_check=true", "redis_cluster")
    assert cluster.is_cluster
    assert cluster.hosts == (("a", 1), ("b", 2))
    assert not cluster.is_full_coverage_required
    sentinel = parse_target("a,b:2,sentinel_password=x", "redis_sentinel", "main")
    assert sentinel.is_sentinel
    assert sentinel.hosts == (("a", 26379), ("b", 2))
    assert (sentinel.sentinel_master, sentinel.sentinel_password) == ("main", "x")


def test_timeouts_and_certificates_reach_the_client_by_their_names() -> None:
    target = parse_target("h:1,ssl=true,ssl_cert_reqs=none,ssl_ca_certs=ca.pem,socket_timeout=0.5,max_connections=7")
    assert dict(target.options) == {
        "ssl_cert_reqs": "none",
        "ssl_ca_certs": "ca.pem",
        "socket_timeout": 0.5,
        "max_connections": 7,
    }
    pool = connect(target).connection_pool
    assert pool.connection_class is redis.SSLConnection
    assert pool.max_connections == 7
    assert pool.connection_kwargs["socket_timeout"] == 0.5


@pytest.mark.parametrize(
    ("text", "redis_type", "said"),
    [
        ("", "redis", "got ''"),
        ("db=0", "redis", "no host"),
        ("h:0", "redis", "got 'h:0'"),
        ("h:65536", "redis", "65535"),
        ("h:x", "redis", "'h:x'"),
        ("::1:6379", "redis", "[::1]:6379"),
        ("u:p@h:1", "redis", "username=..."),
        ("h:1,protocol=3", "redis", "'protocol'"),
        ("h:1,db=0,db=1", "redis", "twice"),
        ("h:1,db=-1", "redis", "whole number"),
        ("h:1,db=1.0", "redis", "whole number"),
        ("h:1,ssl=maybe", "redis", "true or false"),
        ("h:1,socket_timeout=0", "redis", "above 0"),
        ("h:1,socket_timeout=nan", "redis", "above 0"),
        ("h:1,socket_timeout=soon", "redis", "seconds"),
        ("h:1,max_connections=0", "redis", "from 1"),
        ("h:1,ssl_cert_reqs=some", "redis", "none, optional or required"),
        ("h:1,db=0,i:2", "redis", "hosts come first"),
        ("h:1,i:2", "redis", "2 hosts"),
        ("h:1,db=1", "redis_cluster", "db=1"),
        ("h:1", "valkey", "'valkey'"),
        ("http://h:1", "redis", "'http'"),
        ("redis://", "redis", "no single host"),
        ("redis://h:99999", "redis", "cannot be read"),
        ("redis://h:1,i:2", "redis_cluster", "cannot be read"),
        ("redis://h:1/zero", "redis", "whole number"),
        ("redis://h:1/0?db=1", "redis", "twice"),
        ("redis://h:1#1", "redis", "'#'"),
        ("redis://h:1?color=red", "redis", "'color'"),
        ("rediss://h:1?ssl=false", "redis", "ssl is false"),
        ("unix://", "redis", "no socket"),
        ("unix://run/redis.sock", "redis", "three slashes"),
        ("unix:///r.sock", "redis_cluster", "unix socket"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, redis_type: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text, redis_type)
    assert said in str(caught.value)


def test_unknown_parameter_is_refused_with_the_accepted_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target("h:1,decode_responses=true")
    assert "'decode_responses'" in str(caught.value)
    assert all(name in str(caught.value) for name in PARAMETERS)


@pytest.mark.parametrize(
    "text",
    [
        "h:1,password=begin,hunter2",
        "h:1,password=begin,hunter2=x",
        "h:1,password=begin,password=hunter2",
        "u:hunter2@h:1",
        "redis://:begin/hunter2@h:1",
        "redis://begin/hunter2@h:1",
        "redis://:hunter2#tail@h:1",
        "redis://:begin#hunter2@h:1",
        "redis://:hunter2@h:1/zero",
        "redis://:hunter2@h:port",
        "redis://:hunter2@h:1?password=hunter2",
        "redis://h:1?password=a&hunter2=1",
        "redis://[hunter2@h",
        "redis://:hunter2@",
        "ftp://:hunter2@h",
        "unix://:hunter2@run/redis.sock",
    ],
)
def test_no_piece_of_a_password_is_in_a_refusal(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text)
    shown = caught.value
    while shown is not None:
        assert "hunter2" not in str(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


@pytest.mark.parametrize(
    "target",
    [
        parse_target(f"h:1,password={SECRET},sentinel_password={SECRET}", "redis_sentinel"),
        parse_target("redis://user:hidden@h:1"),
        parse_target("unix:///r.sock?password=hidden"),
    ],
    ids=["commas", "url", "unix"],
)
def test_password_is_never_in_repr_or_description(target: RedisTarget) -> None:
    for shown in (repr(target), str(target), target.description, f"{target}"):
        assert SECRET not in shown
        assert "hidden" not in shown


# --- settings ---------------------------------------------------------------------------------------


def test_redis_url_goes_before_connection_string(repo: Path) -> None:
    environ = {"REDIS_URL": "redis://other:7000/1"}
    assert settings_of(config("embedded"), repo, environ).hosts == (("other", 7000),)
    assert settings_of(config("mine:1"), repo, {"REDIS_URL": " "}).hosts == (("mine", 1),)
    assert not is_running(repo)


def test_a_bad_redis_url_is_named_as_such(repo: Path) -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_URL"):
        settings_of(config("mine:1"), repo, {"REDIS_URL": "http://other"})


def test_certificate_paths_are_resolved_against_the_repo(repo: Path) -> None:
    target = settings_of(config("h:1,ssl=true,ssl_ca_certs=certs/ca.pem,ssl_keyfile=/etc/key.pem"), repo, {})
    assert target.options["ssl_ca_certs"] == str(repo / "certs/ca.pem")
    assert target.options["ssl_keyfile"] == "/etc/key.pem"


@pytest.mark.parametrize(("kind", "has_repo"), [("redis_cluster", True), ("redis_sentinel", True), ("redis", False)])
def test_embedded_is_one_redis_of_one_repo(repo: Path, kind: str, has_repo: bool) -> None:
    with pytest.raises(ConfigError, match="embedded"):
        settings_of(config("embedded", kind), repo if has_repo else None, {})
    assert not is_running(repo)


@pytest.fixture
def embedded_target(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisTarget]:
    monkeypatch.setenv("LARDER_EMBEDDED_IDLE_SECONDS", "60")
    try:
        yield settings_of(config("embedded"), repo)
    finally:
        poll_until(lambda: stop_if_unused(repo) or not is_running(repo), what="the embedded Redis stops")


def test_embedded_client_reads_what_another_wrote(embedded_target: RedisTarget, call: Any) -> None:
    assert "embedded Redis" in embedded_target.description
    with connect(embedded_target) as client:
        client.set("a", 1)
    assert call(embedded_target, "GET", "a") == b"1"


def test_embedded_client_joins_again_after_the_server_was_stopped(
    embedded_target: RedisTarget, repo: Path, call: Any
) -> None:
    with connect(embedded_target) as client:
        client.set("a", 1)
    assert stop_if_unused(repo)
    assert call(embedded_target, "GET", "a") == b"1"


def test_open_embedded_client_survives_kill_of_the_server(embedded_target: RedisTarget, repo: Path) -> None:
    with connect(embedded_target) as client:
        client.set("a", 1)
        client.connection_pool.get_connection()  # A second one, so that the next command needs a new connection too.
        ended = client.info("server")["process_id"]
        client.shutdown(nosave=True)
        assert client.get("a") == b"1"
        assert client.info("server")["process_id"] != ended
        client.connection_pool.disconnect()


def test_embedded_redis_that_cannot_start_again_says_so(embedded_target: RedisTarget, repo: Path, call: Any) -> None:
    with connect(embedded_target) as client:
        client.set("a", 1)
    assert stop_if_unused(repo)
    (journal,) = [*repo.glob("data/redis/appendonly.aof"), *repo.glob("data/redis/appendonlydir/*.incr.aof")]
    good = journal.read_bytes()
    journal.write_bytes(b"not a journal\n" + good)
    with pytest.raises(OnlineStoreUnavailable, match="Bad file format"):
        call(embedded_target, "GET", "a")
    journal.write_bytes(good)
    assert call(embedded_target, "GET", "a") == b"1"


# --- real servers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("tcp")
    with private_redis_tcp(folder, "--requirepass", SECRET) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with private_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def test_comma_form_logs_in_and_selects_the_database(server: RedisServer, call: Any) -> None:
    target = parse_target(f"{server.address},password={SECRET},db=5,client_name=me")
    call(target, "SET", "k", "v")
    assert call(target, "GET", "k") == b"v"
    assert b" name=me " in call(target, "CLIENT", "LIST")
    assert call(parse_target(f"{server.address},password={SECRET}"), "GET", "k") is None


def test_url_logs_in_and_selects_the_database(server: RedisServer, call: Any) -> None:
    target = parse_target(f"redis://:s3cret-P%C3%A4ssword@{server.address}/6")
    call(target, "SET", "k", "v")
    assert call(target, "GET", "k") == b"v"


def test_unix_url_connects(tmp_path: Path, call: Any) -> None:
    with private_redis(tmp_path) as running:
        target = parse_target(running.url)
        call(target, "SET", "k", "v")
        assert call(target, "GET", "k") == b"v"


def test_cluster_is_found_from_any_node(cluster: list[RedisServer], call: Any) -> None:
    target = parse_target(f"127.0.0.1:{free_port()},{cluster[1].address}", "redis_cluster")
    for number in range(10):
        call(target, "SET", f"key{number}", number)
    assert [call(target, "GET", f"key{number}") for number in range(10)] == [b"%d" % number for number in range(10)]


def test_sentinel_names_the_master(tmp_path: Path, call: Any) -> None:
    with (
        private_redis_tcp(tmp_path, "--requirepass", SECRET) as master,
        private_sentinel(
            tmp_path, master, "main", f"sentinel auth-pass main {SECRET}", "requirepass other"
        ) as sentinel,
    ):
        text = f"{sentinel.address},password={SECRET},sentinel_password=other"
        target = parse_target(text, "redis_sentinel", "main")
        call(target, "SET", "k", "v")
        assert call(target, "GET", "k") == b"v"
        unknown = parse_target(text, "redis_sentinel", "nobody")
        with pytest.raises(OnlineStoreUnavailable, match=r"'nobody'.*sentinel_master") as caught:
            call(unknown, "GET", "k")
        assert len(str(caught.value)) < 300


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["redis", "redis_cluster", "redis_sentinel"])
def test_unreachable_host_is_unavailable_soon(kind: str, call: Any) -> None:
    target = parse_target(f"127.0.0.1:{free_port()},password={SECRET}", kind)
    started = time.monotonic()
    with pytest.raises(OnlineStoreUnavailable) as caught:
        call(target, "PING")
    assert time.monotonic() - started < GIVE_UP_SECONDS
    assert target.description in str(caught.value)
    assert SECRET not in str(caught.value)


def test_missing_socket_is_unavailable(tmp_path: Path, call: Any) -> None:
    with pytest.raises(OnlineStoreUnavailable, match=r"nobody\.sock"):
        call(parse_target(f"unix://{tmp_path}/nobody.sock"), "PING")


def test_silent_server_is_a_timeout_and_is_asked_once(call: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = parse_target(f"127.0.0.1:{silent.getsockname()[1]},socket_timeout=0.2")
        started = time.monotonic()
        with pytest.raises(OnlineStoreTimeout, match=r"within 0\.2 s"):
            call(target, "PING")
        assert time.monotonic() - started < GIVE_UP_SECONDS
        silent.settimeout(0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.parametrize("login", ["", ",password=wrong-Secret", ",username=nobody,password=wrong-Secret"])
def test_refused_login_is_unavailable_and_shows_no_password(server: RedisServer, call: Any, login: str) -> None:
    with pytest.raises(OnlineStoreUnavailable, match="login") as caught:
        call(parse_target(f"{server.address}{login}"), "GET", "k")
    assert "wrong-Secret" not in str(caught.value)


def test_full_server_refuses_writes_with_its_name(tmp_path: Path, call: Any) -> None:
    with private_redis(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as running:
        target = parse_target(running.url)
        for words in (("SET", "k", "v"), ("EVAL", "return redis.call('SET', KEYS[1], 'v')", 1, "k")):
            with pytest.raises(OnlineStoreError, match=r"is full.*maxmemory") as caught:
                call(target, *words)
            assert not isinstance(caught.value, OnlineStoreUnavailable)
            assert str(running.socket_path) in str(caught.value)


def test_replica_is_unavailable_for_writes(tmp_path: Path, call: Any) -> None:
    with private_redis(tmp_path, "--replicaof", "127.0.0.1", str(free_port())) as running:
        target = parse_target(running.url)
        for words in (("SET", "k", "v"), ("EVAL", "return redis.call('SET', KEYS[1], 'v')", 1, "k")):
            with pytest.raises(OnlineStoreUnavailable, match="master"):
                call(target, *words)


def test_cluster_without_slots_is_unavailable(tmp_path: Path, call: Any) -> None:
    with private_redis_tcp(tmp_path, "--cluster-enabled", "yes") as running:
        with pytest.raises(OnlineStoreUnavailable):
            call(parse_target(running.address), "GET", "k")
        with pytest.raises(OnlineStoreUnavailable):
            call(parse_target(running.address, "redis_cluster"), "GET", "k")


def test_unknown_command_is_an_error_of_the_store(server: RedisServer, call: Any) -> None:
    with pytest.raises(OnlineStoreError, match="refused a command") as caught:
        call(parse_target(f"{server.address},password={SECRET}"), "NONSENSE", SECRET)
    assert not isinstance(caught.value, OnlineStoreUnavailable | OnlineStoreTimeout)
    assert SECRET not in str(caught.value)


def test_something_else_on_the_port_is_no_redis(call: Any) -> None:
    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            connection.recv(1024)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = threading.Thread(target=answer, args=(listener,))
        other.start()
        with pytest.raises(OnlineStoreUnavailable, match="no Redis"):
            call(parse_target(f"127.0.0.1:{listener.getsockname()[1]}"), "PING")
        other.join()


def test_open_client_reaches_a_server_that_was_restarted(tmp_path: Path) -> None:
    port = free_port()
    target = parse_target(f"127.0.0.1:{port}")
    with connect(target) as client:
        with private_redis_tcp(tmp_path, port=port):
            assert client.set("a", 1)
        with pytest.raises(OnlineStoreUnavailable), translated(target):
            client.get("a")
        with private_redis_tcp(tmp_path, port=port):
            assert client.get("a") is None


def _all_errors() -> list[type[BaseException]]:
    found: list[type[BaseException]] = []
    pending = list(REDIS_ERRORS)
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending.extend(kind.__subclasses__())
    return found


@pytest.mark.parametrize("kind", sorted(set(_all_errors()), key=lambda kind: f"{kind.__module__}.{kind.__name__}"))
def test_every_error_of_the_client_has_a_translation_without_the_password(kind: type[BaseException]) -> None:
    error = kind.__new__(kind)
    error.args = (f"it broke for {SECRET}",)
    target = parse_target(f"h:1,password={SECRET}")
    result = translate(error, target)
    assert isinstance(result, LarderError)
    assert isinstance(result, OnlineStoreError)
    assert "h:1" in str(result)
    assert SECRET not in str(result)
    if issubclass(kind, redis.TimeoutError):
        assert isinstance(result, OnlineStoreTimeout)
    if issubclass(kind, redis.ConnectionError):
        assert isinstance(result, OnlineStoreUnavailable)


def test_full_pool_waits_and_then_is_unavailable(server: RedisServer) -> None:
    target = parse_target(f"{server.address},password={SECRET},max_connections=1,socket_timeout=0.2")
    with connect(target) as client:
        held = client.connection_pool.get_connection()
        with pytest.raises(OnlineStoreUnavailable), translated(target):
            client.ping()
        client.connection_pool.release(held)
        assert client.ping()


def test_ensure_running_is_what_settings_of_joins(embedded_target: RedisTarget, repo: Path) -> None:
    assert embedded_target.socket_path == str(ensure_running(repo))
