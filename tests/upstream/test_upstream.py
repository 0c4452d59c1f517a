"""The judge itself: what counts as broken, stale or unsteady, and that outcomes reach it."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.upstream import plugin
from tests.upstream.compare import EXCLUDED, compare, counts, table
from tests.upstream.exclusions import (
    BACKEND_EXCLUSIONS,
    BROKER_EXCLUSIONS,
    EXCLUSIONS,
    KNOWN_FLAKY,
    excluded_tests,
)
from tests.upstream.running import (
    FAILED,
    FLAKY,
    LARGE_FILE_BYTES,
    NOT_RUN,
    PASSED,
    PLUGIN_NAME,
    SKIPPED,
    UNCOLLECTABLE,
    Outcome,
    Outcomes,
    Runner,
    Suite,
    load,
    read_report,
    save,
)
from tests.upstream.sdists import UpstreamUnavailable, unpack


def outcomes(**named: str) -> Outcomes:
    return {test: Outcome(outcome, 1.0, "why") for test, outcome in named.items()}


def test_all_that_stock_passes_must_pass() -> None:
    verdict = compare(outcomes(a=PASSED, b=FAILED), outcomes(a=PASSED, b=FAILED), {}, {})
    assert verdict.good


@pytest.mark.parametrize("outcome", [FAILED, SKIPPED, NOT_RUN])
def test_anything_else_is_broken(outcome: str) -> None:
    verdict = compare(outcomes(a=PASSED), outcomes(a=outcome), {}, {})
    assert not verdict.good
    assert verdict.broken == [f"a: {outcome}, why"]


def test_a_test_that_is_missing_on_ours_is_broken() -> None:
    assert compare(outcomes(a=PASSED), {}, {}, {}).broken == ["a: not run, absent"]


def test_an_excluded_test_may_fail_and_must_not_pass() -> None:
    stock: Outcomes = {"a[1]": Outcome(PASSED), "a[2]": Outcome(PASSED)}
    excluded = {"a": "reads stock's keys"}
    fails: Outcomes = {"a[1]": Outcome(FAILED), "a[2]": Outcome(FAILED)}
    assert compare(stock, fails, excluded, {}).good
    passes: Outcomes = {"a[1]": Outcome(FAILED), "a[2]": Outcome(PASSED)}
    verdict = compare(stock, passes, excluded, {})
    assert not verdict.good
    assert verdict.stale == ["a[2] (listed: reads stock's keys)"]


def test_flaky_on_ours_only_is_not_good() -> None:
    stock, ours = outcomes(a=PASSED), outcomes(a=FLAKY)
    assert not compare(stock, ours, {}, {}).good
    assert compare(stock, ours, {}, {"a": "1 of 20 on stock"}).good
    assert compare(outcomes(a=FLAKY), ours, {}, {}).good


def test_an_entry_for_a_test_that_does_not_exist_is_told() -> None:
    entry = {"gone": "why"}
    assert compare(outcomes(a=PASSED), outcomes(a=PASSED), entry, {}).unmatched == ["gone"]
    short = compare(outcomes(a=PASSED), outcomes(a=PASSED), entry, {}, complete=False)
    assert short.unmatched == []


def test_a_file_that_cannot_be_imported_is_no_good_unless_listed() -> None:
    stock = {"t/test_x.py": Outcome(UNCOLLECTABLE, 0.0, "no module named y")}
    assert not compare(stock, {}, {}, {}).good
    verdict = compare(stock, {}, {"t/test_x.py": "needs y"}, {})
    assert verdict.good and verdict.unmatched == []


def test_the_table_counts_excluded_tests_apart() -> None:
    found = counts(outcomes(a=PASSED, b=FAILED, c=FAILED), {"b": "why"})
    assert found == {PASSED: 1, EXCLUDED: 1, FAILED: 1}
    heading, row = table([("kombu 5.7.0", "phonon -> redis", found, 12.3)]).splitlines()
    assert dict(zip(heading.split()[4:], row.split()[5:], strict=False))["failed"] == "1"


def test_what_is_left_out_depends_on_what_is_ours() -> None:
    ours = excluded_tests("celery", "phonon", "phonon")
    assert excluded_tests("celery", "redis", "redis") == EXCLUSIONS["celery"]
    assert excluded_tests("celery", "phonon", "redis") == EXCLUSIONS["celery"] | BACKEND_EXCLUSIONS
    assert excluded_tests("celery", "redis", "phonon") == EXCLUSIONS["celery"] | BROKER_EXCLUSIONS
    assert ours == EXCLUSIONS["celery"] | BACKEND_EXCLUSIONS | BROKER_EXCLUSIONS
    assert excluded_tests("kombu", "phonon", "phonon") == EXCLUSIONS["kombu"]


def test_every_entry_has_a_reason() -> None:
    others = {"backend": BACKEND_EXCLUSIONS, "broker": BROKER_EXCLUSIONS}
    for listing in (EXCLUSIONS, KNOWN_FLAKY, others):
        for entries in listing.values():
            for test, why in entries.items():
                assert "/test_" in test and len(why) > 20, test


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("redis://h:1/0", "phonon://h:1/0"),
        ("rediss://h", "phonons://h"),
        ("redis://a;redis://b", "phonon://a;phonon://b"),
        ("sentinel://a:1;sentinel://b:2", "phonon+sentinel://a:1;phonon+sentinel://b:2"),
        ("redis+socket:///redis://x", "phonon+socket:///redis://x"),
        (["redis://a", "amqp://b"], ["phonon://a", "amqp://b"]),
        ("memory://", "memory://"),
        ("redis", "redis"),
        (None, None),
    ],
)
def test_their_urls_become_ours(theirs: object, ours: object) -> None:
    assert plugin.translate(theirs) == ours


TESTS = """
import os, sys, pytest, kombu

def test_passes(): pass
def test_fails(): assert False, "for a reason"
def test_skips(): pytest.skip("not here")
@pytest.mark.xfail(True, reason="always on redis")
def test_not_worth_running(): raise SystemExit
def test_transport():
    with kombu.Connection(os.environ["TEST_BROKER"]) as connection:
        print(connection.default_channel)
        module = type(connection.transport).__module__
    assert module.startswith(os.environ["EXPECTED"])
def test_passes_when_run_again():
    if not os.path.exists("ran"):
        open("ran", "w").close()
        assert False
@pytest.mark.timeout(300)
def test_takes_too_long():
    import threading
    threading.Event().wait()
def test_ends_the_run(): os._exit(3)
"""


@pytest.mark.parametrize(
    ("broker", "disguise", "expected"),
    [
        ("redis", False, "kombu.transport.redis"),
        ("phonon", False, "phonon_kombu."),
        ("phonon", True, "phonon_kombu."),
    ],
)
def test_a_run_notes_what_became_of_each_test(
    broker: str, disguise: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_small.py").write_text(TESTS)
    shutil.copy(Path(plugin.__file__), tests / f"{PLUGIN_NAME}.py")
    monkeypatch.setenv("EXPECTED", expected)
    suite = Suite("kombu", "test_*.py")
    limits = {"test_small.py::test_takes_too_long": 0.2}
    logs = tmp_path / "logs"
    runner = Runner(suite, tests, logs, broker=broker, disguise=disguise, limits=limits)

    (piece,) = suite.pieces(tests)
    found = runner.run(piece, "small")

    assert {test.partition("::")[2]: one.outcome for test, one in found.items()} == {
        "test_passes": PASSED,
        "test_fails": FAILED,
        "test_skips": SKIPPED,
        "test_not_worth_running": SKIPPED,
        "test_transport": PASSED,
        "test_passes_when_run_again": FLAKY,
        "test_takes_too_long": FAILED,
        "test_ends_the_run": NOT_RUN,
    }
    assert "for a reason" in found["test_small.py::test_fails"].message
    save(found, tmp_path / "saved.json")
    assert load(tmp_path / "saved.json") == found


def test_the_pieces_of_a_large_file_are_all_of_it(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    functions = "".join(f"def test_{number}(): pass\n" for number in range(10))
    (tests / "test_large.py").write_text(functions + "#" * LARGE_FILE_BYTES)
    shutil.copy(Path(plugin.__file__), tests / f"{PLUGIN_NAME}.py")
    suite = Suite("kombu", "test_*.py")
    runner = Runner(suite, tests, tmp_path / "logs")

    pieces = [runner.run_once(piece, piece.name) for piece in suite.pieces(tests)]

    assert sorted(map(len, pieces)) == [2, 2, 3, 3]
    assert {test for piece in pieces for test in piece} == {
        f"test_large.py::test_{number}" for number in range(10)
    }


def test_a_run_without_a_report_has_no_outcomes(tmp_path: Path) -> None:
    assert read_report(tmp_path / "none.jsonl") == {}


def archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"#"))
    return path


def test_only_the_tests_are_unpacked(tmp_path: Path) -> None:
    sdist = archive(
        tmp_path / "x.tar.gz", "x-1/setup.cfg", "x-1/x/__init__.py", "x-1/t/integration/test_a.py"
    )
    unpack(sdist, tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*.*")}
    assert found == {"setup.cfg", "t/integration/test_a.py"}


def test_a_source_distribution_without_tests_is_refused(tmp_path: Path) -> None:
    sdist = archive(tmp_path / "x.tar.gz", "x-1/setup.cfg", "x-1/t/unit/test_a.py")
    with pytest.raises(UpstreamUnavailable, match=r"carries no t/integration"):
        unpack(sdist, tmp_path / "out")
