"""Sample questions: subjects chosen from what the generator knows to be true, asked through the HTTP API as a client."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import requests

from connectors.errors import FatalError
from connectors.messages import Language
from mappings.items import APPLICANT

SECONDS = 30.0
CLIENT = "demo-intake"
PURPOSE = "demo"
ITEMS = ("demo-food-permit", "demo-branch-registration", "demo-household-move", "demo-elder-card",
         "demo-residence-permit", "demo-pension-transfer", "demo-housing-fund-withdrawal", "newborn",
         "start-company")  # fmt: skip
MEMBERS = ("requirement", "materials", "disposition", "reason", "legal_basis")

Words = dict[Language, str]


@dataclass(frozen=True)
class Question:
    """One request to ``/v1/lookups``; ``about`` says in words who asks, without naming anybody."""

    item: str
    about: Words
    id: str = field(repr=False)
    facts: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict, repr=False)
    case: str | None = None

    def party(self, role: str) -> str:
        """Whom an answer calls ``role``."""
        return self.id if role == APPLICANT else self.roles[role]


class Truth:
    """What the generator knows: who holds what, leaving out everybody about whom records contradict each other."""

    def __init__(self, folder: Path, today: dt.date) -> None:
        truth = folder / "truth"
        self.today = today
        people = pq.read_table(truth / "people.parquet")
        self.people = people.append_column("text", pc.binary_join_element_wise("cn.ric", people["identifier"], ":"))
        companies = pq.read_table(truth / "companies.parquet")
        value = pc.binary_join_element_wise(companies["scheme"], companies["value"], ":")
        head = pc.binary_join_element_wise("cn.ric", companies["representative_identifier"], ":")
        self.companies = companies.append_column("text", value).append_column("head", head)
        self.doubtful = pq.read_table(truth / "contradictions.parquet", columns=["identifier"])["identifier"]
        certificates = pq.read_table(truth / "certificates.parquet")
        self.certificates = certificates.filter(pc.field("held") & pc.field("dirt").is_null())

    def holders(self, material: str, file: str = "", *, ended: bool = False) -> pa.Array:
        """Who holds a certificate in force for another year, or (``ended``) one that has run out; ``file`` begins its name."""
        found = self.certificates.filter((pc.field("material") == material) & pc.starts_with(pc.field("file"), file))
        if ended:
            chosen = pc.less(found["valid_to"], pa.scalar(self.today))
        else:
            lasting = pc.greater(found["valid_to"], pa.scalar(self.today + dt.timedelta(days=365)))
            chosen = pc.and_(pc.or_kleene(found["valid_to"].is_null(), lasting), pc.equal(found["status"], "in_force"))
        return pc.unique(pc.list_flatten(found.filter(pc.fill_null(chosen, False))["holders"]))

    def persons(self, *holding: pa.Array, without: pa.Array | None = None) -> pa.Table:
        """Grown-up people in each of the sets ``holding``, in order of their number."""
        grown = self.today.replace(year=self.today.year - 25, day=1)
        mask = pc.less(self.people["born_on"], pa.scalar(grown))
        for holders in holding:
            mask = pc.and_(mask, in_set(self.people["text"], holders))
        mask = pc.and_(mask, pc.invert(in_set(self.people["text"], self.doubtful.combine_chunks())))
        if without is not None:
            mask = pc.and_(mask, pc.invert(in_set(self.people["text"], without)))
        return self.people.filter(mask).sort_by("person")


def choose(folder: Path, today: dt.date) -> list[Question]:
    """Questions whose answers differ: held, elsewhere, to submit, deferred, not required, expired, replaced, open."""
    truth = Truth(folder, today)
    card = truth.holders("resident-id-card")
    household = truth.holders("household-register", "ga/")
    found = [
        _companies(truth, card),
        _couple(truth, card, household),
        _mover(truth, card),
        _insured(truth, card),
        _elder(truth, household),
        _owner(truth, card),
        _founder(truth, card),
        _parent(truth, card, household),
    ]
    chosen = [question for questions in found for question in questions]
    # Each is a case of its own: without one no partner hub is asked for evidence.
    return [replace(question, case=f"DEMO-{number}") for number, question in enumerate(chosen, start=1)]


def _companies(truth: Truth, card: pa.Array) -> list[Question]:
    firms = truth.companies
    held = pc.and_(in_set(firms["text"], truth.holders("business-licence")), in_set(firms["head"], card))
    firms = firms.filter(held).sort_by("company")
    if not firms.num_rows:
        return []
    firm, head = firms["text"][0].as_py(), firms["head"][0].as_py()
    present: Words = {"zh": "一家企业，法定代表人本人到场", "en": "A company; its legal representative comes in person"}
    silent: Words = {"zh": "同一家企业，尚未说明由谁办理", "en": "The same company, not having said who will apply"}
    return [
        Question(
            "demo-food-permit",
            present,
            firm,
            {"legal_representative_in_person": True},
            {"legal_representative": head},
        ),
        Question("demo-food-permit", silent, firm),
    ]


def _couple(truth: Truth, card: pa.Array, household: pa.Array) -> list[Question]:
    spouses = truth.people.select(["person", "text"]).rename_columns(["spouse", "spouse_text"])
    couples = truth.persons(card, household, truth.holders("marriage-certificate"))
    couples = couples.join(spouses, "spouse", join_type="inner")
    couples = couples.filter(in_set(couples["spouse_text"], household)).sort_by("person")
    about: Words = {
        "zh": "一位已婚居民，在本市内投靠配偶",
        "en": "A married resident who joins the spouse within the city",
    }
    facts = {"married": True, "ground": "spouse", "moved_from": "shanghai"}
    return _first(couples, "demo-household-move", about, facts, {"spouse": "spouse_text"})


def _mover(truth: Truth, card: pa.Array) -> list[Question]:
    about: Words = {
        "zh": "一位户口在浙江的居民，因工作迁入",
        "en": "A resident registered in Zhejiang who moves in for work",
    }
    people = truth.persons(card, truth.holders("household-register", "ga-zj/"))
    return _first(people, "demo-household-move", about, {"married": False, "ground": "work", "moved_from": "zhejiang"})


def _insured(truth: Truth, card: pa.Array) -> list[Question]:
    here, there = (truth.holders("social-insurance-record", f"hrss/{place}/") for place in ("sh", "zj"))
    about: Words = {
        "zh": "一位曾在浙江参保、现在本市参保的职工",
        "en": "An employee insured here, and in Zhejiang before",
    }
    facts = {"moved_from": "zhejiang", "sex": "female", "age": 35}
    return _first(truth.persons(card, here, there), "demo-pension-transfer", about, facts)


def _elder(truth: Truth, household: pa.Array) -> list[Question]:
    people = truth.persons(truth.holders("resident-id-card", ended=True), household)
    zh = "一位身份证已过期、有户籍登记的居民"
    about: Words = {"zh": zh, "en": "A resident whose identity card has expired, with a household"}
    again: Words = {"zh": "同一位居民", "en": "The same resident"}
    return [
        *_first(people, "demo-elder-card", about, {"registered_in_city": True}),
        *_first(people, "demo-residence-permit", again, {"lives_with_spouse": False}),
    ]


def _owner(truth: Truth, card: pa.Array) -> list[Question]:
    about: Words = {
        "zh": "一位名下有房、退休提取公积金的职工",
        "en": "An employee who draws the housing fund on retiring",
    }
    people = truth.persons(card, truth.holders("real-estate-title"))
    return _first(people, "demo-housing-fund-withdrawal", about, {"purpose": "retirement"})


def _founder(truth: Truth, card: pa.Array) -> list[Question]:
    about: Words = {
        "zh": "一位名下无房的创业者，办理企业开办一件事",
        "en": "A founder without a title to premises, all three items at once",
    }
    people = truth.persons(card, without=truth.holders("real-estate-title"))
    return _first(
        people, "start-company", about, {"founder_is_legal_representative": True, "company_registered": False}
    )


def _parent(truth: Truth, card: pa.Array, household: pa.Array) -> list[Question]:
    about: Words = {
        "zh": "一位新生儿的父亲或母亲，办理出生一件事",
        "en": "A parent of a newborn, all three items at once",
    }
    people = truth.persons(card, household, truth.holders("birth-certificate"))
    facts = {"born_abroad": False, "registers_with": "applicant", "child_registered": False}
    return _first(people, "newborn", about, facts)


def _first(
    people: pa.Table, item: str, about: Words, facts: dict[str, Any], roles: dict[str, str] | None = None
) -> list[Question]:
    """The question of the first of ``people``; ``roles``: role -> column with its identifier."""
    if not people.num_rows:
        return []
    named = {role: people[column][0].as_py() for role, column in (roles or {}).items()}
    return [Question(item, about, people["text"][0].as_py(), facts, named)]


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

    def ask(self, question: Question) -> list[dict[str, Any]]:
        """The API's answers to one question: one an item, several for a bundle."""
        body = {"items": [question.item], "id": question.id, "facts": question.facts, "roles": question.roles}
        body |= {"case": question.case} if question.case else {}
        return [dict(answer) for answer in self._post("/v1/lookups", json=body)["answers"]]

    def evidence(self, holding: str, answer: str) -> dict[str, Any]:
        """The fields of a certificate that the agreement shows; the answer that found it is the grant."""
        return dict(self._sent("GET", f"/v1/evidence/{holding}", headers={"Yici-Grant": answer}).json())

    def evidence_elsewhere(self, handle: str, answer: str, id: str) -> tuple[bytes, str]:
        """A certificate that a partner hub holds: the bytes it signed, and its signed envelope around their digest."""
        given = self._sent("POST", f"/v1/evidence/{handle}", json={"id": id}, headers={"Yici-Grant": answer})
        return given.content, given.headers["Yici-Envelope"]

    def sent(self, handle: str, answer: str, body: dict[str, Any]) -> requests.Response:
        """The same, whatever comes of it."""
        return self._request("POST", f"/v1/evidence/{handle}", json=body, headers={"Yici-Grant": answer})

    def deposit(self, key: str, said: dict[str, Any], file: bytes) -> dict[str, Any]:
        """Hand in a PDF for an applicant."""
        parts = {
            "deposit": (None, json.dumps(said), "application/json"),
            "file": ("paper.pdf", file, "application/pdf"),
        }
        return dict(self._sent("POST", "/v1/deposits", files=parts, headers={"Idempotency-Key": key}).json())

    def notice(self, answer: str) -> bytes:
        """The one-time notice as a page."""
        return self._sent("GET", f"/v1/answers/{answer}/notice", headers={"Accept": "text/html"}).content

    def _post(self, path: str, **options: Any) -> Any:
        return self._sent("POST", path, **options).json()

    def _sent(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self._request(method, path, **options)
        if not answer.ok:
            code = answer.json().get("code", "-") if "json" in answer.headers.get("Content-Type", "") else "-"
            raise FatalError("demo-api-refuses", path=path, status=answer.status_code, code=code)
        return answer

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return self._session.request(method, f"{self.address}{path}", timeout=SECONDS, **options)
        except requests.RequestException:
            raise FatalError("demo-api-silent", address=self.address) from None


def in_set(values: pa.ChunkedArray, of: pa.Array) -> pa.ChunkedArray:
    """Which of ``values`` are among ``of``."""
    return pc.is_in(values, value_set=of)
