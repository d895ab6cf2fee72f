"""What a run of Feast's tests needs: the tests themselves, and an environment to run them in."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FEAST_VERSION = version("feast")
TESTS = "sdk/python/tests"
SHARED = ("duckdb", "ibis-framework", "pyarrow", "pandas", "numpy")
"""Packages whose version decides what is tested: the environments of both runs have the same as this one."""


class SuiteError(Exception):
    """The tests cannot be run; the message says what to do."""


def fetch_tests(source: str, revision: str, cache: Path) -> tuple[Path, str]:
    """Returns the folder that holds Feast's `tests`, fetched unless it is there already, and their commit.

    Only `tests` and pytest.ini are unpacked: beside Feast's sources the tests would import those, not the package.

    Raises:
        SuiteError: the source or the revision is not there.
    """
    name = hashlib.sha256(f"{source}\0{revision}".encode()).hexdigest()[:12]
    target = cache / f"tests-{name}"
    stamp = target / "commit"
    if not stamp.exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            repository = Path(source) if Path(source).is_dir() else _clone(source, revision, Path(scratch) / "clone")
            at = revision if repository == Path(source) else "HEAD"
            commit = _run(["git", "-C", str(repository), "rev-parse", "--verify", f"{at}^{{commit}}"]).strip()
            archive = Path(scratch) / "tests.tar"
            wanted = [TESTS, "sdk/python/pytest.ini"]
            _run(["git", "-C", str(repository), "archive", "--output", str(archive), commit, *wanted])
            _run(["tar", "-xf", str(archive), "-C", str(target), "--strip-components=2"])
        stamp.write_text(commit)
    return target, stamp.read_text()


def _clone(url: str, revision: str, target: Path) -> Path:
    """Returns a clone that holds one revision, and of its files only the ones that are asked for."""
    shallow = ["--depth", "1", "--branch", revision, "--filter", "blob:none", "--no-checkout"]
    _run(["git", "clone", "--quiet", *shallow, url, str(target)])
    return target


def make_environment(store: str, packages: Sequence[str], cache: Path) -> Path:
    """Returns the Python of the environment in which a store is tested, made or brought up to date.

    Each store has its own: Feast's asks for another version of `deltalake` than ours.

    Raises:
        SuiteError: its packages cannot be installed.
    """
    pins = "".join(f"{name}=={version(name)}\n" for name in SHARED)
    requirements = [f"feast[duckdb,grpcio,test]=={FEAST_VERSION}", *packages]
    wanted = "\n".join([sys.version, *requirements, pins, (ROOT / "pyproject.toml").read_text()])
    environment = cache / f"environment-{store}"
    python, stamp = environment / "bin" / "python", environment / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = _uv()
        cache.mkdir(parents=True, exist_ok=True)
        constraints = cache / "constraints.txt"
        constraints.write_text(pins)
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)])
        pip = [uv, "pip", "install", "--quiet", "--python", str(python), "--constraint", str(constraints)]
        _run([*pip, *requirements])
        stamp.write_text(wanted)
    return python


def has_delta_extension(python: Path) -> bool:
    """Returns whether DuckDB has its `delta` extension or can get it: Feast's store reads Delta through that alone."""
    install = "import duckdb; duckdb.connect().install_extension('delta')"
    return subprocess.run([str(python), "-c", install], capture_output=True, check=False).returncode == 0


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise SuiteError("uv is neither in this environment nor on the PATH; run `make setup` first")
    return found


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SuiteError(f"{' '.join(command)!r} ended with status {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout
