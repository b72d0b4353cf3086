"""``yici bench answers``: no answer is wrong, and a deliberate defect does not go unseen."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from bench import answers, defective_answers, measuring
from bench.answers import Loaded
from hub.cli import app
from tests.conftest import ROOT

KEYS = ["answers", "wrong_held", "wrong_submit", "undetermined_share", "by_disposition"]
PEOPLE = 400


def test_the_oracle_shares_no_code_with_what_it_judges() -> None:
    tree = ast.parse((ROOT / "bench/oracle.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "yaml" in imported and "pyarrow.parquet" in imported
    assert not [
        name for name in imported if name.split(".")[0] in ("hub", "mappings", "connectors", "quality", "demo", "bench")
    ]


def test_a_defect_that_is_none_is_refused() -> None:
    done = CliRunner().invoke(app, ["bench", "answers", "--people", "400", "--defect", "none"])
    assert done.exit_code == 2
    assert set(defective_answers.DEFECTS) == {
        "asked-again",
        "contradictions",
        "halves",
        "lateness",
        "parts",
        "people",
        "regions",
        "roles",
        "together",
        "validity-left",
    }


@contextlib.contextmanager
def store(seed: int) -> Iterator[Loaded]:
    kept = dict(os.environ)
    try:
        with measuring.home() as here:
            yield answers.load(here.path, PEOPLE, seed)
    finally:
        os.environ.clear()
        os.environ.update(kept)


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loaded]:
    with store(5) as made:
        yield made


@pytest.mark.slow
def test_under_an_agreement_for_a_part_of_the_province_no_answer_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from hub.holdings import Freshness

    with store(6) as made:
        assert made.truth.told == answers.CITIES
        count = answers.judge(made, 6)
        assert count.examples == [] and count.right and count.result()["by_disposition"]["held_elsewhere"] > 0
        monkeypatch.setattr(Freshness, "whole", Freshness.whole)  # put back afterwards
        defective_answers.DEFECTS["parts"]()
        assert not answers.judge(made, 6).right


@pytest.mark.slow
def test_no_answer_is_wrong(loaded: Loaded) -> None:
    count = answers.judge(loaded, 5)
    result = count.result()
    assert count.examples == [] and count.right
    assert (result["wrong_held"], result["wrong_submit"]) == (0, 0)
    assert list(result) == KEYS
    # It saw something: answers of every kind, about the past too, and made again.
    assert result["answers"] > 5000 and count.replays > 10 and count.whole > 2000 and count.bundles > 100
    assert set(result["by_disposition"]) == {
        "held", "held_elsewhere", "alternative_held", "expired", "deferred", "not_required", "submit", "undetermined",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("defect", sorted({*defective_answers.DEFECTS} - {"parts"}))
def test_a_deliberate_defect_is_caught(loaded: Loaded, defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hub import answers as asking
    from hub import findings, knowledge, papers, resolver
    from hub.holdings import Freshness

    for kind, name in (
        (asking, "complete"),
        (findings.Evidence, "_judge"),
        (findings.Evidence, "_concerns"),
        (Freshness, "late"),
        (knowledge.Gathered, "subject"),
        (resolver, "_lacking"),
        (papers, "new"),
    ):
        monkeypatch.setattr(kind, name, getattr(kind, name))  # put back afterwards
    defective_answers.DEFECTS[defect]()
    count = answers.judge(loaded, 5)
    assert not count.right
    if defect == "people":
        assert count.other > 0, "a paper that nobody is asked for"
    else:
        assert count.wrong_held > 0 or defect in ("asked-again", "halves")
    if defect in ("asked-again", "halves", "roles", "lateness"):
        assert count.wrong_submit > 0, "the other way, or both ways"


@pytest.mark.slow
def test_the_command_prints_one_value() -> None:
    command = [sys.executable, "-m", "hub", "bench", "answers", "--people", str(PEOPLE), "--seed", "2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(json.loads(done.stdout)) == KEYS
