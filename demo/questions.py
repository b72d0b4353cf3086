"""Sample questions: subjects chosen from what the generator knows to be true, asked through the HTTP API as a client."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import requests

from connectors.errors import FatalError
from connectors.messages import Language

SECONDS = 30.0
CLIENT = "demo-intake"
PURPOSE = "demo"
ITEMS = ("demo-food-permit", "demo-branch-registration", "demo-household-move", "demo-newborn-registration",
         "demo-elder-card", "demo-residence-permit")  # fmt: skip
MEMBERS = ("requirement", "materials", "disposition", "reason", "legal_basis")


@dataclass(frozen=True)
class Question:
    """One request to ``/v1/lookups``; ``about`` says in words who asks, without naming anybody."""

    item: str
    about: dict[Language, str]
    id: str = field(repr=False)
    facts: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict, repr=False)


def choose(folder: Path, today: dt.date) -> list[Question]:
    """Questions whose answers differ: held, to submit, not required, expired, replaced, still open."""
    truth = folder / "truth"
    people = pq.read_table(truth / "people.parquet")
    companies = pq.read_table(truth / "companies.parquet")
    certificates = pq.read_table(truth / "certificates.parquet").filter(pc.field("held") & pc.field("dirt").is_null())
    open_ended = certificates["valid_to"].is_null()
    lasting = pc.or_kleene(open_ended, pc.greater(certificates["valid_to"], pa.scalar(today + dt.timedelta(days=365))))
    lasting = pc.fill_null(pc.and_(lasting, pc.equal(certificates["status"], "in_force")), False)
    ended = pc.fill_null(pc.less(certificates["valid_to"], pa.scalar(today)), False)
    cards = pc.equal(certificates["material"], "resident-id-card")
    with_card = _holders(certificates.filter(pc.and_(cards, lasting)))
    without_card = _holders(certificates.filter(pc.and_(cards, ended)))
    registered = _holders(certificates.filter(_of("household-register", certificates, lasting)))
    married = _holders(certificates.filter(_of("marriage-certificate", certificates, lasting)))
    licensed = _holders(certificates.filter(_of("business-licence", certificates, lasting)))

    identifiers = pc.binary_join_element_wise("cn.ric", people["identifier"], ":")
    people = people.append_column("text", identifiers)
    adult = pc.less(people["born_on"], pa.scalar(today.replace(year=today.year - 25, day=1)))
    elder = people.filter(pc.and_(adult, pc.and_(_in(people["text"], without_card), _in(people["text"], registered))))
    at_home = pc.and_(_in(people["text"], with_card), _in(people["text"], registered))
    spouses = people.select(["person", "text"]).rename_columns(["spouse", "spouse_text"])
    couples = people.filter(pc.and_(at_home, _in(people["text"], married))).join(spouses, "spouse", join_type="inner")
    couples = couples.filter(_in(couples["spouse_text"], registered)).sort_by("person")
    firms = companies.append_column("text", pc.binary_join_element_wise(companies["scheme"], companies["value"], ":"))
    heads = pc.binary_join_element_wise("cn.ric", firms["representative_identifier"], ":")
    firms = firms.append_column("head", heads)
    firms = firms.filter(pc.and_(_in(firms["text"], licensed), _in(firms["head"], with_card))).sort_by("company")

    questions = []
    if firms.num_rows:
        firm, head = firms["text"][0].as_py(), firms["head"][0].as_py()
        questions += [
            Question(
                "demo-food-permit",
                {"zh": "一家企业，法定代表人本人到场", "en": "A company; its legal representative comes in person"},
                firm,
                {"legal_representative_in_person": True},
                {"legal_representative": head},
            ),
            Question(
                "demo-food-permit",
                {"zh": "同一家企业，尚未说明由谁办理", "en": "The same company, not having said who will apply"},
                firm,
            ),
        ]
    if couples.num_rows:
        person, spouse = couples["text"][0].as_py(), couples["spouse_text"][0].as_py()
        questions.append(
            Question(
                "demo-household-move",
                {"zh": "一位已婚居民，投靠配偶", "en": "A married resident who joins the spouse"},
                person,
                {"married": True, "ground": "spouse"},
                {"spouse": spouse},
            )
        )
    if elder.num_rows:
        person = elder.sort_by("person")["text"][0].as_py()
        questions += [
            Question(
                "demo-elder-card",
                {
                    "zh": "一位身份证已过期、有户籍登记的居民",
                    "en": "A resident whose identity card has expired, with a household",
                },
                person,
                {"registered_in_city": True},
            ),
            Question(
                "demo-residence-permit",
                {"zh": "同一位居民", "en": "The same resident"},
                person,
                {"lives_with_spouse": False},
            ),
        ]
    return questions


def essence(answer: dict[str, Any]) -> dict[str, Any]:
    """What ``demo.json`` keeps of an answer."""
    return {
        "item": answer["item"],
        "item_name": answer["item_name"],
        "requirements": [{name: entry[name] for name in MEMBERS} for entry in answer["requirements"]],
        "must_submit": answer["must_submit"],
    }


class Intake:
    """An intake system: signs in at ``/oauth2/token``, asks at ``/v1/lookups``."""

    def __init__(self, address: str, client_id: str, client_secret: str, language: Language) -> None:
        self.address = address
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Accept-Language"] = language
        data = {"grant_type": "client_credentials"}
        answer = self._post("/oauth2/token", data=data, auth=(client_id, client_secret))
        self._session.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def ask(self, question: Question) -> dict[str, Any]:
        """The API's answer to one question."""
        body = {"items": [question.item], "id": question.id, "facts": question.facts, "roles": question.roles}
        (answer,) = self._post("/v1/lookups", json=body)["answers"]
        return dict(answer)

    def _post(self, path: str, **options: Any) -> Any:
        try:
            answer = self._session.post(f"{self.address}{path}", timeout=SECONDS, **options)
        except requests.RequestException:
            raise FatalError("demo-api-silent", address=self.address) from None
        if not answer.ok:
            code = answer.json().get("code", "-") if "json" in answer.headers.get("Content-Type", "") else "-"
            raise FatalError("demo-api-refuses", path=path, status=answer.status_code, code=code)
        return answer.json()


def _of(material: str, certificates: pa.Table, lasting: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.and_(pc.equal(certificates["material"], material), lasting)


def _holders(certificates: pa.Table) -> pa.Array:
    return pc.unique(pc.list_flatten(certificates["holders"]))


def _in(values: pa.ChunkedArray, of: pa.Array) -> pa.ChunkedArray:
    return pc.is_in(values, value_set=of)
