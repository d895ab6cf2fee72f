"""What goes wrong on a connection is an error of the store: soon, by its name, and without the password."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from store.errors import LarderError, OnlineStoreError, OnlineStoreTimeout, OnlineStoreUnavailable
from store.online.connection import REDIS_ERRORS, connect, parse_target, translate, translated
from tests.online.connection.targets import SECRET
from tests.redis_servers import RedisServer, free_port, private_redis, private_redis_tcp

# A refused connection is tried four times within 0.3 s and a silent one is given up after its timeout; the rest of
# this is for a machine that is busy with other tests.
GIVE_UP_SECONDS = 8.0


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
