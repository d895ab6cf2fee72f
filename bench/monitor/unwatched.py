"""`larder serve` that looks after no freshness and no audit: what lookups cost where nobody monitors."""

import asyncio

from cli.main import main
from server.state import ServerState


async def _keep_nothing(_: ServerState) -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    ServerState.keep_monitor_fresh = _keep_nothing  # type: ignore[method-assign, assignment]
    main()
