"""A server whose Redis are several: a master goes and a replica takes over, a node of a cluster falls silent."""

import signal
from pathlib import Path

from tests.redis_servers import poll_until, private_cluster, private_redis_tcp, private_sentinel
from tests.server.callers import DRIVERS, ask, assert_refused, assert_right, calling, write
from tests.server.live import copy_repo, serving


def test_a_failover_by_sentinel_is_followed_and_the_old_master_gets_no_writes(applied: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    hasty = ("sentinel down-after-milliseconds larder 500", "sentinel failover-timeout larder 3000")
    with (
        private_redis_tcp(folders[0]) as master,
        private_redis_tcp(folders[1], "--replicaof", "127.0.0.1", str(master.port)) as replica,
        private_sentinel(folders[2], master, "larder", *hasty) as sentinel,
    ):
        settings = f"{sentinel.address}\n  redis_type: redis_sentinel\n  sentinel_master: larder"
        watcher = sentinel.client()
        poll_until(lambda: watcher.execute_command("SENTINEL", "REPLICAS", "larder"), what="the replica is known")
        with serving(copy_repo(applied, tmp_path / "repo", settings)) as live:
            drivers = list(range(1, DRIVERS + 1))
            poll_until(lambda: write(live, drivers).status_code == 200, what="the server finds the master")
            known = replica.client()
            poll_until(lambda: known.dbsize() == master.client().dbsize(), what="the replica has all rows")
            with calling(live) as callers:
                poll_until(callers.is_served_again(), what="lookups are answered before the failover")
                master.process.send_signal(signal.SIGSTOP)
                poll_until(lambda: known.info("replication")["role"] == "master", what="the replica is promoted")
                poll_until(callers.is_served_again(), what="lookups are answered by the new master")
                master.process.send_signal(signal.SIGCONT)
                poll_until(lambda: write(live, [DRIVERS + 1]).status_code == 200, what="writes go to the new master")
                assert known.dbsize() == master_size(drivers)
                poll_until(callers.is_served_again(), what="lookups go on")
                assert_right(ask(live, [DRIVERS + 1]), [DRIVERS + 1])


def master_size(drivers: list[int]) -> int:
    """Returns the keys of a Redis with these drivers and one more: theirs, the project's layouts, the newest events."""
    return len(drivers) + 3


def test_a_silent_node_of_a_cluster_fails_requests_in_time_and_service_resumes(applied: Path, tmp_path: Path) -> None:
    with private_cluster(tmp_path) as nodes:
        settings = ",".join(node.address for node in nodes) + "\n  redis_type: redis_cluster"
        with serving(copy_repo(applied, tmp_path / "repo", settings)) as live:
            drivers = list(range(1, DRIVERS + 1))
            poll_until(lambda: write(live, drivers).status_code == 200, what="the server finds its cluster")
            with calling(live) as callers:
                poll_until(callers.is_served_again(), what="lookups are answered before the fault")
                nodes[1].process.send_signal(signal.SIGSTOP)
                try:
                    # Keys of all nodes, the silent one too.
                    assert_refused(lambda: ask(live, drivers))
                finally:
                    nodes[1].process.send_signal(signal.SIGCONT)
                poll_until(callers.is_served_again(), what="lookups are answered after the fault")
                poll_until(lambda: ask(live, drivers).status_code == 200, what="all nodes answer again")
                assert_right(ask(live, drivers), drivers)
