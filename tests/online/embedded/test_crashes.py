"""What a killed or torn embedded Redis leaves is no obstacle to the next one."""

import signal
import socket
from pathlib import Path

import pytest

from store.online.embedded import ensure_running, is_running
from tests.online.embedded.processes import client_of, is_alive, kill, run, server_pid, sockets_of, stop, supervisor_pid
from tests.redis_servers import poll_until


def test_data_survive_stop_and_start(repo: Path) -> None:
    with client_of(ensure_running(repo)) as client:
        client.hset("h", mapping={"f": "v"})
    stop(repo)
    with client_of(ensure_running(repo)) as client:
        assert client.hgetall("h") == {b"f": b"v"}


def test_killed_server_is_replaced_over_the_same_data(repo: Path) -> None:
    first = ensure_running(repo)
    with client_of(first) as client:
        client.set("a", 1)
    kill(server_pid(repo))
    second = ensure_running(repo)
    with client_of(second) as client:
        assert client.get("a") == b"1"
    assert sockets_of(repo) == [second]


def test_killed_supervisor_is_replaced_and_adopts_the_server(repo: Path) -> None:
    first = ensure_running(repo)
    with client_of(first) as client:
        client.set("a", 1)
    server = server_pid(repo)
    killed = supervisor_pid(repo)
    kill(killed)
    assert is_alive(server)
    assert ensure_running(repo) == first
    assert server_pid(repo) == server
    assert supervisor_pid(repo) != killed
    poll_until(lambda: not is_running(repo), what="the adopted server stops when it is unused")
    assert not first.exists()


def test_adopted_server_that_is_killed_is_replaced(repo: Path) -> None:
    with client_of(ensure_running(repo)) as client:
        client.set("a", 1)
    kill(supervisor_pid(repo))
    ensure_running(repo)
    kill(server_pid(repo))
    with client_of(ensure_running(repo)) as client:
        assert client.get("a") == b"1"


def test_both_killed_are_replaced_and_their_socket_is_removed(repo: Path) -> None:
    first = ensure_running(repo)
    with client_of(first) as client:
        client.set("a", 1)
    kill(supervisor_pid(repo))
    kill(server_pid(repo))
    assert first.exists()
    second = ensure_running(repo)
    with client_of(second) as client:
        assert client.get("a") == b"1"
    assert sockets_of(repo) == [second]


def test_starter_killed_while_the_server_loads_leaves_a_server_that_can_be_joined(repo: Path) -> None:
    code = """
import os, signal
from store.online import embedded
embedded._Joining._ask = lambda self: os.kill(os.getpid(), signal.SIGKILL)
ensure_running(repo)
"""
    with run(code, repo) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    with client_of(ensure_running(repo)) as client:
        assert client.ping()
    assert (repo / "data/redis/redis.log").read_text().count("Server initialized") == 1


def test_torn_tail_of_the_file_is_cut_off(repo: Path) -> None:
    with client_of(ensure_running(repo)) as client:
        client.set("whole", 1)
        client.set("torn", "x" * 100)
    stop(repo)
    (journal,) = [*repo.glob("data/redis/appendonly.aof"), *repo.glob("data/redis/appendonlydir/*.incr.aof")]
    content = journal.read_bytes()
    journal.write_bytes(content[: content.rindex(b"x" * 50)])
    with client_of(ensure_running(repo)) as client:
        assert client.get("whole") == b"1"
        assert client.get("torn") is None
        client.set("after", 2)
    stop(repo)
    with client_of(ensure_running(repo)) as client:
        assert client.mget("whole", "torn", "after") == [b"1", None, b"2"]


def test_stale_files_of_a_machine_that_lost_power_are_no_obstacle(repo: Path) -> None:
    stale = ensure_running(repo)
    record = (repo / "data/redis/server.json").read_bytes()
    stop(repo)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    (repo / "data/redis/server.json").write_bytes(record)
    with client_of(ensure_running(repo)) as client:
        assert client.ping()
    assert not stale.exists()


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"socket": 3}'])
def test_torn_record_is_no_obstacle(repo: Path, record: bytes) -> None:
    (repo / "data/redis").mkdir()
    (repo / "data/redis/server.json").write_bytes(record)
    with client_of(ensure_running(repo)) as client:
        assert client.ping()
