"""Tiles that age, settle and lapse give at every time what a rescan of all events gives."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from store.kernel.stream_tiles import APPLIED, Moment, StreamEvent, changed, needs_settling, wanted_fields
from store.kernel.tiles import Seam, TilePlan, counted_entries, encode_batch, settled, window_values
from store.kernel.windows import Function, WindowFeature

SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
WINDOWS = ((10 * MINUTE, MINUTE), (HOUR, 5 * MINUTE), (5 * HOUR, HOUR), (2 * DAY, HOUR))


def feature(function: str, window_us: int, hop_us: int) -> WindowFeature:
    parsed = Function.parse(function)
    assert parsed is not None
    return WindowFeature(f"{function}_{window_us}", "x", parsed, window_us, hop_us, "DOUBLE")


FEATURES = [
    feature(function, *window)
    for window in WINDOWS
    for function in ("count", "sum", "min", "max", "last_3", "first", "count_distinct")
]
PLAN = TilePlan.of(FEATURES)


def rescan(wanted: WindowFeature, events: list[StreamEvent], now_us: int) -> object:
    """What a feature is, by going through all events."""
    tail_us = (now_us - wanted.window_us) // wanted.hop_us * wanted.hop_us
    inside = [e for e in events if tail_us <= e.event_us <= now_us]
    values = [e.values[0] for e in inside if e.values[0] is not None]
    name = wanted.function.name
    if name == "count":
        return len(values)
    if not values:
        return None
    if name == "sum":
        return math.fsum(values)
    if name in ("min", "max"):
        return min(values) if name == "min" else max(values)
    if name == "count_distinct":
        return len(set(values))
    ordered = sorted((e.event_us, e.values[0]) for e in inside if e.values[0] is not None)
    if name == "first":
        return max(value for event_us, value in ordered if event_us == ordered[0][0])
    return [value for _, value in reversed(ordered)][:3]


class Stream:
    """A hash of tiles as Redis would hold it."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}

    def apply(self, moment: Moment, events: list[StreamEvent]) -> None:
        wanted = wanted_fields(moment, events)
        is_whole = needs_settling(moment, self.fields.get(APPLIED))
        known = dict(self.fields) if is_whole else {name: self.fields.get(name) for name in wanted}
        change = changed(moment, known, events, is_whole=is_whole)
        if change is None:
            return
        assert change.expected == self.fields.get(APPLIED, b"")
        if change.is_settled:
            self.fields.clear()
        self.fields |= change.fields | {APPLIED: change.applied}


steps = st.lists(
    st.tuples(
        st.integers(0, 3 * HOUR).map(lambda us: us // 7),  # the clock goes on
        st.lists(
            st.tuples(
                st.one_of(st.integers(-60 * SECOND, 10 * MINUTE), st.integers(0, 3 * DAY)),  # age, or ahead
                st.one_of(st.none(), st.integers(-20, 20).map(lambda n: n / 4)),
                st.booleans(),
            ),
            max_size=4,
        ),
        st.sampled_from(["", "", "", "line", "seam"]),
    ),
    min_size=1,
    max_size=25,
)


@given(steps, st.integers(0, DAY))
@settings(max_examples=200, deadline=None)
def test_tiles_and_rescan_agree_across_lines_seams_and_ages(script: list, start_us: int) -> None:
    now_us = 10 * DAY + start_us
    stream, events, batch = Stream(), [], None
    line_id, seam, log_id = 0, None, 0
    for passed_us, pushed, what in script:
        now_us += passed_us
        if what == "line":
            log_id += 1
            line_id = log_id
        if what == "seam" and line_id > (seam.line_id if seam else 0):
            # What landed up to the line, as a materialization would write it.
            landed = Stream()
            moment = Moment.of(PLAN, now_us, 0, None)
            landed.apply(moment, [e for e in events if e.is_landed and e.line_id <= line_id])
            entries, _ = counted_entries(None, list(landed.fields.values()), None, now_us + 10 * DAY)
            batch = encode_batch(entries)
            seam = Seam(PLAN.batch_end_us(now_us), line_id)
        fresh = []
        for age_us, value, is_landed in pushed:
            log_id += 1
            fresh.append(StreamEvent(log_id, log_id, is_landed, now_us - age_us, None, (value,)))
        if fresh:
            moment = Moment.of(PLAN, now_us, line_id, seam)
            stream.apply(moment, fresh)
            stream.apply(moment, fresh)  # delivered twice
            events += fresh
        counted, applied_id = counted_entries(batch, list(stream.fields.values()), seam, now_us)
        assert applied_id == max((e.log_id for e in events), default=0)
        found = window_values(PLAN, FEATURES, counted, now_us)
        for wanted, got in zip(FEATURES, found, strict=True):
            assert got.value == rescan(wanted, events, now_us), wanted


def test_a_key_with_an_event_each_minute_for_two_days_keeps_a_bounded_number_of_tiles() -> None:
    stream = Stream()
    for minute in range(2 * 24 * 60):
        now_us = 10 * DAY + minute * MINUTE
        stream.apply(
            Moment.of(PLAN, now_us, 0, None), [StreamEvent(minute + 1, minute + 1, True, now_us, None, (1.0,))]
        )
    # 10 + 16 + some of a minute, 12 + 12 of five minutes, 48 + 1 of an hour.
    assert len(stream.fields) <= 1 + 28 + 26 + 50


def test_settling_drops_what_no_window_reaches_and_what_the_materialization_holds() -> None:
    now_us = 100 * DAY
    stream = Stream()
    young, old = now_us - MINUTE, now_us - 5 * DAY
    stream.apply(Moment.of(PLAN, now_us - 4 * DAY, 0, None), [StreamEvent(1, 1, True, old, None, (1.0,))])
    stream.apply(Moment.of(PLAN, now_us, 0, None), [StreamEvent(2, 2, True, young, None, (2.0,))])
    assert len(stream.fields) == 2  # the old tile went when the new event came
    entries, _ = counted_entries(None, list(stream.fields.values()), None, now_us)
    states = {(e[0], e[1], e[2]): e[3:] for e in entries}
    assert settled(PLAN, states, seam=Seam(0, 1), now_us=now_us) == {}
    assert len(settled(PLAN, states, seam=Seam(0, 0), now_us=now_us)) == 1


def test_the_bytes_of_tiles_are_those_that_redis_already_holds() -> None:
    features = [feature("sum", HOUR, 5 * MINUTE), feature("last_2", HOUR, 5 * MINUTE)]
    plan = TilePlan.of(features)
    at_us, start_us = 999_999_000_000, 999_900_000_000
    moment = Moment.of(plan, 1_000_000_000_000, 5, None)
    change = changed(moment, {}, [StreamEvent(7, 7, True, at_us, None, (1.5,))], is_whole=False)
    assert change is not None
    state = "cf000000e8d495cdc0019203ff9193cf000000e8d495cdc0d38000000000000000cb3ff8000000000000"
    assert change.applied.hex() == "920792ccd000"
    assert change.fields == {
        bytes.fromhex("930005cf000000e8ceaf2f00"): bytes.fromhex(f"97cf000000e8ceaf2f000005{state}")
    }
    entry = [start_us, 0, 0, at_us, 1, [3, -1], [[at_us, -(2**63), 1.5]]]
    assert encode_batch([entry]).hex() == f"019197cf000000e8ceaf2f000000{state}"
