"""A body in which a name stands twice is refused everywhere, and nobody guesses which of both was meant."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub.api import bodies, lanes
from hub.api.lookups import Lookup
from tests.serving import LICENCE, Hub, filled_hub, problem

OTHER = "cn.uscc:91440300708461136T"
PLAIN = json.dumps({"items": ["demo-food-permit"], "id": LICENCE, "facts": {"legal_representative_in_person": True}})
TWICE = (
    PLAIN.replace('"id"', f'"id": "{OTHER}", "id"'),
    PLAIN.replace('"id"', f'"id": "{LICENCE}", "id"'),  # the same value: still said twice
    PLAIN.replace('"id"', f'"\\u0069d": "{OTHER}", "id"'),
    PLAIN.replace('"id"', f'"id" : "{OTHER}", "id"'),
    PLAIN.replace('"legal_rep', '"legal_representative_in_person" : false, "legal_rep'),
    PLAIN.replace('"facts"', '"facts": {}, "facts"'),
    # As many colons as without it: one fewer is read than stands there.
    PLAIN.replace('"id"', '"id": "x", "id"').replace(LICENCE, LICENCE.split(":")[1]),
)


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        yield served_hub.sign_in()


def test_no_question_is_answered_that_says_something_twice(hub: Hub, store: sa.Engine) -> None:
    headers = {"Content-Type": "application/json"}
    for body in TWICE:
        problem(hub.post("/v1/lookups", data=body, headers=headers), 400, "body-repeats")
    subject = PLAIN.replace('"items": ["demo-food-permit"], ', "")
    for body in (
        f'{{"items": [], "items": ["demo-food-permit"], "subjects": [{subject}]}}',
        *(
            f'{{"items": ["demo-food-permit"], "subjects": [{subject}, {one.replace(PLAIN[1:32], "")}]}}'
            for one in TWICE
        ),
    ):
        problem(hub.post("/v1/lookups/batch", data=body, headers=headers), 400, "body-repeats")
    twice = f'{{"id": "{OTHER}", "id": "{LICENCE}"}}'
    problem(hub.post("/v1/subjects/view", data=twice, headers=headers), 400, "body-repeats")
    with store.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM answer")) == 0


def test_what_is_said_once_goes_the_short_way(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    real = lanes.Lanes._asked

    async def counting(self: lanes.Lanes, connection: Any, together: Any) -> Any:
        taken.append(len(together))
        return await real(self, connection, together)

    monkeypatch.setattr(lanes.Lanes, "_asked", counting)
    headers = {"Content-Type": "application/json"}
    for body in (PLAIN, PLAIN.replace(" ", ""), PLAIN.replace(":", " : ").replace(" : 9", ":9")):
        assert hub.post("/v1/lookups", data=body, headers=headers).status_code == 200
    assert taken == [1, 1, 1]
    assert hub.post("/v1/lookups", data=PLAIN.replace("demo-", "\\u0064emo-"), headers=headers).status_code == 200
    assert taken == [1, 1, 1], "what cannot be told at a glance goes the ordinary way, and is answered there"


def test_the_glance_never_passes_what_the_reader_refuses() -> None:
    from hub.api.hot import _colons

    assert bodies.plain(PLAIN.encode(), _colons(Lookup.model_validate_json(PLAIN)))
    for body in TWICE:
        given = Lookup.model_validate_json(body)
        assert not bodies.plain(body.encode(), _colons(given)), body
        with pytest.raises(UsageError) as caught:
            bodies.read(Lookup, body)
        assert caught.value.code == "body-repeats"


def test_every_route_reads_its_body_so() -> None:
    """No module of the API takes a body straight from pydantic, but for the two that look at it first."""
    found = {}
    for path in (Path(__file__).parents[1] / "hub" / "api").glob("*.py"):
        calls = [node.func.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]  # fmt: skip
        if "model_validate_json" in calls or ("read" in calls and "bodies" in path.read_text(encoding="utf-8")):
            found[path.stem] = "plain" in calls or "read" in calls or path.stem == "bodies"
    assert len(found) >= 8 and all(found.values()), found
