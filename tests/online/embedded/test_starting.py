"""Who starts the embedded Redis, and who joins it."""

import os
from pathlib import Path

import pytest

from store.online.embedded import ensure_running
from store.online.embedded_settings import SOCKET_PATH_BYTES_MAX
from tests.online.embedded.processes import clean_up, client_of, run, server_pid, stop, supervisor_pid


def test_server_is_a_private_one_with_its_file_in_the_repo(repo: Path) -> None:
    with client_of(ensure_running(repo)) as client:
        settings = client.config_get("*")
        expected = {
            "port": "0",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "maxmemory-policy": "noeviction",
            "hash-max-ziplist-value": "1024",
            "hash-max-ziplist-entries": "512",
            "dir": str(repo / "data/redis"),
        }
        assert {name: settings[name] for name in expected} == expected
        client.set("a", 1)
    assert b"ready to accept connections" in (repo / "data/redis/redis.log").read_bytes()
    assert (repo / "data/redis/appendonly.aof").exists() or (repo / "data/redis/appendonlydir").exists()


def test_second_caller_joins(repo: Path) -> None:
    first = ensure_running(repo)
    pid = server_pid(repo)
    assert ensure_running(repo) == first
    assert server_pid(repo) == pid


def test_other_process_joins_and_sees_the_data(repo: Path) -> None:
    with client_of(ensure_running(repo)) as client:
        client.set("a", 1)
        with run("print(ensure_running(repo))", repo) as other:
            out, error = other.communicate()
        assert out.strip() == client.connection_pool.connection_kwargs["path"], error


def test_repo_is_the_same_by_any_name_and_in_any_environment(
    repo: Path, tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ensure_running(repo)
    alias = tmp_path / "alias"
    alias.symlink_to(repo)
    runtime = short_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert ensure_running(alias) == first
    monkeypatch.chdir(tmp_path)
    assert ensure_running(Path("repo")) == first


def test_five_processes_that_start_at_once_share_one_server(repo: Path) -> None:
    processes = [run("sys.stdin.readline(); print(ensure_running(repo))", repo) for _ in range(5)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate() for process in processes]
    assert len({out for out, _ in answers}) == 1, answers
    assert answers[0][0].strip().endswith(".sock"), answers
    assert (repo / "data/redis/redis.log").read_text().count("Server initialized") == 1


def test_repo_path_may_be_long(repo: Path) -> None:
    deep = repo.joinpath(*["a folder with a long name and ünïcode"] * 6)
    (deep / "data").mkdir(parents=True)
    assert len(str(deep)) > 200
    try:
        socket_path = ensure_running(deep)
        assert len(os.fsencode(socket_path)) <= SOCKET_PATH_BYTES_MAX
        with client_of(socket_path) as client:
            client.set("a", 1)
        stop(deep)
        with client_of(ensure_running(deep)) as client:
            assert client.get("a") == b"1"
    finally:
        clean_up(deep)


def test_server_and_supervisor_have_a_session_of_their_own_and_none_of_our_files(repo: Path) -> None:
    ours = repo / "ours.lock"
    with ours.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        ensure_running(repo)
    for pid in (server_pid(repo), supervisor_pid(repo)):
        # ^C goes to the foreground group of a terminal; a process of another session is never in it.
        assert os.getsid(pid) != os.getsid(0)
        opened = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert str(ours) not in opened
        assert str(repo / "data/redis/server.json.lock") not in opened
        terminals = [name for name in opened if name.startswith(("/dev/pts", "/dev/tty"))]
        assert not terminals
    server_files = {str(entry.readlink()) for entry in Path(f"/proc/{server_pid(repo)}/fd").iterdir()}
    assert str(repo / "data/redis/supervisor.lock") not in server_files


def test_starter_has_no_child_left(repo: Path) -> None:
    code = """
import os
ensure_running(repo)
try:
    print("child", os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("none")
"""
    with run(code, repo) as process:
        out, error = process.communicate()
    assert out == "none\n", error
