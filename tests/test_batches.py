"""hub/batches.py: what becomes of a batch whose source cannot be reached."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from connectors.errors import RetriableError
from hub import batches, pipeline


@pytest.fixture
def unreachable(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    monkeypatch.setenv("YICI_CONN_SH_MCA", "postgresql://nobody@127.0.0.1:1/none")
    return store


def states(engine: sa.Engine) -> list[tuple[str, list[str]]]:
    with engine.connect() as connection:
        return [
            (row.state, [finding["code"] for finding in row.findings])
            for row in batches.listed(connection, "sh-mca-marriages")
        ]


def test_a_run_by_hand_that_reached_nobody_is_a_failed_one_with_its_reason(unreachable: sa.Engine) -> None:
    with pytest.raises(RetriableError) as refused:
        pipeline.run("sh-mca-marriages")
    assert states(unreachable) == [("failed", [refused.value.code])]


def test_a_task_of_airflow_goes_on_with_its_batch(unreachable: sa.Engine) -> None:
    for _ in range(2):
        with pytest.raises(RetriableError):
            pipeline.fetch("sh-mca-marriages", run_id="scheduled__1")
    assert states(unreachable) == [("open", [])]
