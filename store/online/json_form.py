"""The parts of a lookup's answer in JSON that are the same for every request, made once per plan.

Source: the JSON form of Feast's server (`GetOnlineFeaturesResponse` in protobuf's JSON mapping).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from store.feast_values import json_converter
from store.kernel.values import FLOATS

ConvertAll = Callable[[Sequence[Any]], Sequence[Any]]
Origin = tuple[int, int]
"""Which of a plan's views a column comes from, and which of its features it is."""


class _ViewVersion(msgspec.Struct, omit_defaults=True):
    """A view's version; 0, for none, is left out, as in protobuf's JSON."""

    name: str
    version: int = 0


class JsonOutput(NamedTuple):
    """One feature of an answer: its name there, its view as the request calls it, its origin and its type."""

    name: str
    view: str
    origin: Origin
    type_name: str


class JsonPart(NamedTuple):
    """Features of one view that stand together in an answer.

    Attributes:
        features: which of the view's features, each with what its values go through.
        floats: those among them that JSON has no form for if they are not finite.
        is_plain: all others need nothing.
    """

    view: str
    source: int
    features: tuple[tuple[int, ConvertAll | None], ...]
    floats: tuple[int, ...]
    is_plain: bool


@dataclass(frozen=True, slots=True)
class JsonForm:
    """What an answer's JSON has besides values, statuses and times.

    Attributes:
        names: the outputs' names with commas between.
        versions: the views' versions with their label, for requests that ask for them.
        parts: all outputs in their order.
    """

    names: bytes
    versions: bytes
    parts: tuple[JsonPart, ...]

    @classmethod
    def of(cls, outputs: Sequence[JsonOutput], versions: Mapping[str, int]) -> "JsonForm":
        """Returns the form of answers with some features."""
        listed = [_ViewVersion(name, version) for name, version in versions.items()]
        together = groupby(outputs, lambda output: (output.view, output.origin[0]))
        return cls(
            msgspec.json.encode([output.name for output in outputs])[1:-1],
            b',"feature_view_metadata":' + msgspec.json.encode(listed),
            tuple(_part(view, source, list(group)) for (view, source), group in together),
        )


def _part(view: str, source: int, outputs: Sequence[JsonOutput]) -> JsonPart:
    features = tuple((output.origin[1], converter(output.type_name)) for output in outputs)
    floats = tuple(output.origin[1] for output in outputs if output.type_name in FLOATS)
    is_plain = all(convert is None or place in floats for place, convert in features)
    return JsonPart(view, source, features, floats, is_plain)


def converter(type_name: str) -> ConvertAll | None:
    """Returns the function that makes a column of plain values of a type fit for JSON, None if all are."""
    convert = json_converter(type_name)
    return None if convert is None else lambda values: [None if value is None else convert(value) for value in values]
