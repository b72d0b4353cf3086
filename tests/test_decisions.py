"""hub/decisions.py: what a person decided can be read back."""

from __future__ import annotations

import sqlalchemy as sa

from hub import decisions


def test_a_decision_about_a_batch_is_read_back_with_its_reason(store: sa.Engine) -> None:
    with store.begin() as connection:
        decisions.record(connection, "approve", "sh-x", actor="wang", note="confirmed by phone", batch="b1")
        decisions.record(connection, "approve", "sh-x", actor="li", note="", batch="b2")
    with store.connect() as connection:
        (found,) = decisions.about(connection, "b1")
        assert decisions.about(connection, "b3") == []
    assert (found["kind"], found["actor"], found["note"], found["rows"]) == ("approve", "wang", "confirmed by phone", 0)
    assert found["decided_at"] is not None
