import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.redis_servers import poll_until
from tests.server.live import BIN, LiveServer, copy_repo, environment, serving, write_repo


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


@pytest.mark.parametrize("workers", ["1", "2"])
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
        with serving(repo, environ=environ) as live:
            assert "on a clock that says 2013-12-05T19:0" in live.log()
            clock = live.get("/ready").json()["clock"]
            assert clock["is_system"] is False
            assert clock["now"].startswith("2013-12-05T19:")


@pytest.mark.long
def test_a_materialization_that_outlasts_the_grace_is_told_and_leaves_nothing_behind(
    applied: Path, tmp_path: Path
) -> None:
    repo = copy_repo(applied, tmp_path / "repo", "embedded")
    source = repo / "data" / "stats.parquet"
    source.unlink()
    os.mkfifo(source)
    answers: list[httpx.Response] = []
    body = {"start_ts": "2000-01-01", "end_ts": "2100-01-01", "feature_views": ["driver_stats"]}
    with serving(repo) as live:
        running = threading.Thread(target=lambda: answers.append(live.post("/materialize", body)))
        running.start()
        poll_until(lambda: "driver_stats:" in live.log(), what="the materialization is under way")
        live.process.send_signal(signal.SIGTERM)
        running.join(30)
        live.process.wait(20)
        assert "Error" not in live.log()
    assert answers[0].status_code == 503, answers[0].text
    assert "stopping" in answers[0].json()["detail"]
    assert int(answers[0].headers["retry-after"]) > 0


def test_a_wrong_option_is_a_usage_error() -> None:
    assert larder("serve", "--port", "lots").returncode == 2
    assert larder("serve", "--workers", "0").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_finishes_what_is_in_flight(applied: Path, tmp_path: Path, number: signal.Signals) -> None:
    repo = copy_repo(applied, tmp_path / "repo", "embedded")
    body = json.dumps({"entities": {"driver_id": [1]}, "features": ["driver_stats:rate"]}).encode()
    with serving(repo) as live:
        host, _, port = live.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            head = "POST /get-online-features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
            poll_until(lambda: live.get("/health").status_code == 200)
            live.process.send_signal(number)
            poll_until(lambda: _refuses(live), what="the server takes no new connections")
            slow.sendall(body[10:])
            assert slow.recv(65_536).startswith(b"HTTP/1.1 200 ")
        live.process.wait(20)
        assert live.process.returncode == 0


def _refuses(live: LiveServer) -> bool:
    try:
        live.get("/health")
    except httpx.TransportError:
        return True
    return False
