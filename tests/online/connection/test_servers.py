"""Clients of every kind of server reach it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.errors import OnlineStoreUnavailable
from store.online.connection import RedisTarget, connect, parse_target
from store.online.embedded import ensure_running, stop_if_unused
from tests.online.connection.targets import SECRET
from tests.redis_servers import (
    RedisServer,
    free_port,
    private_cluster,
    private_redis,
    private_redis_tcp,
    private_sentinel,
)


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


def test_ensure_running_is_what_settings_of_joins(embedded_target: RedisTarget, repo: Path) -> None:
    assert embedded_target.socket_path == str(ensure_running(repo))
