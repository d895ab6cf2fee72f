"""`larder audit`: its exit status, its table and its JSON."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from store.kernel.judging import CAUSES, Cause
from store.monitor.audits import last_audit
from tests.audit.logged_shop import LoggedShop, added, one_user
from tests.stores import NOW, user_rows, yaml_of


def test_it_tells_people_what_it_found(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 2, 3])
    done = shop.command()
    assert done.exit_code == 0, done.output
    assert "checkout: 3 vectors served, 3 logged, 0 left out by sampling, 0 dropped; 3 audited" in done.stdout
    assert "every value is reproduced" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("users:spent"))
    assert row.split() == ["users:spent", "3", "3", "0", "0", "0", "-"]
    shop.write_source(added(user_rows(), one_user(3, NOW - timedelta(minutes=30), 77, NOW + timedelta(hours=1))))
    done = shop.command("--service", "checkout")
    assert done.exit_code == 0, done.output
    assert "late: 1" in done.stdout
    assert "skew  users:orders  user_id=3" in done.stdout
    assert "served 30 (PRESENT), training 77; late" in done.stdout
    assert CAUSES[Cause.LATE] in done.stdout


def test_what_fails_is_told_by_its_status(shop: LoggedShop) -> None:
    shop.materialize()
    key, _, _ = shop.row_of(3)
    shop.server.client().delete(key)
    shop.serve([3])
    done = shop.command()
    assert done.exit_code == 1
    assert "NO CAUSE: 1" in done.stdout
    assert "FAILED: 5 features have differences that nothing explains" in done.stdout
    told = json.loads(shop.command("--json").stdout)
    assert told["is_clean"] is False
    assert {each["cause"] for each in told["differences"]} == {None}
    assert {each["is_failure"] for each in told["differences"]} == {True}


def test_machines_get_everything(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 2])
    told = json.loads(shop.command("--json", "--from", NOW.isoformat(), "--sample", "1").stdout)
    kept = last_audit(shop.repo)
    assert kept is not None
    assert kept.items() >= told.items()
    assert (kept["asked_services"], kept["ran_at"][:10]) == ([], NOW.isoformat()[:10])
    assert (told["from"], told["to"], told["differences_left_out"]) == (NOW.isoformat(), None, 0)
    [service] = told["services"]
    assert service["feature_service"] == "checkout"
    assert service["coverage"]["audited"] == 1
    [spent] = [feature for feature in service["features"] if feature["feature"] == "users:spent"]
    assert spent == {
        "feature": "users:spent",
        "type": "DOUBLE",
        "audited": 1,
        "is_clean": True,
        "reproduction": {"equal": 1, "different": 0, "no_longer_known": {}},
        "skew": {"equal": 1, "different": 0, "causes": {}, "without_cause": 0},
    }


def test_a_report_that_cannot_be_kept_is_told_all_the_same(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1])
    (shop.repo / "data" / "monitor").write_text("in the way")
    done = shop.command("--json")
    assert (done.exit_code, json.loads(done.stdout)["is_clean"]) == (0, True)
    assert "larder: the report is not kept for pages and metrics: " in done.stderr
    assert "data/monitor" in done.stderr


def test_an_audit_that_could_not_be_run_is_none(shop: LoggedShop) -> None:
    assert shop.command("--service", "nothing").exit_code == 2
    assert last_audit(shop.repo) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--service", "nothing"), "'nothing' is not registered"),
        (("--from", "yesterday"), "--from 'yesterday' is no instant"),
        (("--to", "2026-03-01T12:00:00.1234567Z"), "--to"),
        (("--from", "2026-03-01T12:00", "--to", "2026-03-01T12:00Z"), "is not before"),
        (("--from", "2026-03-02"), "nothing can be audited"),
    ],
)
def test_what_cannot_be_run_is_told_apart(shop: LoggedShop, arguments: tuple[str, ...], said: str) -> None:
    shop.materialize()
    shop.serve([1])
    done = shop.command(*arguments)
    assert done.exit_code == 2, done.output
    assert said in done.output


def test_a_service_that_is_not_logged_is_told_how_to(shop: LoggedShop) -> None:
    from tests.stores import objects

    shop.store.apply(objects())
    done = shop.command()
    assert done.exit_code == 2
    assert "logging_config=LoggingConfig(" in done.output
    assert "'checkout' is not logged" in shop.command("--service", "checkout").output


def test_a_source_that_is_gone_stops_it(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1])
    (shop.repo / "data" / "users.parquet").unlink()
    done = shop.command()
    assert done.exit_code == 2
    assert "users.parquet" in done.output


def test_other_stores_cannot_be_audited(shop: LoggedShop) -> None:
    settings = yaml_of(shop.server.url).replace("  type: store.online.RedisOnlineStore", "  type: sqlite")
    path: Path = shop.repo / "feature_store.yaml"
    path.write_text(settings.replace(f"  connection_string: {shop.server.url}\n", ""))
    done = shop.command()
    assert done.exit_code == 2
    assert "cannot be audited" in done.output
