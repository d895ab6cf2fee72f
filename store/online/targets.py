"""Where Redis is: `connection_string` in Feast's comma form or as a URL, parsed into a `RedisTarget`.

No message of this module quotes a value that may hold a password or a piece of one (an unescaped `,`, `/` or `@`
in a password moves its tail elsewhere), so what cannot be understood is named by its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from store.errors import ConfigError

EMBEDDED = "embedded"
REDIS_TYPES = ("redis", "redis_cluster", "redis_sentinel")
REDIS_PORT = 6379
SENTINEL_PORT = 26379
PORT_MAX = 65_535
DB_MAX = 1_000_000
"""Redis has 16 databases unless told otherwise; a larger number than this is a mistyped port or password."""
TIMEOUT_SECONDS_MAX = 600.0
"""Ten minutes: a deadline that nobody waits for is none."""
CONNECTIONS_MAX = 10_000
"""As many as Redis accepts unless told otherwise (`maxclients`)."""


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """Which Redis to connect to and how; its repr and its description show no password.

    `hosts` has one entry for a single Redis, the startup nodes of a cluster, the sentinels, or none where
    `socket_path` is set. `embedded_repo` is set for an embedded Redis, whose socket may move when it is restarted.
    """

    redis_type: str = "redis"
    hosts: tuple[tuple[str, int], ...] = ()
    socket_path: str | None = None
    embedded_repo: Path | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_tls: bool = False
    sentinel_master: str = "mymaster"
    sentinel_password: str | None = field(default=None, repr=False)
    is_sentinel_tls: bool = False
    is_full_coverage_required: bool = True
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """Further arguments of redis-py's connections, by their names there."""

    @property
    def is_cluster(self) -> bool:
        """Whether this is a Redis Cluster."""
        return self.redis_type == "redis_cluster"

    @property
    def is_sentinel(self) -> bool:
        """Whether the master is to be asked of Sentinel."""
        return self.redis_type == "redis_sentinel"

    @property
    def description(self) -> str:
        """What messages call it: `Redis at 10.0.0.7:6379`."""
        if self.embedded_repo is not None:
            return f"embedded Redis of feature repo {str(self.embedded_repo)!r}"
        if self.socket_path is not None:
            return f"Redis at unix socket {self.socket_path!r}"
        hosts = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        if self.is_cluster:
            return f"Redis Cluster at {hosts}"
        if self.is_sentinel:
            return f"Redis master {self.sentinel_master!r} of Sentinel at {hosts}"
        return f"Redis at {hosts}"


def _text(value: str) -> str:
    # Feast reads values as JSON where they are JSON, so quotes around a value are not part of it.
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _flag(value: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in known:
        raise ValueError("true or false")
    return known[value.lower()]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def _seconds(value: str) -> float:
    message = f"seconds above 0 and up to {TIMEOUT_SECONDS_MAX:g}"
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError(message) from None
    if not 0 < seconds <= TIMEOUT_SECONDS_MAX:
        raise ValueError(message)
    return seconds


def _certificate_check(value: str) -> str:
    wanted = _text(value).lower()
    if wanted not in ("none", "optional", "required"):
        raise ValueError("none, optional or required")
    return wanted


PARAMETERS: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {
        "client_name": _text,
        "db": _whole(0, DB_MAX),
        "health_check_interval": _whole(0, 3600),
        "max_connections": _whole(1, CONNECTIONS_MAX),
        "password": _text,
        "sentinel_password": _text,
        "sentinel_ssl": _flag,
        "skip_full_coverage_check": _flag,
        "socket_connect_timeout": _seconds,
        "socket_keepalive": _flag,
        "socket_timeout": _seconds,
        "ssl": _flag,
        "ssl_ca_certs": _text,
        "ssl_cert_reqs": _certificate_check,
        "ssl_certfile": _text,
        "ssl_check_hostname": _flag,
        "ssl_keyfile": _text,
        "username": _text,
    }
)
"""The accepted parameters, of the comma form and of a URL's query, and how each is read."""

SSL_PATHS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

_FIELDS = {
    "db": "db",
    "username": "username",
    "password": "password",
    "ssl": "is_tls",
    "sentinel_password": "sentinel_password",
    "sentinel_ssl": "is_sentinel_tls",
}


def parse_target(
    text: str, redis_type: str = "redis", sentinel_master: str = "mymaster", origin: str = "connection_string"
) -> RedisTarget:
    """Returns the target that a connection string names.

    Args:
        text: `host:port,name=value,...` (several hosts for Cluster and Sentinel), or a `redis://`, `rediss://` or
            `unix://` URL. Not `embedded`.
        origin: what messages call the setting.

    Raises:
        ConfigError: the text cannot be understood, or does not fit the Redis type.
    """
    if redis_type not in REDIS_TYPES:
        raise ConfigError(f"redis_type {redis_type!r} is unknown; write one of {', '.join(REDIS_TYPES)}")
    hosts: tuple[tuple[str, int], ...] = ()
    socket_path = None
    if "://" in text:
        hosts, socket_path, parameters = _parse_url(text, redis_type, origin)
    else:
        hosts, parameters = _parse_commas(text, redis_type, origin)
    if parameters.pop("skip_full_coverage_check", False):
        parameters["is_full_coverage_required"] = False
    fields = {_FIELDS.get(name, name): value for name, value in parameters.items()}
    options = {name: fields.pop(name) for name in list(fields) if name in PARAMETERS and name not in _FIELDS.values()}
    target = RedisTarget(
        redis_type=redis_type,
        hosts=hosts,
        socket_path=socket_path,
        sentinel_master=sentinel_master,
        options=MappingProxyType(options),
        **fields,
    )
    _check_fit(target, origin)
    return target


def _check_fit(target: RedisTarget, origin: str) -> None:
    """Refuses combinations that Redis does not have, instead of leaving out a part of them."""
    if target.socket_path is not None and target.redis_type != "redis":
        raise ConfigError(f"{origin}: a unix socket is one Redis, but redis_type is {target.redis_type!r}; use redis")
    if target.redis_type == "redis" and len(target.hosts) > 1:
        raise ConfigError(
            f"{origin}: {len(target.hosts)} hosts with redis_type 'redis', which has one; "
            "remove the others, or set redis_type to redis_cluster or redis_sentinel"
        )
    if target.is_cluster and target.db:
        raise ConfigError(f"{origin}: db={target.db} with redis_type 'redis_cluster', which has only db 0; remove it")


def _parse_commas(text: str, redis_type: str, origin: str) -> tuple[tuple[tuple[str, int], ...], dict[str, Any]]:
    hosts: list[tuple[str, int]] = []
    parameters: dict[str, Any] = {}
    is_after_secret = False
    for place, part in enumerate((part.strip() for part in text.split(",")), start=1):
        where = f"{origin}, part {place}"
        name, equals, value = part.partition("=")
        if equals:
            _add_parameter(parameters, name.strip(), value.strip(), where=where, is_name_shown=not is_after_secret)
            is_after_secret = is_after_secret or "password" in name
        elif parameters:
            raise ConfigError(
                f"{where}: a host after a parameter; hosts come first, and a value that contains a comma "
                "(a password may) is written as a redis:// URL with %2C"
            )
        else:
            hosts.append(_host(part, SENTINEL_PORT if redis_type == "redis_sentinel" else REDIS_PORT, where))
    if not hosts:
        raise ConfigError(f"{origin}: no host; write it like localhost:6379,db=0, or a redis:// URL, or embedded")
    return tuple(hosts), parameters


def _host(part: str, default_port: int, where: str) -> tuple[str, int]:
    expected = f"{where}: expected host:port (an IPv6 address in brackets: [::1]:6379)"
    if "@" in part or "/" in part:
        raise ConfigError(f"{expected}; user and password go into username=... and password=..., or a redis:// URL")
    host, colon, port = part.rpartition(":") if not part.endswith("]") else (part, "", "")
    if not colon:
        host, port = part, str(default_port)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{expected}, got {part!r}")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= PORT_MAX:
        raise ConfigError(f"{expected} with a port from 1 to {PORT_MAX}, got {part!r}")
    return host, int(port)


def _add_parameter(parameters: dict[str, Any], name: str, value: str, *, where: str, is_name_shown: bool) -> None:
    shown = repr(name) if is_name_shown else "there (not shown, as it may be the tail of a password with a comma)"
    if name not in PARAMETERS:
        raise ConfigError(f"{where}: unknown parameter {shown}; accepted are {', '.join(PARAMETERS)}")
    if name in parameters:
        raise ConfigError(f"{where}: parameter {shown} is given twice; keep one")
    try:
        parameters[name] = PARAMETERS[name](value)
    except ValueError as error:
        # Only the rule is named: the value of `db` may be a piece of a password that was not escaped.
        raise ConfigError(f"{where}: parameter {shown} must be {error}") from None


def _parse_url(
    text: str, redis_type: str, origin: str
) -> tuple[tuple[tuple[str, int], ...], str | None, dict[str, Any]]:
    escape = "in a user name or password write @ as %40, : as %3A, / as %2F, # as %23, , as %2C"
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        # The library's message quotes what it took for a port or address: with a "/" in the password, a piece of it.
        raise ConfigError(f"{origin}: the URL's host and port cannot be read; {escape}") from None
    if url.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(f"{origin}: URL scheme {url.scheme!r}; accepted are redis, rediss (TLS) and unix")
    if url.fragment or text.endswith("#"):
        raise ConfigError(f"{origin}: the URL has a '#' part; {escape}")
    parameters = _url_parameters(url, origin)
    if url.scheme == "unix":
        if not url.path or port is not None:
            raise ConfigError(f"{origin}: the URL names no socket; write it like unix:///run/redis/redis.sock?db=0")
        # With no "//user@" the first part of a path that lacks its third slash would be taken for a host.
        if host:
            raise ConfigError(f"{origin}: a unix URL has no host; write three slashes, like unix:///run/redis.sock")
        return (), unquote(url.path), parameters
    if not host or "," in host:
        raise ConfigError(f"{origin}: the URL names no single host; several hosts need the form host:port,host:port")
    if url.path not in ("", "/"):
        if "db" in parameters:
            raise ConfigError(f"{origin}: the URL names the database twice, in its path and as db=; keep one")
        try:
            parameters["db"] = PARAMETERS["db"](url.path.removeprefix("/"))
        except ValueError as error:
            raise ConfigError(f"{origin}: the URL's path is the database and must be {error}; {escape}") from None
    if url.scheme == "rediss" and not parameters.setdefault("ssl", True):
        raise ConfigError(f"{origin}: rediss means TLS, but ssl is false; write redis:// or remove ssl")
    default_port = SENTINEL_PORT if redis_type == "redis_sentinel" else REDIS_PORT
    return ((host, default_port if port is None else port),), None, parameters


def _url_parameters(url: SplitResult, origin: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    is_after_secret = False
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        _add_parameter(parameters, name, value, where=f"{origin}, query", is_name_shown=not is_after_secret)
        is_after_secret = is_after_secret or "password" in name
    for name, part in (("username", url.username), ("password", url.password)):
        if part:
            if name in parameters:
                raise ConfigError(f"{origin}: the URL gives the {name} twice; keep one")
            parameters[name] = unquote(part)
    return parameters
