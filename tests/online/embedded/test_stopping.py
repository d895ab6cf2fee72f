"""When the embedded Redis ends, and when it goes on."""

from pathlib import Path

import pytest

from store.online.embedded import ensure_running, is_running, stop_if_unused
from store.online.embedded_supervisor import client_count, open_named
from tests.online.embedded.processes import (
    IDLE,
    client_of,
    command_line,
    is_alive,
    pid_of,
    process_with_connection,
    server_pid,
    supervisor_pid,
)
from tests.redis_servers import poll_until


def test_unused_server_stops_by_itself_and_leaves_no_process_and_no_socket(repo: Path) -> None:
    socket_path = ensure_running(repo)
    pids = server_pid(repo), supervisor_pid(repo)
    poll_until(lambda: not is_running(repo), what="the unused server stops")
    poll_until(lambda: not any(is_alive(pid) for pid in pids), what="both processes end")
    poll_until(lambda: not any(command_line(pid) for pid in pids), what="no zombie is left")
    assert not socket_path.exists()
    assert not (repo / "data/redis/server.json").exists()


def test_idle_connection_of_another_process_keeps_the_server(repo: Path) -> None:
    with process_with_connection(repo) as holder:
        socket_path = ensure_running(repo)
        with client_of(socket_path) as client:
            # The server tells its own age, so that the machine's speed does not matter.
            poll_until(lambda: client.info("server")["uptime_in_seconds"] > 2 * IDLE)
        assert not stop_if_unused(repo)
        assert is_running(repo)
        holder.kill()
        poll_until(lambda: not is_running(repo), what="the server stops once its last client was killed")


def test_stop_if_unused_stops_at_once_and_only_then(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_EMBEDDED_IDLE_SECONDS", "60")
    assert not stop_if_unused(repo)
    socket_path = ensure_running(repo)
    pids = server_pid(repo), supervisor_pid(repo)
    with client_of(socket_path) as client:
        client.ping()
        assert not stop_if_unused(repo)
        assert client.ping()
    assert stop_if_unused(repo)
    assert not is_running(repo)
    assert not any(is_alive(pid) for pid in pids)
    assert not stop_if_unused(repo)


def test_supervisor_is_no_client(repo: Path) -> None:
    socket_path = ensure_running(repo)
    wire = open_named(str(socket_path), 5.0)
    poll_until(lambda: wire.call("CLIENT", "LIST").count("name=larder-supervisor") == 2, what="the supervisor connects")
    assert client_count(wire) == 0
    with client_of(socket_path) as client:
        client.ping()
        assert client_count(wire) == 1
    wire.close()


def test_joining_again_and_again_at_the_idle_time_never_loses_the_server(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_EMBEDDED_IDLE_SECONDS", "0.1")
    servers = set()
    for turn in range(25):
        socket_path = ensure_running(repo)
        servers.add(socket_path)
        with client_of(socket_path) as client:
            assert client.incr("turns") == turn + 1
        pid = pid_of(repo, "supervisor.lock")
        if turn % 5 == 0:
            poll_until(lambda pid=pid: not is_alive(pid), what="the supervisor stops the server")
    assert len(servers) > 1


def test_removed_data_folder_ends_its_server(repo: Path) -> None:
    with client_of(ensure_running(repo)) as client:
        client.set("a", 1)
        old = server_pid(repo)
        (repo / "data").rename(repo / "gone")
        socket_path = ensure_running(repo)
        with client_of(socket_path) as fresh:
            assert fresh.get("a") is None
            poll_until(lambda: not is_alive(old), what="the server of the removed folder ends")
            assert fresh.ping()
        assert socket_path.exists()


def test_server_whose_socket_was_removed_is_replaced(repo: Path) -> None:
    first = ensure_running(repo)
    with client_of(first) as client:
        client.set("a", 1)
        poll_until(lambda: "larder-supervisor" in {entry["name"] for entry in client.client_list()})
        first.unlink()
        second = ensure_running(repo)
    with client_of(second) as client:
        assert client.get("a") == b"1"
