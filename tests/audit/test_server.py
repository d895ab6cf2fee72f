"""A real server logs what it serves, and what it served is audited."""

import os
import signal

import pytest

from tests.audit.logged_shop import LOG, LoggedShop, features_of
from tests.server.live import LiveServer, serving


def look_up(server: LiveServer, *users: int) -> None:
    entities = {"user_id": list(users), "amount": [2.0] * len(users)}
    answer = server.post("/get-online-features", {"entities": entities, "feature_service": "checkout"})
    assert answer.status_code == 200, answer.text


def check(shop: LoggedShop, vectors: int) -> None:
    told = shop.audit()
    assert told["is_clean"], told["differences"][:3]
    coverage = told["services"][0]["coverage"]
    assert coverage == {
        "served": vectors, "logged": vectors, "sampled_out": 0, "dropped": 0, "audited": vectors,
        "workers_without_last_file": 0, "missing_files": 0,
    }  # fmt: skip
    assert {feature["reproduction"]["equal"] for feature in features_of(told).values()} == {vectors}


def test_what_a_server_served_is_logged_once_it_has_stopped(shop: LoggedShop) -> None:
    shop.materialize()
    with serving(shop.repo) as server:
        for _ in range(10):
            look_up(server, 1, 2, 3, 4, 99)
        assert server.lookup({"user_id": [1]}, "users:spent").status_code == 200, "no service, so it is not logged"
    check(shop, 50)


@pytest.mark.long
def test_what_several_workers_served_is_logged(shop: LoggedShop) -> None:
    shop.materialize()
    with serving(shop.repo, "--workers", "3") as server:
        for _ in range(60):
            look_up(server, 1, 2, 99)
    check(shop, 180)


@pytest.mark.long
def test_a_killed_server_leaves_no_half_of_a_file(shop: LoggedShop) -> None:
    shop.materialize()
    with serving(shop.repo, exit_code=-signal.SIGKILL) as server:
        look_up(server, 1, 2)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    assert [path for path in (shop.repo / LOG).glob("*.parquet") if not path.name.startswith(".")] == []
    with serving(shop.repo) as server:
        look_up(server, 3)
    check(shop, 1)
