"""The comparison of two runs: what passes with Feast's store has to pass with ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from runs import Outcome
from suites import Difference

MISSING = Outcome("failed", "did not run")


@dataclass
class Comparison:
    """Names of tests by what became of them, with the reason where one failed."""

    both: list[str] = field(default_factory=list)
    only_ours: dict[str, str] = field(default_factory=dict)
    only_feasts: dict[str, str] = field(default_factory=dict)
    owed: dict[str, str] = field(default_factory=dict)
    """Fails with ours; with Feast's it could not be tried, but passes on Parquet."""
    intended: dict[str, str] = field(default_factory=dict)
    """Passes with Feast's and fails with ours on purpose; the reason is the purpose."""
    neither: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether ours passes all that Feast's passes, and that is something."""
        return bool(self.both) and not self.only_feasts and not self.owed


def compare(
    feasts: Mapping[str, Outcome],
    ours: Mapping[str, Outcome],
    *,
    has_delta_extension: bool,
    intended: Mapping[str, Difference] | None = None,
) -> Comparison:
    """Returns which tests pass with which store.

    Args:
        has_delta_extension: whether Feast's store could read Delta tables. If not, a test on Delta that fails with it
            is judged by the same test on Parquet.
        intended: what ours may fail though it passes with Feast's, by the test's name without parameters. A test that
            passes with both is no difference any more, and counts as one that falls short: its entry has to go.
    """
    result = Comparison()
    for name in sorted(feasts.keys() | ours.keys()):
        feasts_outcome, our_outcome = feasts.get(name, MISSING), ours.get(name, MISSING)
        twin = feasts.get(name.replace("Delta", "Parquet"), MISSING)
        is_untried = "Delta" in name and not has_delta_extension and twin.verdict == "passed"
        difference = (intended or {}).get(name.partition("[")[0])
        if our_outcome.verdict == "passed":
            if feasts_outcome.verdict == "passed" and difference is not None:
                result.only_feasts[name] = "is called a difference on purpose, and passes with both"
            elif feasts_outcome.verdict == "passed":
                result.both.append(name)
            else:
                result.only_ours[name] = feasts_outcome.reason
        elif feasts_outcome.verdict == "passed" and difference is not None and difference.sign in our_outcome.reason:
            result.intended[name] = difference.reason
        elif feasts_outcome.verdict == "passed":
            result.only_feasts[name] = our_outcome.reason
        elif feasts_outcome.verdict == our_outcome.verdict == "skipped":
            result.skipped[name] = our_outcome.reason
        elif is_untried:
            result.owed[name] = our_outcome.reason
        else:
            result.neither[name] = f"Feast's: {feasts_outcome.reason} | ours: {our_outcome.reason}"
    return result


def report(comparison: Comparison) -> str:
    """Returns the comparison as text: what both pass as a number, everything else by reason and name."""
    sections = [
        ("pass with ours, not with Feast's own", comparison.only_ours),
        ("pass with Feast's own, and not with ours on purpose", comparison.intended),
        ("skipped with both", comparison.skipped),
        ("fail with both", comparison.neither),
        ("FAIL with ours, and pass on Parquet with Feast's own, which could not be tried on Delta", comparison.owed),
        ("FAIL with ours, and pass with Feast's own", comparison.only_feasts),
    ]
    lines = [f"{len(comparison.both)} tests pass with both stores"]
    for title, tests in sections:
        lines.append(f"{len(tests)} {title}{':' if tests else ''}")
        for reason in dict.fromkeys(tests.values()):
            lines.append(f"  {reason}")
            lines += [f"    {name}" for name in tests if tests[name] == reason]
    but = ", but for those named above" if comparison.intended else ""
    lines.append(f"Ours passes all that Feast's own store passes{but}." if comparison.is_good else "Ours falls short.")
    return "\n".join(lines)
