"""Feast's server and ours, asked the same: they answer alike but for the differences that ARCHITECTURE.md lists."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.feast.both_servers import BothServers, both_serving
from tests.feast.intended import COMPUTED, INTENDED, LOOKUP, UNLOADABLE, Seen, differences
from tests.feast.request_matrix import SHAPES, of_types, random_lookup, writes, writes_of_types

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own code warns in many ways that are not ours to mend


@dataclass
class Comparison:
    """What came of a matrix of requests."""

    seen: list[Seen] = field(default_factory=list)
    values: int = 0
    written_though_refused: list[Any] = field(default_factory=list)

    def ask(self, both: BothServers, path: str, body: Any) -> tuple[int, int]:
        """Asks both servers and notes the differences; returns their status codes."""
        feasts, ours = both.ask(path, body)
        found = list(differences(path, body, feasts, ours))
        self.seen += found
        if path == LOOKUP and (feasts.status_code, ours.status_code) == (200, 200):
            names, results = ours.json()["metadata"]["feature_names"], ours.json()["results"]
            self.values += sum(
                len(v["values"]) for n, v in zip(names, results, strict=True) if n not in body["entities"]
            )
        return feasts.status_code, ours.status_code

    def write(self, both: BothServers, path: str, body: Any, features: list[str]) -> None:
        """Writes to both, and compares what they then answer for the keys if both took them."""
        statuses = self.ask(both, path, body)
        frame = body.get("df") if isinstance(body, dict) else None
        keys = [key for key in frame.get("k", ()) if type(key) is int] if isinstance(frame, dict) else []
        lookup = {"features": features, "entities": {"k": keys}}
        if keys and statuses == (200, 200):
            self.ask(both, LOOKUP, lookup)
        elif keys and statuses[1] != 200:
            _, ours = both.ask(LOOKUP, lookup)
            found = {status for column in ours.json()["results"][1:] for status in column["statuses"]}
            if found != {"NOT_FOUND"}:
                self.written_though_refused.append(body)

    def unexplained(self) -> list[str]:
        """Returns what is not an instance of exactly one intended difference."""
        found = []
        for seen in self.seen:
            names = [intended.name for intended in INTENDED if intended.explains(seen)]
            if len(names) != 1:
                found.append(f"{seen.what} of {seen.path} {seen.body}: {seen.feasts} | {seen.ours}: {names}")
        return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothServers]:
    with both_serving(tmp_path_factory.mktemp("both")) as both:
        yield both


@pytest.fixture(scope="module")
def comparison(both: BothServers) -> Comparison:
    """The matrix, with some values of each type written."""
    found = Comparison()
    for body in [*of_types(), *SHAPES]:
        found.ask(both, LOOKUP, body)
    for path, body in writes():
        found.write(both, path, body, ["users:n", "users:x", "users:s"])
    for view, path, body in writes_of_types(is_whole=False):
        found.write(both, path, body, [f"{view}:v"])
    return found


def test_every_difference_is_intended(comparison: Comparison) -> None:
    assert "\n".join(comparison.unexplained()) == ""


def test_most_values_are_alike(comparison: Comparison) -> None:
    features = [seen for seen in comparison.seen if seen.what == "cell" and seen.column not in seen.body["entities"]]
    present = [seen for seen in features if seen.ours.value is not None and seen.column.split("__")[0] not in COMPUTED]
    # The rest are nulls, unknown keys and computed features, which have their entries.
    assert comparison.values - len(features) > 10 * len(present) > 0


def test_every_intended_difference_occurs(comparison: Comparison) -> None:
    stale = [entry.name for entry in INTENDED if not any(map(entry.explains, comparison.seen))]
    assert stale == []


def test_what_ours_refuses_it_does_not_write(comparison: Comparison) -> None:
    assert comparison.written_though_refused == []


def test_ours_materializes_every_view_and_feasts_does_not(both: BothServers, comparison: Comparison) -> None:
    feasts, ours = both.refused
    assert ours == []
    assert feasts == ["world", *UNLOADABLE]


def test_architecture_lists_the_same_differences(project_root: Path) -> None:
    text = (project_root / "ARCHITECTURE.md").read_text()
    _, _, table = text.partition("| Feast's server | Larder's |\n|---|---|\n")
    rows = table.partition("\n\n")[0].splitlines()
    names = [re.split(r"(?<!\\) \| ", row.removeprefix("| ").removesuffix(" |"))[0] for row in rows]
    assert names == [entry.name for entry in INTENDED]


@pytest.mark.long
def test_every_value_pushed_and_written_and_random_lookups(both: BothServers) -> None:
    found = Comparison()
    for view, path, body in writes_of_types(is_whole=True):
        found.write(both, path, body, [f"{view}:v"])
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    for _ in range(300):
        found.ask(both, LOOKUP, random_lookup(generator))
    assert "\n".join(found.unexplained()) == ""
    assert found.written_though_refused == []
