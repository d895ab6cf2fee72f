"""Which stretches of time of a subject are to be profiled: those asked for, or those that a scheduled run is due."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from store.clock import said
from store.errors import InputError
from store.limits import PROFILE_EMPTY_SLICES_MAX, PROFILE_SLICES_MAX
from store.monitor.subjects import Span

DAY_US = 86_400_000_000
_UNITS = {"m": 60_000_000, "h": 3_600_000_000, "d": DAY_US, "w": 7 * DAY_US}
_EVERY = re.compile(r"([1-9][0-9]{0,4})([mhdw])")


def every_us(text: str) -> int:
    """Returns the length of a stretch such as `1d`, `6h` or `30m` in microseconds.

    Raises:
        InputError: it is none.
    """
    match = _EVERY.fullmatch(text)
    if match is None:
        raise InputError(f"--every {text!r} is no length of time; write it like 1d, 6h, 30m or 1w")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, slots=True)
class Asked:
    """The time that a run was asked to profile, in microseconds; None leaves it to what is due or what there is.

    Attributes:
        every_us: how long each profile's stretch is. Stretches begin at whole multiples of it since the epoch, in UTC,
            but for the first and last of a time that was asked for.

    Raises:
        InputError: the time is empty, or has more stretches than a run profiles.
    """

    start_us: int | None
    end_us: int | None
    every_us: int

    def __post_init__(self) -> None:
        """Refuses a time that is empty, or has too many stretches."""
        if self.start_us is not None and self.end_us is not None:
            _require_sound(self.start_us, self.end_us, self.every_us)

    @property
    def is_explicit(self) -> bool:
        """Whether a time was asked for, so that it is profiled again even if it was before."""
        return self.start_us is not None or self.end_us is not None


@dataclass(frozen=True, slots=True)
class Due:
    """The stretches to profile, in order of time, and what is to be said of them."""

    spans: tuple[Span, ...]
    note: str = ""


def due_spans(asked: Asked, extent: Span | None, known: Mapping[Span, int], now_us: int) -> Due:
    """Returns the stretches to profile of a subject, late rows apart.

    Without a time, those are due that are over and come after the last one that was profiled, or, at the first run,
    that the rows lie in; of those after the newest row `PROFILE_EMPTY_SLICES_MAX`. Of more than `PROFILE_SLICES_MAX`
    the last ones are taken, and a note says so.

    Args:
        extent: the time that the rows lie in, None if there are none.
        known: the stretches that were profiled.

    Raises:
        InputError: a time that was asked for is empty, or has more stretches than a run profiles.
    """
    if asked.is_explicit:
        return Due(_asked_spans(asked, extent, now_us))
    every_us = asked.every_us
    start_us = max((span.end_us for span in known), default=None)
    if extent is None:
        return Due(())
    if start_us is None:
        start_us = extent.start_us // every_us * every_us
    # What lies after the newest row is empty, and worth no more than a few profiles.
    last_us = (-(-extent.end_us // every_us) + PROFILE_EMPTY_SLICES_MAX) * every_us
    end_us = min(now_us // every_us * every_us, last_us)
    first_us = max(start_us, end_us - PROFILE_SLICES_MAX * every_us)
    if first_us >= end_us:
        return Due(())
    note = ""
    if first_us > start_us:
        note = (
            f"only the last {PROFILE_SLICES_MAX} stretches were profiled, from {said(first_us)} on; give --from and "
            "--to for earlier ones"
        )
    return Due(_cut(Span(first_us, end_us), every_us), note)


def _asked_spans(asked: Asked, extent: Span | None, now_us: int) -> tuple[Span, ...]:
    start_us, end_us = asked.start_us, asked.end_us
    if start_us is None:
        if extent is None:
            return ()
        start_us = extent.start_us // asked.every_us * asked.every_us
    if end_us is None:
        end_us = now_us
    if start_us >= end_us and asked.start_us is None:
        return ()
    _require_sound(start_us, end_us, asked.every_us)
    return _cut(Span(start_us, end_us), asked.every_us)


def _require_sound(start_us: int, end_us: int, every_us: int) -> None:
    if start_us >= end_us:
        raise InputError(f"--from {said(start_us)} is not before --to {said(end_us)}, which is exclusive")
    if (end_us - start_us) // every_us > PROFILE_SLICES_MAX:
        raise InputError(
            f"{said(start_us)} to {said(end_us)} has more than {PROFILE_SLICES_MAX} stretches of this length; give a "
            "longer one with --every, or less time with --from and --to"
        )


def _cut(span: Span, every_us: int) -> tuple[Span, ...]:
    first = span.start_us // every_us * every_us
    starts = range(first, span.end_us, every_us)
    return tuple(Span(max(span.start_us, start), min(span.end_us, start + every_us)) for start in starts)
