"""hub/stages.py: one run of a source at a time, and what is kept of one that failed."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError, RetriableError
from hub import batches, database, pipeline, stages
from tests import licences
from tests.test_pipeline import SH, deliver

__all__ = ["deliver"]


@pytest.fixture(autouse=True)
def _store(store: sa.Engine) -> None:
    """Every test has an empty store of its own."""


def test_one_run_of_a_source_at_a_time(deliver) -> None:
    with stages.alone(SH), pytest.raises(RetriableError) as refused:
        deliver(licences.rows(2))
    assert refused.value.code == "source-busy"


def test_a_batch_keeps_why_it_failed(tmp_path: Path) -> None:
    path = tmp_path / "page.csv"
    path.write_text("<!DOCTYPE html><html><body>502</body></html>", encoding="utf-8")
    with pytest.raises(FatalError):
        pipeline.run(SH, input=path)
    with database.engine().connect() as connection:
        batch = batches.listed(connection)[0]
    assert batch.state == "failed" and batch.findings[0]["code"] == "file-is-html"
