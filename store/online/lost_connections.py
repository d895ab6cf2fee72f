"""redis-py's asynchronous connections, for an event loop that refuses to write where the other end has hung up.

Asyncio's own loop takes such bytes and drops them, and the read that follows finds the connection lost. uvloop raises
RuntimeError, which redis-py does not know: it would neither try again nor say what was lost.
"""

from collections.abc import Iterable
from typing import Any

import redis.asyncio
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection


class _Losing:
    """Says ConnectionResetError where the transport is closed, as a socket would."""

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        try:
            await super()._send_packed_command(command)  # type: ignore[misc]
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from error
        except AttributeError as error:
            # A cluster's client closes all connections when it looks for its nodes anew, this one while it connected.
            if self._writer is not None:  # type: ignore[attr-defined]
                raise
            raise ConnectionResetError("closed while it connected") from error


class AsyncTcpConnection(_Losing, redis.asyncio.Connection):
    """A connection to a host and port."""


class AsyncTlsConnection(_Losing, redis.asyncio.SSLConnection):
    """The same through TLS."""


class AsyncUnixConnection(_Losing, redis.asyncio.UnixDomainSocketConnection):
    """A connection to a unix socket."""


class AsyncMasterConnection(_Losing, SentinelManagedConnection):
    """A connection to the master that Sentinel names."""


class AsyncTlsMasterConnection(_Losing, SentinelManagedSSLConnection):
    """The same through TLS."""


def lose_connections_of(cluster: Any) -> None:
    """Makes the connections of a cluster's client ones of ours; it takes no class but redis-py's own two."""
    is_tls = cluster.connection_kwargs["connection_class"] is redis.asyncio.SSLConnection
    ours = AsyncTlsConnection if is_tls else AsyncTcpConnection
    cluster.connection_kwargs["connection_class"] = ours
    for node in cluster.nodes_manager.startup_nodes.values():
        node.connection_class = ours
