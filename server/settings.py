"""What a server is started with: where it listens, for whom, and who may call."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.auth import TOKENS_VARIABLE, TokenTable, load_tokens
from store.errors import ConfigError

HOSTS_VARIABLE = "LARDER_ALLOWED_HOSTS"
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings of one server, checked; they travel to its workers as they are.

    `allowed_hosts` are the names that a request's Host header may carry, in lower case, without a port.
    `tokens` None means that anybody who reaches the port may call.
    """

    repo_path: Path
    host: str = "127.0.0.1"
    port: int = 6566
    workers: int = 1
    has_access_log: bool = False
    allowed_hosts: frozenset[str] = field(default=_LOOPBACK_HOSTS)
    tokens: TokenTable | None = None


def settings_for(
    repo_path: Path,
    host: str = "127.0.0.1",
    port: int = 6566,
    workers: int = 1,
    *,
    allow_anonymous: bool = False,
    access_log: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> ServerSettings:
    """Returns the settings of a server from its command line and environment.

    Raises:
        ConfigError: no feature repo there, a tokens file that cannot be used, or a wide bind without tokens.
    """
    if not (repo_path / "feature_store.yaml").is_file():
        raise ConfigError(
            f"feature repo {str(repo_path)!r} has no feature_store.yaml; name the folder that holds it with --repo"
        )
    tokens_file = environ.get(TOKENS_VARIABLE, "").strip()
    tokens = load_tokens(Path(tokens_file)) if tokens_file else None
    if tokens is None and not allow_anonymous and not is_loopback(host):
        raise ConfigError(
            f"host {host!r} is reachable from other machines and no tokens are configured; set {TOKENS_VARIABLE}, "
            "bind to 127.0.0.1, or say --allow-anonymous if anybody may read, write and materialize"
        )
    return ServerSettings(
        repo_path=repo_path.resolve(),
        host=host,
        port=port,
        workers=workers,
        has_access_log=access_log,
        allowed_hosts=_allowed_hosts(host, environ.get(HOSTS_VARIABLE, "")),
        tokens=tokens,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host to bind to; a name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _allowed_hosts(host: str, listed: str) -> frozenset[str]:
    more = {name.strip().lower() for name in listed.split(",") if name.strip()}
    for name in more:
        if "*" in name or "/" in name or (":" in name and not name.startswith("[")):
            raise ConfigError(
                f"{HOSTS_VARIABLE}: {name!r} is not a host name; list exact names without scheme or port, "
                "separated by commas, like features.example.org,[2001:db8::1]"
            )
    bound = f"[{host}]" if ":" in host and not host.startswith("[") else host
    # The wildcard addresses are no names that a client would send.
    return _LOOPBACK_HOSTS | more | ({bound.lower()} - {"0.0.0.0", "[::]"})  # noqa: S104 - compared, not bound to
