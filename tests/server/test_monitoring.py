"""Freshness, rates and the last audit over HTTP, from a real server with healthy views and broken ones."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from store.monitor.audits import keep_audit
from tests.redis_servers import free_port, poll_until
from tests.server.live import FRESH, NOW, STALE, LiveServer, copy_repo, serving, write_repo
from tests.server.test_operations import samples

UNKNOWN = {"newest": None, "age_seconds": None, "problem": None}


def views_of(live: LiveServer, path: str = "/api/freshness") -> dict[str, Any]:
    answer = live.get(path)
    assert answer.status_code == 200, answer.text
    return {each["view"]: each for each in answer.json()["views"]}


def test_freshness_is_told_of_healthy_views_and_reasons_of_broken_ones(server: LiveServer) -> None:
    # A reading is told for some seconds, and the first may be from before the rows were materialized.
    poll_until(lambda: views_of(server)["areas"]["online"]["newest"], what="the rows that were materialized are told")
    views = views_of(server)
    assert list(views) == ["areas", "driver_stats", "lacking", "lost", "recent"]
    areas = views["areas"]
    for side in (areas["offline"], areas["online"]):
        # Other tests push newer rows to this server.
        newest = datetime.fromisoformat(side["newest"])
        assert newest >= FRESH
        assert side["age_seconds"] <= (datetime.now(NOW.tzinfo) - FRESH).total_seconds()
        assert side["problem"] is None
    assert areas["offline"]["future_until"] is None
    assert areas["ttl_seconds"] is None
    assert areas["materialized_until"] >= "2100-01-01T00:00:00+00:00"
    assert views["driver_stats"]["ttl_seconds"] == 86_400
    assert "lost.parquet" in views["lost"]["offline"]["problem"]
    assert views["lost"]["online"] == views["recent"]["online"] == UNKNOWN
    assert views["lost"]["materialized_until"] is None
    # Its time is known though a column is missing: whoever reads that is told.
    assert views["lacking"]["offline"]["newest"] == FRESH.isoformat()


def test_gauges_are_there_for_what_is_known(server: LiveServer) -> None:
    gauge = "larder_view_offline_freshness_seconds", "view=areas"
    poll_until(lambda: gauge in samples(server), what="somebody has looked")
    found = samples(server)
    assert found[gauge] >= (datetime.now(NOW.tzinfo) - NOW + timedelta(minutes=59)).total_seconds()
    assert ("larder_view_offline_freshness_seconds", "view=lost") not in found
    assert found["larder_view_ttl_seconds", "view=driver_stats"] == 86_400
    assert ("larder_audit_failed",) not in found


def test_unknown_keys_are_rows_asked_of_which_a_view_has_nothing(server: LiveServer) -> None:
    def rates(view: str) -> dict[str, Any]:
        nothing = {"rows": 0, "unknown_keys": 0, "values": {}}
        return views_of(server, "/api/status").get(view, nothing)

    before, windowed = rates("driver_stats"), rates("recent")
    asked = {"driver_id": [1, 99, None, 99, 2]}
    assert server.lookup(asked, "driver_stats:rate", "driver_stats:trips", "recent:recent_trips").status_code == 200
    after = rates("driver_stats")
    assert after["rows"] - before["rows"] == 5
    # A null key is known to nobody; a row that is too old is known.
    assert after["unknown_keys"] - before["unknown_keys"] == 3
    assert after["values"]["NOT_FOUND"] - before["values"].get("NOT_FOUND", 0) == 6
    assert rates("recent")["unknown_keys"] - windowed["unknown_keys"] == 5
    told = server.get("/api/status").json()
    assert NOW - timedelta(hours=1) < datetime.fromisoformat(told["since"]) <= datetime.fromisoformat(told["now"])


def test_a_push_is_the_newest_event_and_the_last_audit_is_told(applied: Path, tmp_path: Path) -> None:
    repo = copy_repo(applied, tmp_path / "repo", "embedded")
    with serving(repo) as live:
        assert live.get("/api/audit").json() == {"audit": None, "problems": []}
        report = {"ran_at": STALE.isoformat(), "is_clean": False, "services": []}
        damaged = keep_audit(repo, report)
        damaged.write_bytes(damaged.read_bytes()[:20])
        kept = keep_audit(repo, report)
        assert live.get("/api/audit").json() == {"audit": report, "problems": []}
        kept.unlink()
        told = live.get("/api/audit").json()
        assert told["audit"] is None
        assert str(damaged) in told["problems"][0]
        keep_audit(repo, report)
        poll_until(lambda: samples(live).get(("larder_audit_failed",)) == 1, what="the gauge follows")
        assert samples(live)["larder_audit_age_seconds",] >= 3 * 86_400
        assert views_of(live)["driver_stats"]["online"] == UNKNOWN
        df = {"driver_id": [1], "rate": [1.0], "trips": [1], "photo": [None], "marks": [None]}
        df |= {"event_timestamp": [FRESH.isoformat()], "created": [FRESH.isoformat()]}
        assert live.post("/push", {"push_source_name": "stats_push", "df": df}).status_code == 200
        poll_until(
            lambda: views_of(live)["driver_stats"]["online"]["newest"] == FRESH.isoformat(), what="the push is told"
        )


def test_without_redis_one_side_is_told_and_without_a_registry_nothing(applied: Path, tmp_path: Path) -> None:
    repo = copy_repo(applied, tmp_path / "repo", f"redis://127.0.0.1:{free_port()}")
    with serving(repo) as live:
        areas = views_of(live)["areas"]
        assert areas["offline"]["newest"] == FRESH.isoformat()
        assert areas["online"]["newest"] is None
        assert "127.0.0.1" in areas["online"]["problem"]
    unapplied = write_repo(tmp_path / "unapplied")
    with serving(unapplied) as live:
        answer = live.get("/api/freshness")
        assert answer.status_code == 503
        assert "feast apply" in answer.json()["detail"]
        assert live.get("/api/status").json()["views"] == []
        assert json.loads(live.get("/api/audit").text)["audit"] is None
        assert not [name for name, *_ in samples(live) if name.startswith("larder_view")]
