import socket
import subprocess
from pathlib import Path

import pytest

from tests.server.live import BIN, copy_repo, environment, serving, write_repo


def larder(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "larder"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment(environ))


def assert_one_sentence(done: subprocess.CompletedProcess[str], *named: str) -> None:
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("larder: ")
    for part in named:
        assert part in done.stderr


def test_version_and_help_are_told_without_loading_feast() -> None:
    assert larder("--version").stdout.startswith("larder 0.")
    assert "serve" in larder("--help").stdout
    probe = (
        "import sys, cli.main; print(sorted(m for m in ('feast', 'pandas', 'duckdb', 'fastapi') if m in sys.modules))"
    )
    command = [str(BIN / "python"), "-c", probe]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "repo")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for workers in ("1", "2"):
            done = larder("serve", "--repo", str(repo), "--port", port, "--workers", workers)
            assert_one_sentence(done, port, "--port")


def test_a_host_that_is_not_ours_is_one_sentence(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "repo")
    done = larder("serve", "--repo", str(repo), "--host", "192.0.2.1", "--allow-anonymous", "--port", "0")
    assert_one_sentence(done, "192.0.2.1")


def test_no_feature_repo_is_one_sentence(tmp_path: Path) -> None:
    assert_one_sentence(larder("serve", "--repo", str(tmp_path / "none")), "feature_store.yaml", "--repo")


def test_a_wide_bind_without_tokens_is_one_sentence(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "repo")
    done = larder("serve", "--repo", str(repo), "--host", "0.0.0.0")
    assert_one_sentence(done, "0.0.0.0", "LARDER_TOKENS_FILE", "--allow-anonymous")


def test_a_tokens_file_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "repo")
    done = larder("serve", "--repo", str(repo), environ={"LARDER_TOKENS_FILE": str(tmp_path / "none")})
    assert_one_sentence(done, "LARDER_TOKENS_FILE")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_repo_that_cannot_be_served_refuses_to_start(tmp_path: Path, workers: str) -> None:
    repo = write_repo(tmp_path / "repo")
    (repo / "feature_store.yaml").write_text(
        "project: cabs\nprovider: local\nregistry: data/r.db\nonline_store: {type: sqlite}\n"
    )
    done = larder("serve", "--repo", str(repo), "--port", "0", "--workers", workers)
    # Also not a word about serving.
    assert_one_sentence(done, "store.online.RedisOnlineStore")


def test_a_demo_without_its_repo_is_one_sentence(tmp_path: Path) -> None:
    assert_one_sentence(larder("demo", "--repo", str(tmp_path / "none")), "feature_store.yaml", "--repo")


def test_a_clock_that_is_not_the_systems_is_announced_and_joined_without_the_variable(
    applied: Path, tmp_path: Path
) -> None:
    repo = copy_repo(applied, tmp_path / "repo", "embedded")
    for environ in ({"LARDER_CLOCK": "2013-12-05T19:06:00Z"}, {}):
        # The first is a whole process from its start to its end.
        with serving(repo, environ=environ, is_cold=bool(environ)) as live:
            assert "on a clock that says 2013-12-05T19:0" in live.log()
            clock = live.get("/ready").json()["clock"]
            assert clock["is_system"] is False
            assert clock["now"].startswith("2013-12-05T19:")


def test_a_wrong_option_is_a_usage_error() -> None:
    assert larder("serve", "--port", "lots").returncode == 2
    assert larder("serve", "--workers", "0").returncode == 2
