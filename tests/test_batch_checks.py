"""Checks of a batch as a whole."""

from __future__ import annotations

import pytest

from connectors import messages
from connectors.source import Volume
from quality import batch
from quality.batch import Finding

BOUNDS = Volume(min=10, max=50_000, times_usual=10)
SEEN: list[Finding] = [
    *batch.columns(["姓名", "号码"], ["名字", "号码", "电话"]),
    *batch.volume(BOUNDS, 0, [], "snapshot"),
    *batch.volume(BOUNDS, 50_001, [], "partial"),
    *batch.volume(BOUNDS, 9, [], "partial"),
    *batch.volume(BOUNDS, 10_000, [1000], "changes"),
    *batch.duplicates("halt", 2),
    *batch.conservation({"fetched": 2, "accepted": 1}),
    *batch.bad_share(20, 11),
    *batch.withdrawals(3, 20),
]


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_expected_columns_in_any_order_are_fine() -> None:
    assert batch.columns(["a", "b"], ["b", "a", "_row"]) == []


def test_missing_and_unknown_columns_halt_with_a_hint_of_the_rename() -> None:
    missing, unknown = batch.columns(["企业名称", "注册资金", "地区"], ["企业名称", "注册资本", "地区", "电话"])
    assert missing == Finding(
        "batch-columns-missing", "halt", {"columns": "注册资金", "renamed": "注册资金 → 注册资本"}
    )
    assert unknown.code == "batch-columns-unknown"
    assert "电话" in str(unknown.values["columns"])


def test_a_file_without_its_header_is_told_without_repeating_its_first_record() -> None:
    (finding,) = batch.columns(["xm", "gmsfhm", "zt"], ["某人", "11010519491231002X", "zt"])
    assert finding.code == "batch-header-missing" and "11010519491231002X" not in str(finding)


def test_a_column_of_another_name_in_the_same_place_is_taken_for_a_rename() -> None:
    (missing, _) = batch.columns(["id", "name"], ["id", "xm"])
    assert missing.values["renamed"] == "name → xm"
    (gone,) = batch.columns(["id", "name"], ["id"])
    assert gone.values["renamed"] == "-"


@pytest.mark.parametrize(
    ("fetched", "usual", "extent", "expected"),
    [
        (0, [500], "changes", []),
        (0, [500], "partial", []),
        (0, [500], "snapshot", ["batch-empty-snapshot"]),
        (9, [], "partial", ["batch-too-small"]),
        (10, [], "partial", []),
        (50_000, [], "partial", []),
        (50_001, [], "partial", ["batch-too-large"]),
        (999, [10], "changes", []),
        (1000, [100, 100, 100_000], "changes", ["batch-unusual-volume"]),
        (1000, [101], "changes", []),
        (1000, [0, 0, 100], "changes", ["batch-unusual-volume"]),
        (1000, [0, 0], "changes", []),
    ],
)
def test_volume(fetched: int, usual: list[int], extent: str, expected: list[str]) -> None:
    assert codes(batch.volume(BOUNDS, fetched, usual, extent)) == expected


def test_a_snapshot_that_did_not_come_is_not_empty() -> None:
    assert codes(batch.volume(BOUNDS, 0, [500], "snapshot", delivered=False)) == []
    assert codes(batch.volume(BOUNDS, 0, [500], "snapshot", delivered=True)) == ["batch-empty-snapshot"]


def test_conflicting_keys_halt_only_where_the_source_says_so() -> None:
    assert codes(batch.duplicates("halt", 1)) == ["batch-conflicting-keys"]
    assert batch.duplicates("halt", 0) == batch.duplicates("quarantine", 9) == batch.duplicates("latest", 9) == []


def test_rows_are_conserved() -> None:
    assert batch.conservation({"fetched": 10, "unchanged": 1, "accepted": 2, "quarantined": 3, "rejected": 4}) == []
    assert codes(batch.conservation({"fetched": 10, "unchanged": 1, "accepted": 2})) == ["batch-rows-not-conserved"]
    assert batch.conservation({"fetched": 1, "accepted": 2, "rejected": -1}) != []


@pytest.mark.parametrize(
    ("mapped", "bad", "halts"), [(19, 19, False), (20, 10, False), (20, 11, True), (0, 0, False), (1000, 501, True)]
)
def test_mass_failure(mapped: int, bad: int, halts: bool) -> None:
    assert bool(batch.bad_share(mapped, bad)) is halts


def test_the_bound_of_mass_failure_can_be_set() -> None:
    assert batch.bad_share(100, 11, max_share=0.1) != []
    assert batch.bad_share(100, 100, max_share=1) == []


@pytest.mark.parametrize(
    ("withdrawn", "known", "halts"), [(1, 5, False), (19, 19, False), (2, 20, False), (3, 20, True), (0, 0, False)]
)
def test_mass_withdrawal(withdrawn: int, known: int, halts: bool) -> None:
    assert bool(batch.withdrawals(withdrawn, known)) is halts


def test_the_bound_of_mass_withdrawal_can_be_set() -> None:
    (found,) = batch.withdrawals(61, 200, max_share=0.3)
    assert found == Finding("batch-mass-withdrawal", "halt", {"withdrawn": 61, "known": 200, "percent": 30})
    assert batch.withdrawals(60, 200, max_share=0.3) == batch.withdrawals(200, 200, max_share=1) == []
    assert batch.withdrawals(1, 5, min_rows=1) != []


def test_every_finding_was_seen_and_has_sentences_and_advice_in_both_languages() -> None:
    assert len({finding.code for finding in SEEN}) == 10
    for finding in SEEN:
        assert finding.severity == "halt"
        for lang in ("zh", "en"):
            assert "{" not in messages.text(finding.code, lang, **finding.values)
            assert "yici batch show" in messages.advice(finding.code, lang, batch="b1", **finding.values)


def test_other_key_columns_halt_where_rows_are_known() -> None:
    assert batch.keys(None, ["a"], 3) == batch.keys(["a"], ["b"], 0) == batch.keys(["a", "b"], ["b", "a"], 3) == []
    (found,) = batch.keys(["a"], [], 3)
    assert (found.code, found.severity) == ("batch-keys-changed", "halt")
    assert found.values == {"before": "a", "now": "-", "known": 3}
