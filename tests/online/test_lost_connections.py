"""A connection that is closed while it connects is a lost one, whatever redis-py raises of it."""

import pytest

from store.online.lost_connections import AsyncTcpConnection


@pytest.mark.anyio
async def test_a_connection_without_a_transport_is_lost() -> None:
    # So redis-py leaves one that was disconnected between opening and its first command.
    with pytest.raises(ConnectionResetError, match="closed while it connected"):
        await AsyncTcpConnection()._send_packed_command([b"PING"])
