"""Judges ours by stock: what stock passes, ours must pass, except what is listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.upstream.exclusions import reason
from tests.upstream.running import (
    FAILED,
    FLAKY,
    NOT_RUN,
    PASSED,
    SKIPPED,
    UNCOLLECTABLE,
    Outcomes,
)

EXCLUDED = "excluded"
COLUMNS = (PASSED, FAILED, FLAKY, SKIPPED, EXCLUDED, NOT_RUN, UNCOLLECTABLE)


@dataclass
class Verdict:
    """What a comparison found; each list holds lines for a reader."""

    #: Stock passes it, ours does not; or a whole file lacks something that it imports.
    broken: list[str] = field(default_factory=list)
    #: Ours failed it first and passed it later; stock did not, and it is not listed as flaky.
    unsteady: list[str] = field(default_factory=list)
    #: Listed as excluded, yet ours passes it.
    stale: list[str] = field(default_factory=list)
    #: Flaky, and known to be.
    flaky: list[str] = field(default_factory=list)
    #: Listed, and no test that stock passes has this name.
    unmatched: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Tell whether the comparison is passed."""
        return not (self.broken or self.unsteady or self.stale)


def compare(
    stock: Outcomes,
    ours: Outcomes,
    exclusions: dict[str, str],
    known_flaky: dict[str, str],
    complete: bool = True,
) -> Verdict:
    """Compare the outcomes of one suite. Without ``complete``, unmatched entries are no news."""
    verdict = Verdict()
    for test, theirs in stock.items():
        if theirs.outcome == UNCOLLECTABLE and reason(exclusions, test) is None:
            verdict.broken.append(f"{test}: not to be collected here, {theirs.message}")
        if theirs.outcome not in (PASSED, FLAKY):
            continue
        result = ours.get(test)
        outcome = result.outcome if result else NOT_RUN
        excuse = reason(exclusions, test)
        if excuse is not None:
            if outcome == PASSED:
                verdict.stale.append(f"{test} (listed: {excuse})")
        elif outcome == PASSED:
            pass
        elif outcome == FLAKY:
            listed = reason(known_flaky, test)
            if listed or theirs.outcome == FLAKY:
                verdict.flaky.append(f"{test} ({listed or 'flaky on stock too'})")
            else:
                verdict.unsteady.append(f"{test}: {result.message if result else ''}")
        else:
            verdict.broken.append(f"{test}: {outcome}, {result.message if result else 'absent'}")
    if complete:
        known = (PASSED, FLAKY, UNCOLLECTABLE)
        matched = [test for test, one in stock.items() if one.outcome in known]
        names = {*matched, *(test.partition("[")[0] for test in matched)}
        verdict.unmatched = sorted({*exclusions, *known_flaky} - names)
    return verdict


def counts(outcomes: Outcomes, exclusions: dict[str, str] | None = None) -> Counter[str]:
    """Count outcomes by column; a test that is excluded and not passed counts as excluded."""
    found: Counter[str] = Counter()
    for test, one in outcomes.items():
        listed = exclusions is not None and reason(exclusions, test) is not None
        found[EXCLUDED if listed and one.outcome != PASSED else one.outcome] += 1
    return found


def table(rows: Iterable[tuple[str, str, Counter[str], float]]) -> str:
    """Return the figures of (suite, scheme, counts, seconds) as a table in plain text."""
    widths = [max(len(column) + 2, 8) for column in COLUMNS]
    heading = "".join(f"{name:>{width}}" for name, width in zip(COLUMNS, widths, strict=True))
    lines = [f"{'suite':<14}{'broker -> backend':<19}{heading}{'seconds':>9}"]
    for suite, scheme, found, seconds in rows:
        cells = "".join(
            f"{found[name]:>{width}}" for name, width in zip(COLUMNS, widths, strict=True)
        )
        lines.append(f"{suite:<14}{scheme:<19}{cells}{seconds:>9.0f}")
    return "\n".join(lines)
