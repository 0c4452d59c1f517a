"""Medians, ratios and the table, in the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import Results, Row


@dataclass(frozen=True)
class Line:
    """One row's figures: for each scheme one sample an alternation, None where it failed."""

    row: Row
    samples: dict[str, list[float | None]]

    def values(self, scheme: str) -> list[float]:
        """The samples that there are."""
        return [value for value in self.samples[scheme] if value is not None]

    def median(self, scheme: str) -> float | None:
        values = self.values(scheme)
        return statistics.median(values) if values else None

    def ratio(self, base: str, other: str) -> float | None:
        """Ratio of the medians, `other` to `base`."""
        below, above = self.median(base), self.median(other)
        return above / below if below and above is not None else None

    def pair_ratios(self, base: str, other: str) -> list[float]:
        """The ratio of each alternation in which both succeeded."""
        pairs = zip(self.samples[base], self.samples[other], strict=False)
        return [above / below for below, above in pairs if below and above is not None]

    def reached(self, base: str, other: str) -> bool | None:
        """Whether the target is reached; None where there is none, or no ratio."""
        ratio = self.ratio(base, other)
        return None if self.row.target is None or ratio is None else self.row.target.reached(ratio)


def lines_of(rows: list[Row], results: dict[str, list[Results]]) -> list[Line]:
    """The rows' samples from all alternations' results."""
    return [
        Line(
            row,
            {
                scheme: [
                    row.value(result) if all(name in result for name in row.needs) else None
                    for result in alternations
                ]
                for scheme, alternations in results.items()
            },
        )
        for row in rows
    ]


def cells(lines: list[Line], schemes: list[str]) -> tuple[list[str], list[list[str]]]:
    """Header and body of the table as text."""
    header = ["figure", "unit", *(f"{scheme}://" for scheme in schemes)]
    compared = len(schemes) > 1
    if compared:
        header += ["ratio", "(pairs)", "to reach", "reached"]
    body = []
    for line in lines:
        texts = [line.row.title, line.row.unit]
        texts += [_spread(line.values(scheme)) for scheme in schemes]
        if compared:
            base, other = schemes[0], schemes[1]
            ratio, reached = line.ratio(base, other), line.reached(base, other)
            pairs = line.pair_ratios(base, other)
            texts += [
                "-" if ratio is None else _number(ratio),
                f"{_number(min(pairs))}-{_number(max(pairs))}" if len(pairs) > 1 else "-",
                str(line.row.target or "-"),
                "-" if reached is None else "yes" if reached else "NO",
            ]
        body.append(texts)
    return header, body


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{1 if abs(value) >= 10 else 2}f}"


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    median = _number(statistics.median(values))
    low, high = _number(min(values)), _number(max(values))
    return median if low == high else f"{median} ({low}-{high})"


def markdown(header: list[str], body: list[list[str]], facts: dict[str, Any]) -> str:
    """The table and its conditions as Markdown."""
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    table = ["| " + " | ".join(texts) + " |" for texts in (header, rule, *body)]
    return "\n".join([*table, "", *(f"- {name}: {value}" for name, value in facts.items())])


def plain(header: list[str], body: list[list[str]], facts: dict[str, Any]) -> str:
    """The table and its conditions as aligned text."""
    widths = [max(len(texts[i]) for texts in (header, *body)) for i in range(len(header))]

    def aligned(texts: list[str]) -> str:
        first = [text.ljust(widths[i]) for i, text in enumerate(texts[:2])]
        rest = [text.rjust(widths[i]) for i, text in enumerate(texts[2:], 2)]
        return "  ".join(first + rest).rstrip()

    table = [aligned(header), "  ".join("-" * width for width in widths), *map(aligned, body)]
    return "\n".join([*(f"{name}: {value}" for name, value in facts.items()), "", *table])


def show(header: list[str], body: list[list[str]], facts: dict[str, Any]) -> None:
    """Print the table: with rich in a terminal that has it, plain otherwise."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(plain(header, body, facts))
        return
    console = Console()
    if not console.is_terminal:
        print(plain(header, body, facts))
        return
    table = Table()
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < 2 else "right", no_wrap=i != 0)
    for texts in body:
        style = {"yes": "green", "NO": "red"}.get(texts[-1], "")
        table.add_row(*texts[:-1], f"[{style}]{texts[-1]}[/]" if style else texts[-1])
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
    console.print(table)


def write_json(
    path: Path,
    lines: list[Line],
    schemes: list[str],
    facts: dict[str, Any],
    results: dict[str, list[Results]],
    failures: list[str],
) -> None:
    """Everything: the rows with all samples, and each measurement as it was returned."""
    base, other = schemes[0], schemes[-1]
    document = {
        "conditions": facts,
        "schemes": schemes,
        "rows": [
            {
                "group": line.row.group,
                "figure": line.row.title,
                "unit": line.row.unit,
                "samples": line.samples,
                "medians": {scheme: line.median(scheme) for scheme in schemes},
                "ratio": line.ratio(base, other) if len(schemes) > 1 else None,
                "to_reach": str(line.row.target) if line.row.target else None,
                "reached": line.reached(base, other) if len(schemes) > 1 else None,
            }
            for line in lines
        ],
        "measurements": results,
        "failures": failures,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
