"""Profiles of each kind of subject: what stands in files and logs, whole, and what is wrong with it in sentences."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Field, FileSource
from feast.data_source import PushMode
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Int64
from typer.testing import CliRunner

from cli.main import app
from store.clock import to_us
from store.errors import UnknownObject
from store.monitor.due import DAY_US, Asked
from store.monitor.profiling import Outcome, Profiler
from store.monitor.subjects import Span, Subject, SubjectKind
from tests.audit.clicks_shop import ClicksShop
from tests.audit.logged_shop import LoggedShop, added, one_user
from tests.stores import NOW, user_rows, user_view

DAY = timedelta(days=1)
TODAY = Asked(to_us(NOW) // DAY_US * DAY_US, None, DAY_US)
DUE = Asked(None, None, DAY_US)
USERS = Subject(SubjectKind.FEATURE_VIEW, "users")
CHECKOUT = Subject(SubjectKind.FEATURE_SERVICE, "checkout")


def run(shop: LoggedShop | ClicksShop, subject: Subject, asked: Asked = TODAY) -> Outcome:
    shop.store.registry.refresh()
    return Profiler(shop.store, shop.repo).run(subject, asked)


def columns_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.problem == ""
    [profile] = outcome.profiles
    return dict(profile.columns)


# --- feature views ------------------------------------------------------------------------------


def test_a_view_is_profiled_by_the_rows_of_its_source(shop: LoggedShop) -> None:
    columns = columns_of(run(shop, USERS))
    assert [*columns] == ["spent", "orders", "name", "last"] or set(columns) == {"spent", "orders", "name", "last"}
    orders = columns["orders"].numbers
    assert (orders.least, orders.greatest, orders.mean, columns["orders"].distinct) == (10, 50, 30.0, 5)
    assert columns["orders"].type_name == "Int64"
    assert (columns["name"].nulls, columns["name"].rows) == (1, 5)
    assert columns["last"].lengths.greatest == 5


def test_a_run_takes_what_is_due_once_and_late_rows_again(shop: LoggedShop) -> None:
    rows = user_rows(3, NOW - 2 * DAY)
    shop.write_source(rows)
    first = run(shop, USERS, DUE)
    assert [profile.rows for profile in first.profiles] == [3, 0]
    again = run(shop, USERS, DUE)
    assert again.profiles == ()
    assert "nothing is due" in again.notes[0]
    # Pushed rows land in files of their own: one of a day that was profiled, one of a day that is not over.
    shop.push(one_user(4, NOW - 2 * DAY, 7), PushMode.OFFLINE)
    shop.push(one_user(4, NOW, 8), PushMode.OFFLINE)
    late = run(shop, USERS, DUE)
    assert [(profile.rows, profile.span) for profile in late.profiles] == [(4, first.profiles[0].span)]
    merged = Profiler(shop.store, shop.repo).files.merged(USERS)
    assert merged is not None
    assert merged.rows == 4
    assert run(shop, USERS, DUE).profiles == ()


def test_rows_without_a_time_and_lacking_columns_are_told(shop: LoggedShop) -> None:
    rows = user_rows().drop(columns=["name"])
    rows.loc[1, "event_timestamp"] = pd.NaT
    rows["orders"] = [0.5, 1.0, 2.0, None, 3.0]
    shop.write_source(rows)
    [profile] = run(shop, USERS).profiles
    assert profile.rows == 4
    assert "name" not in profile.columns
    assert any(note.startswith("1 rows of feature view 'users' have no event time") for note in profile.notes)
    assert any(note.startswith("feature 'name': column 'name' is in no file") for note in profile.notes)
    assert any(
        "'orders' is declared as Int64, and its source has numbers with a fraction" in note for note in profile.notes
    )


def test_values_of_another_type_than_declared_are_told(shop: LoggedShop) -> None:
    rows = user_rows()
    rows["spent"] = ["a", "b", "c", "d", "e"]
    shop.write_source(rows)
    [profile] = run(shop, USERS).profiles
    assert profile.columns["spent"].categories.counts == dict.fromkeys("abcde", 1)  # type: ignore[union-attr]
    assert any("'spent' is declared as Float64, and its source has string" in note for note in profile.notes)


def test_a_column_of_nothing_but_nulls_is_of_its_declared_kind(shop: LoggedShop) -> None:
    rows = user_rows()
    rows["name"] = None
    shop.write_source(rows)
    columns = columns_of(run(shop, USERS))
    assert (columns["name"].nulls, columns["name"].distinct, str(columns["name"].kind)) == (5, 0, "category")


def test_a_field_mapping_is_followed(shop: LoggedShop) -> None:
    source = FileSource(
        name="mapped", path="data/users.parquet", timestamp_field="event_timestamp", field_mapping={"orders": "bought"}
    )
    view = user_view(
        name="mapped", source=source, schema=[Field(name="user_id", dtype=Int64), Field(name="bought", dtype=Int64)]
    )
    shop.store.apply([view])
    assert columns_of(run(shop, Subject(SubjectKind.FEATURE_VIEW, "mapped")))["bought"].numbers.greatest == 50


def test_a_source_that_cannot_be_read_is_told_and_others_are_profiled(shop: LoggedShop) -> None:
    (shop.repo / "data" / "users.parquet").write_bytes(b"no parquet")
    outcome = run(shop, USERS)
    assert outcome.profiles == ()
    assert "users.parquet" in outcome.problem


def test_an_on_demand_view_says_where_it_is_profiled(shop: LoggedShop) -> None:
    outcome = run(shop, Subject(SubjectKind.FEATURE_VIEW, "basket_share"))
    assert "has no rows of its own; it is profiled through a feature service that is logged" in outcome.problem


@pytest.mark.parametrize("kind", [SubjectKind.FEATURE_VIEW, SubjectKind.FEATURE_SERVICE, SubjectKind.PUSH_SOURCE])
def test_what_is_not_registered_is_named(shop: LoggedShop, kind: SubjectKind) -> None:
    with pytest.raises(UnknownObject, match=r"'nobody' is not registered in project 'shop', which has \['"):
        run(shop, Subject(kind, "nobody"))


# --- served logs --------------------------------------------------------------------------------


def test_a_service_is_profiled_by_what_it_served_with_statuses(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 2], [3, 99])
    shop.set_clock(shop.now() + 2 * DAY)
    shop.serve([1])
    asked = Asked(TODAY.start_us, to_us(shop.now()), 10 * DAY_US)
    columns = columns_of(run(shop, CHECKOUT, asked))
    spent, name, share = columns["users:spent"], columns["users:name"], columns["basket_share:share"]
    assert spent.statuses == {"NOT_FOUND": 1, "OUTSIDE_MAX_AGE": 1, "PRESENT": 3}
    assert (spent.rows, spent.nulls, spent.numbers.least, spent.numbers.greatest) == (5, 2, 1.5, 4.5)
    assert name.statuses == {"NOT_FOUND": 1, "NULL_VALUE": 1, "OUTSIDE_MAX_AGE": 1, "PRESENT": 2}
    assert share.numbers.finite == 3
    by_day = run(shop, CHECKOUT, Asked(TODAY.start_us, to_us(shop.now()), DAY_US)).profiles
    assert [profile.rows for profile in by_day] == [4, 0, 1]
    assert by_day[2].columns["users:spent"].statuses == {"OUTSIDE_MAX_AGE": 1}


def test_what_the_log_left_out_is_told(shop: LoggedShop) -> None:
    shop.define(sample_rate=0.5)
    shop.serve(*[[user] for user in range(1, 41)])
    [profile] = run(shop, CHECKOUT, Asked(TODAY.start_us, to_us(NOW + DAY), 10 * DAY_US)).profiles
    assert 0 < profile.rows < 40
    assert any(f"of 40 vectors served {40 - profile.rows} were left out" in note for note in profile.notes)


def test_a_service_that_is_not_logged_says_how(shop: LoggedShop) -> None:
    service = shop.store.get_feature_service("checkout")
    service.logging_config = None
    shop.store.apply([service])
    assert "is not logged, so nothing is known of what it served" in run(shop, CHECKOUT).problem


# --- training sets ------------------------------------------------------------------------------


def saved(shop: LoggedShop, name: str, users: list[int]) -> Path:
    path = shop.repo / "data" / f"{name}.parquet"
    entities = pd.DataFrame(
        {"user_id": users, "event_timestamp": [NOW - timedelta(minutes=n) for n in range(len(users))], "label": 0.5}
    )
    job = shop.store.get_historical_features(entities, ["users:spent", "users:name"])
    with pytest.warns(RuntimeWarning, match="Saving dataset is an experimental feature"):
        shop.store.create_saved_dataset(job, name, SavedDatasetFileStorage(str(path)), allow_overwrite=True)
    return path


def test_a_training_set_is_profiled_whole_by_name_and_by_path(shop: LoggedShop) -> None:
    path = saved(shop, "january", [1, 2, 3, 77])
    for name in ("january", f"data/{path.name}", str(path)):
        subject = Subject(SubjectKind.TRAINING_SET, name)
        outcome = run(shop, subject, DUE)
        columns = columns_of(outcome)
        assert set(columns) == {"spent", "name", "label"}
        assert (columns["spent"].rows, columns["spent"].nulls, columns["spent"].numbers.greatest) == (4, 1, 4.5)
        assert columns["spent"].type_name == "Float64"
        assert outcome.profiles[0].span == Span(to_us(NOW) - 180_000_000, to_us(NOW) + 1)
        again = run(shop, subject, DUE)
        assert (again.profiles, again.notes) == ((), ("it has not changed since it was profiled",))


def test_a_training_set_that_is_none_is_named(shop: LoggedShop) -> None:
    with pytest.raises(UnknownObject, match=r"no training set 'nobody': no saved dataset of project 'shop'"):
        run(shop, Subject(SubjectKind.TRAINING_SET, "nobody"))
    pd.DataFrame({"x": [1]}).to_parquet(shop.repo / "data" / "x.parquet")
    outcome = run(shop, Subject(SubjectKind.TRAINING_SET, "data/x.parquet"))
    assert "has no column of timestamps (it has ['x'])" in outcome.problem


# --- push sources and windows -------------------------------------------------------------------


def test_a_push_source_is_profiled_by_what_was_pushed(shop: LoggedShop) -> None:
    subject = Subject(SubjectKind.PUSH_SOURCE, "users_push")
    [nothing] = run(shop, subject).profiles
    assert (nothing.rows, nothing.notes) == (0, ("push source 'users_push' has no rows",))
    shop.push(added(one_user(7, NOW, 5), one_user(8, NOW, 9)), PushMode.OFFLINE)
    columns = columns_of(run(shop, subject, Asked(TODAY.start_us, to_us(NOW + DAY), 10 * DAY_US)))
    assert set(columns) == {"spent", "orders", "name", "last"}
    assert (columns["orders"].numbers.least, columns["orders"].numbers.greatest) == (5, 9)


def test_events_that_were_pushed_online_only_count_too(clicks_shop: ClicksShop) -> None:
    def clicks(*worths: float) -> pd.DataFrame:
        at = [NOW - timedelta(minutes=minute + 1) for minute in range(len(worths))]
        return pd.DataFrame({"user_id": 1, "page": "home", "at": at, "created": at, "worth": worths})

    clicks_shop.push(clicks(1.0, 2.0))
    clicks_shop.push(clicks(8.0), PushMode.ONLINE)
    clicks_shop.work()
    outcome = run(clicks_shop, Subject(SubjectKind.PUSH_SOURCE, "clicks"))
    worth = columns_of(outcome)["worth"]
    assert (outcome.profiles[0].rows, worth.rows) == (3, 3)
    assert (worth.numbers.least, worth.numbers.greatest, worth.numbers.mean) == (1.0, 8.0, pytest.approx(11 / 3))
    assert outcome.profiles[0].notes[-1].startswith("1 events were pushed online only")


def test_a_windowed_view_is_profiled_as_of_its_events(clicks_shop: ClicksShop) -> None:
    minutes = [0, 10, 20, 30]
    rows = pd.DataFrame(
        {
            "user_id": [1, 1, 1, 2],
            "page": "home",
            "at": [NOW - timedelta(minutes=60 - minute) for minute in minutes],
            "created": NOW,
            "worth": [1.0, 2.0, 4.0, 8.0],
        }
    )
    clicks_shop.write_source(rows)
    columns = columns_of(run(clicks_shop, Subject(SubjectKind.FEATURE_VIEW, "by_user")))
    sums = columns["sum_worth_1d"].numbers
    assert (sums.finite, sums.least, sums.greatest) == (4, 1.0, 8.0)
    # Three events of user 1: sums of 1, 3 and 7.
    assert sums.mean == pytest.approx((1 + 3 + 7 + 8) / 4)
    assert columns["last3"].lengths.greatest == 3


def test_of_many_events_a_repeatable_sample_is_looked_at(
    clicks_shop: ClicksShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.monitor.view_profiles.PROFILE_SAMPLE_ROWS", 5)
    rows = pd.DataFrame(
        {"user_id": range(20), "page": "home", "at": NOW - timedelta(hours=1), "created": NOW, "worth": range(20)}
    )
    rows["worth"] = rows["worth"].astype(float)
    clicks_shop.write_source(rows)
    by_user = Subject(SubjectKind.FEATURE_VIEW, "by_user")
    one, other = run(clicks_shop, by_user), run(clicks_shop, by_user)
    assert columns_of(one) == columns_of(other)
    assert columns_of(one)["sum_worth_1d"].rows == 5
    assert "windows were looked at as of 5 of 20 events that have a key" in one.profiles[0].notes[-1]


# --- the command --------------------------------------------------------------------------------


def command(shop: LoggedShop, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["monitor", "profile", "--repo", str(shop.repo), *arguments])


def test_the_command_profiles_all_and_says_so_in_json(shop: LoggedShop) -> None:
    shop.write_source(user_rows(3, NOW - 2 * DAY))
    answer = command(shop, "--json")
    assert answer.exit_code == 0
    told = json.loads(answer.stdout)
    assert [(each["kind"], each["name"]) for each in told["subjects"]] == [
        ("feature_service", "checkout"),
        ("feature_view", "users"),
        ("push_source", "users_push"),
    ]
    [first, empty] = told["subjects"][1]["profiles"]
    assert (first["from"], first["rows"], empty["rows"]) == ("2026-02-27T00:00:00+00:00", 3, 0)
    spent = next(feature for feature in first["features"] if feature["feature"] == "spent")
    assert spent["numbers"]["quantiles"]["0.5"] == pytest.approx(3.0, rel=0.008)
    assert command(shop, "--json").exit_code == 0


def test_the_command_shows_people_a_table(shop: LoggedShop) -> None:
    rows = user_rows()
    rows["name"] = ["[red]x", "\x1b[31mred", "a" * 99, "b", "b"]
    shop.write_source(rows)
    answer = command(shop, "--view", "users", "--from", "2026-03-01")
    assert answer.exit_code == 0
    assert "feature view users: 5 rows in 1 profile, 2026-03-01T00:00:00+00:00 to 2026-03-01T12:0" in answer.stdout
    assert "b 40%" in answer.stdout
    assert "\x1b" not in answer.stdout


def test_one_subject_that_fails_is_told_and_the_status_is_one(shop: LoggedShop) -> None:
    answer = command(shop, "--view", "basket_share", "--view", "users", "--from", "2026-03-01")
    assert answer.exit_code == 1
    assert "has no rows of its own" in answer.stderr
    assert "feature view users: 5 rows" in answer.stdout
    assert command(shop, "--training-set", "nobody").exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--view", "nobody"],
        ["--every", "1y"],
        ["--from", "yesterday"],
        ["--from", "2026-03-02", "--to", "2026-03-01"],
        ["--view", "users", "--from", "2000-01-01", "--to", "2020-01-01"],
    ],
)
def test_what_makes_no_sense_is_not_run(shop: LoggedShop, arguments: list[str]) -> None:
    answer = command(shop, *arguments)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("larder: ")


def test_old_profiles_are_deleted_when_that_is_asked_for(shop: LoggedShop) -> None:
    shop.write_source(user_rows(3, NOW - 9 * DAY))
    assert command(shop, "--view", "users").exit_code == 0
    files = Profiler(shop.store, shop.repo).files
    before = len(files.read(USERS))
    answer = command(shop, "--view", "users", "--keep-days", "3")
    assert "deleted 6 old profiles" in answer.stdout
    assert len(files.read(USERS)) == before - 6
