"""hub/deliveries.py: as of when a delivery may be."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from connectors.landing import Landing
from hub import batches, database, deliveries, home, pipeline
from tests import licences
from tests.test_pipeline import SH, count, deliver

__all__ = ["deliver"]


@pytest.fixture(autouse=True)
def _store(store: sa.Engine) -> None:
    """Every test has an empty store of its own."""


@pytest.mark.parametrize("as_of", ["2204-01-02", "0001-01-01", "0001-01-01T00:00:00+23:00", "1204-01-02", "9999-12-31"])
def test_no_delivery_shows_its_source_as_of_a_time_beyond_belief(deliver, as_of: str) -> None:
    with pytest.raises(UsageError) as refused:
        deliver(licences.rows(2), as_of=as_of)
    assert refused.value.code == "as-of-beyond" and count("batch") == 0


def test_a_time_of_a_rebuilt_batch_is_taken_as_it_was(deliver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(licences.rows(2), as_of="2020-01-01")
    monkeypatch.setattr(deliveries, "EARLIEST", dt.datetime(2021, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(UsageError):
        deliver(licences.rows(2), as_of="2020-01-01")
    with database.engine().connect() as connection:
        batch = batches.listed(connection)[0]
    landed = Landing(home.current().landing_url).read_manifest(SH, batch.id)
    assert pipeline.fetch(SH, landed=landed)["batch"] == batch.id
