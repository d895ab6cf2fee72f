"""Connects to Redis as the settings say, and turns what redis-py raises into Larder's errors.

A client of the embedded Redis joins it again by itself: if the server was stopped or killed in between, the next
connection that finds no socket starts it anew.
"""

import asyncio
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis import exceptions
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from store.errors import ConfigError, OnlineStoreError, OnlineStoreTimeout, OnlineStoreUnavailable
from store.limits import REDIS_CONNECT_TIMEOUT_SECONDS, REDIS_TIMEOUT_SECONDS
from store.online.deadlines import BoundedParser
from store.online.embedded import ensure_running
from store.online.lost_connections import (
    AsyncMasterConnection,
    AsyncTcpConnection,
    AsyncTlsConnection,
    AsyncTlsMasterConnection,
    AsyncUnixConnection,
    lose_connections_of,
)
from store.online.multiplexed import Multiplexed
from store.online.targets import EMBEDDED, SSL_PATHS, RedisTarget, parse_target

__all__ = ["REDIS_ERRORS", "RedisTarget", "connect", "connect_async", "parse_target", "settings_of", "translate"]

REDIS_URL_VARIABLE = "REDIS_URL"

REDIS_ERRORS = (exceptions.RedisError, exceptions.RedisClusterException)
"""All that redis-py raises: its cluster errors stand beside its other errors, not under them."""

RETRIES_MAX = 3
"""Attempts after the first, on a connection that was refused or lost: a restart or failover takes a moment."""

RETRY_BASE_SECONDS = 0.02
RETRY_CAP_SECONDS = 0.2
"""Three waits of at most 0.04, 0.08 and 0.16 s, each cut short at random so that clients do not come back as one."""

POOL_CONNECTIONS_MAX = 64
"""Connections of one client; more callers wait for one to come free, as Redis answers them one by one anyway."""

REJOIN_SECONDS = 10.0
"""For an embedded Redis that ended under its clients to be back; one that loads longer fails the request, not more."""

# Redis 6.2 wraps what a command inside a script answers: "ERR Error running script (...): @user_script:1: -OOM ...".
_CODE = re.compile(r"(?:^|\s)-?(OOM|READONLY|CLUSTERDOWN|MASTERDOWN|LOADING|MISCONF|NOREPLICAS|TRYAGAIN)\b")


_PIPELINE_COMMAND = re.compile(r"^Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)


class OnlineSettings(Protocol):
    """What is read of the online store's configuration."""

    @property
    def connection_string(self) -> str:
        """`embedded`, the comma form, or a URL."""

    @property
    def redis_type(self) -> Any:
        """One of `REDIS_TYPES`, or an enum of them."""

    @property
    def sentinel_master(self) -> str:
        """The name under which Sentinel knows the master."""


def settings_of(config: OnlineSettings, repo_path: Path | None, environ: Mapping[str, str] = os.environ) -> RedisTarget:
    """Returns which Redis to use; `REDIS_URL` goes before `connection_string`, and `embedded` starts or joins it.

    Args:
        repo_path: the feature repo, to which an embedded Redis belongs and relative certificate paths refer.

    Raises:
        ConfigError: the settings cannot be understood or do not fit each other, or nothing can be started.
        OnlineStoreUnavailable: the embedded Redis does not start.
    """
    override = environ.get(REDIS_URL_VARIABLE, "").strip()
    origin = REDIS_URL_VARIABLE if override else "connection_string"
    text = override or config.connection_string.strip()
    redis_type = str(getattr(config.redis_type, "value", config.redis_type))
    if text != EMBEDDED:
        return _resolved(parse_target(text, redis_type, config.sentinel_master, origin), repo_path)
    if redis_type != "redis":
        raise ConfigError(f"{origin}: embedded is one Redis, but redis_type is {redis_type!r}; use redis")
    if repo_path is None:
        raise ConfigError(f"{origin}: embedded needs a feature repo folder, and there is none; name a Redis instead")
    return RedisTarget(embedded_repo=Path(repo_path), socket_path=str(ensure_running(Path(repo_path), environ)))


def _resolved(target: RedisTarget, repo_path: Path | None) -> RedisTarget:
    """Returns the target with the paths of its certificates resolved against the repo folder."""
    if repo_path is None:
        return target
    paths = {name: str(Path(repo_path) / target.options[name]) for name in SSL_PATHS if name in target.options}
    return replace(target, options=MappingProxyType({**target.options, **paths})) if paths else target


def connect(target: RedisTarget) -> Any:
    """Returns a synchronous redis-py client, of a cluster where the target is one; a cluster is connected at once.

    Raises:
        OnlineStoreUnavailable: no node of the cluster can be reached.
    """
    options = _options(target)
    retry = _retry(Retry)
    if target.is_cluster:
        nodes = [redis.cluster.ClusterNode(host, port) for host, port in target.hosts]
        with translated(target):
            return redis.RedisCluster(
                startup_nodes=nodes, require_full_coverage=target.is_full_coverage_required, retry=retry, **options
            )
    options |= {"retry": retry, "parser_class": BoundedParser}
    if target.is_sentinel:
        sentinel = redis.Sentinel(target.hosts, sentinel_kwargs=_sentinel_options(target, options), **options)
        return sentinel.master_for(target.sentinel_master)
    pool_options = _pool_options(target, options)
    if target.embedded_repo is not None:
        pool_options |= {"connection_class": EmbeddedConnection, "repo_path": target.embedded_repo}
    elif target.socket_path is not None:
        pool_options["connection_class"] = UnixConnection
    elif target.is_tls:
        pool_options["connection_class"] = redis.SSLConnection
    return redis.Redis.from_pool(redis.BlockingConnectionPool(**pool_options))


def connect_async(target: RedisTarget) -> Any:
    """Returns an asynchronous redis-py client, of a cluster where the target is one; it connects at its first use."""
    options = _options(target)
    retry = _retry(redis.asyncio.retry.Retry)
    if target.is_cluster:
        nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in target.hosts]
        client = redis.asyncio.RedisCluster(
            startup_nodes=nodes, require_full_coverage=target.is_full_coverage_required, retry=retry, **options
        )
        lose_connections_of(client)
        return client
    options["retry"] = retry
    if target.is_sentinel:
        sentinel = redis.asyncio.Sentinel(target.hosts, sentinel_kwargs=_sentinel_options(target, options), **options)
        kind = AsyncTlsMasterConnection if target.is_tls else AsyncMasterConnection
        return sentinel.master_for(
            target.sentinel_master, connection_pool_class=AsyncSentinelPool, connection_class=kind
        )
    pool_options = _pool_options(target, options)
    if target.embedded_repo is not None:
        pool_options |= {"connection_class": AsyncEmbeddedConnection, "repo_path": target.embedded_repo}
    elif target.socket_path is not None:
        pool_options["connection_class"] = AsyncUnixConnection
    else:
        pool_options["connection_class"] = AsyncTlsConnection if target.is_tls else AsyncTcpConnection
    return redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool(**pool_options))


def multiplexed(client: Any, target: RedisTarget) -> Multiplexed:
    """Returns a shared connection to the one Redis of an asynchronous client, connecting as that client does."""
    seconds = target.options.get("socket_timeout", REDIS_TIMEOUT_SECONDS)
    return Multiplexed(client.connection_pool.make_connection, seconds, _backoff(), RETRIES_MAX)


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS)


def _retry(kind: type[Any]) -> Any:
    """Returns the retry policy of either kind: connections refused or lost, never an answer that came too late."""
    errors = (exceptions.ConnectionError, ConnectionRefusedError, ConnectionResetError)
    return kind(_backoff(), RETRIES_MAX, supported_errors=errors)


def _options(target: RedisTarget) -> dict[str, Any]:
    """Returns the arguments that all clients of a target take."""
    options: dict[str, Any] = {
        "socket_timeout": REDIS_TIMEOUT_SECONDS,
        "socket_connect_timeout": REDIS_CONNECT_TIMEOUT_SECONDS,
        "max_connections": POOL_CONNECTIONS_MAX,
        # RESP3 brings us nothing, and redis-py 7.4 cannot speak it on a unix socket.
        "protocol": 2,
        "username": target.username,
        "password": target.password,
        **target.options,
    }
    if target.is_tls and target.redis_type != "redis":
        options["ssl"] = True
    if not target.is_tls:
        options = {name: value for name, value in options.items() if not name.startswith("ssl_")}
    if not target.is_cluster:
        options["db"] = target.db
    return options


def _pool_options(target: RedisTarget, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a pool for one Redis, reached by socket or by host and port."""
    # A caller waits for a free connection as long as for an answer: a pool in use is a slow Redis.
    pool_options = {"timeout": options["socket_timeout"], **options}
    if target.socket_path is not None:
        pool_options.pop("socket_keepalive", None)
        return pool_options | {"path": target.socket_path}
    (host, port), *_ = target.hosts
    return pool_options | {"host": host, "port": port}


def _sentinel_options(target: RedisTarget, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of the connections to the sentinels, which have a password and TLS of their own."""
    own = {name: value for name, value in options.items() if name.startswith("socket_") or name == "retry"}
    own |= {"protocol": 2, "password": target.sentinel_password}
    if target.is_sentinel_tls:
        own |= {"ssl": True, **{name: value for name, value in target.options.items() if name.startswith("ssl_")}}
    return own


class AsyncSentinelPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """Connections to a master that, when they are all closed, closes those to the sentinels too."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Closes the connections; only those that are not in use after a failover."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            # redis-py leaves them open, and a closed event loop then warns about each.
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


class UnixConnection(redis.UnixDomainSocketConnection):
    """A connection to a unix socket."""

    # redis-py 7.4 reads both when a connect times out, and its own class has neither.
    host = "unix socket"
    port = 0


class EmbeddedConnection(UnixConnection):
    """A connection to the embedded Redis, which it joins again if the server is gone."""

    def __init__(self, *, repo_path: Path, **options: Any) -> None:
        super().__init__(**options)
        self._repo_path = repo_path

    def _connect(self) -> socket.socket:
        try:
            connected: socket.socket = super()._connect()
        except (FileNotFoundError, ConnectionRefusedError):
            self.path = str(ensure_running(self._repo_path, start_seconds=REJOIN_SECONDS))
            connected = super()._connect()
        return connected


class AsyncEmbeddedConnection(AsyncUnixConnection):
    """An asynchronous connection to the embedded Redis, which it joins again if the server is gone."""

    def __init__(self, *, repo_path: Path, **options: Any) -> None:
        super().__init__(**options)
        self._repo_path = repo_path

    async def _connect(self) -> None:
        try:
            await super()._connect()
        except (FileNotFoundError, ConnectionRefusedError):
            self.path = str(await asyncio.to_thread(ensure_running, self._repo_path, start_seconds=REJOIN_SECONDS))
            await super()._connect()


@contextmanager
def translated(target: RedisTarget) -> Iterator[None]:
    """Turns every error of redis-py inside the block into an `OnlineStoreError`."""
    try:
        yield
    except REDIS_ERRORS as error:
        raise translate(error, target) from error


def too_late(target: RedisTarget, seconds: float) -> OnlineStoreTimeout:
    """Returns the error to raise for a conversation that took longer than all of it may take."""
    return OnlineStoreTimeout(
        f"{target.description} answered too slowly: not all within {seconds:g} s, its retries included; "
        "try again, ask for fewer keys at once, or raise socket_timeout in connection_string"
    )


def translate(error: BaseException, target: RedisTarget) -> OnlineStoreError:
    """Returns the error to raise for one of redis-py's; the message names the Redis and never a password.

    A timeout becomes `OnlineStoreTimeout`; a connection refused or lost, a server that loads, fails over, refuses
    the login or only reads becomes `OnlineStoreUnavailable`; anything else `OnlineStoreError`.
    """
    if isinstance(error.__context__, OnlineStoreError):
        return error.__context__  # From joining the embedded Redis; redis-py wrapped it and kept less of it.
    name, text = target.description, _scrubbed(error, target)
    if isinstance(error, exceptions.TimeoutError):
        seconds = target.options.get("socket_timeout", REDIS_TIMEOUT_SECONDS)
        return OnlineStoreTimeout(
            f"{name} did not answer within {seconds:g} s ({text}); try again, ask for fewer keys at once, "
            "or raise socket_timeout in connection_string"
        )
    if isinstance(error, _LOGIN_ERRORS):
        # Some servers quote the arguments of a login that they refuse, so their words stay out.
        return OnlineStoreUnavailable(
            f"{name} refuses the login or its rights ({type(error).__name__}); "
            "check username and password in connection_string or REDIS_URL, and the user's ACL"
        )
    code = _CODE.search(text)
    kind = code[1] if code else ""
    if isinstance(error, exceptions.OutOfMemoryError) or kind == "OOM":
        return OnlineStoreError(f"{name} is full ({text}); raise its maxmemory or drop feature views, then try again")
    if kind == "MISCONF":
        return OnlineStoreError(f"{name} cannot write its file and refuses writes ({text}); make room on its disk")
    if isinstance(error, exceptions.ReadOnlyError) or kind == "READONLY":
        return OnlineStoreUnavailable(f"{name} is a replica and only reads ({text}); connect to its master")
    if isinstance(error, exceptions.BusyLoadingError) or kind == "LOADING":
        return OnlineStoreUnavailable(f"{name} is loading its data ({text}); try again in a moment")
    if isinstance(error, _SENTINEL_ERRORS):
        # redis-py's text is the repr of its clients, a page long.
        return OnlineStoreUnavailable(
            f"{name} is not known: no sentinel answers or none has such a master in order; "
            "check the sentinels and sentinel_master"
        )
    if isinstance(error, exceptions.InvalidResponse):
        return OnlineStoreUnavailable(f"{name} is no Redis ({text}); check host, port and ssl in connection_string")
    # The plain class says that no node could be reached; its other children are about the commands themselves.
    if isinstance(error, _CLUSTER_ERRORS) or type(error) is exceptions.RedisClusterException or kind:
        return OnlineStoreUnavailable(f"{name} is failing over or lacks nodes ({text}); try again or check its nodes")
    if isinstance(error, exceptions.ConnectionError):
        return OnlineStoreUnavailable(
            f"{name} cannot be reached ({text}); check that it runs and that connection_string or REDIS_URL is right"
        )
    return OnlineStoreError(f"{name} refused a command ({type(error).__name__}: {text})")


_LOGIN_ERRORS = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
)
_CLUSTER_ERRORS = (
    exceptions.ClusterError,
    exceptions.TryAgainError,
    exceptions.SlotNotCoveredError,
)
_SENTINEL_ERRORS = (redis.sentinel.MasterNotFoundError, redis.asyncio.sentinel.MasterNotFoundError)


def _scrubbed(error: BaseException, target: RedisTarget) -> str:
    """Returns an error's text without the target's passwords."""
    # redis-py puts the command before an error in a pipeline: keys and rows, which are no part of the message.
    text = _PIPELINE_COMMAND.sub("", str(error)).rstrip(".") or type(error).__name__
    for secret in (target.password, target.sentinel_password):
        if secret:
            text = text.replace(secret, "***")
    return text
