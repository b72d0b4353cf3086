"""What follows an answer: evidence fetched under it, a paper handed in once and held from then on, the notice, the burden."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from typing import Any

from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.content import RawContent
from pyhanko.pdf_utils.layout import BoxConstraints
from pyhanko.pdf_utils.writer import PageObject, PdfFileWriter

from connectors.messages import Language
from demo.questions import Intake, Question, Truth, in_set
from hub import burden, database, deposit_review

PAPER = "premises-proof"
FIELDS = {
    "business-licence": ["certificate_number", "status", "valid_to", "holder.holder", "attributes.registered_on"],
    "household-register": ["holder.holder", "attributes.household_kind", "attributes.relation_to_head"],
    "social-insurance-record": ["holder.insured", "attributes.insurance_kind", "attributes.months_paid"],
}
A4 = (0, 0, 595, 842)  # points


def hands_in(folder: Path, today: dt.date) -> Question | None:
    """Another company than the one of the sample questions, whose lease no register has."""
    truth = Truth(folder, today)
    firms = truth.companies.filter(in_set(truth.companies["text"], truth.holders("business-licence")))
    firms = firms.sort_by([("company", "descending")])
    if not firms.num_rows:
        return None
    about = {"zh": "另一家企业，交来房屋租赁合同", "en": "Another company, which hands in its lease"}
    return Question("demo-food-permit", about, firms["text"][0].as_py())  # type: ignore[arg-type]


def fetch(intake: Intake, answers: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Evidence of the first certificate that an answer found and the agreement shows something of."""
    for answer in answers:
        for requirement in answer["requirements"]:
            for one in requirement.get("holdings", ()) if requirement["disposition"] == "held" else ():
                if one["material"] in FIELDS:
                    given = intake.evidence(one["holding"], answer["answer"])
                    return {
                        "material": one["material"],
                        "fields": given["fields"],
                        "source": given["source"]["source"],
                    }
    return None


def hand_in(intake: Intake, question: Question) -> dict[str, Any]:
    """What the item asked of the applicant ``before`` a paper was handed in and ``after`` a person had verified it."""
    [asked] = intake.ask(question)
    if PAPER in asked["must_submit"]:
        said = {
            "answer": asked["answer"], "material": PAPER, "holders": {"holder": {"id": question.id}},
            "envelope": {"certificate_number": "DEMO-LEASE-1", "valid_to": "2999-12-31"},
            "attributes": {"area_square_metres": "120.50", "right": "租赁"},
        }  # fmt: skip
        given = intake.deposit("demo-lease-0001", said, paper("Lease DEMO-LEASE-1"))
        deposit_review.decide(deposit_review.VERIFY, [given["deposit"]], actor="demo", note="original seen")
    [again] = intake.ask(question)
    return {"material": PAPER, "before": asked["must_submit"], "after": again["must_submit"]}


def notice(intake: Intake, answers: list[dict[str, Any]], file: Path) -> str:
    """The one-time notice of the answer that asks for most, written to ``file``; returns its item."""
    most = max(answers, key=lambda answer: len(answer["must_submit"]))
    file.write_bytes(intake.notice(most["answer"]))
    return str(most["item_name"])


def asked_for(language: Language) -> dict[str, Any]:
    """The burden ledger's sum over all answers given so far."""
    with database.engine().connect() as connection:
        return burden.total(burden.ledger(connection, "item", burden.days(None, None), language))


def paper(text: str) -> bytes:
    """A PDF of one page that says ``text``, in ASCII."""
    pdf = PdfFileWriter()
    font = generic.DictionaryObject(
        {
            generic.pdf_name("/Type"): generic.pdf_name("/Font"),
            generic.pdf_name("/Subtype"): generic.pdf_name("/Type1"),
            generic.pdf_name("/BaseFont"): generic.pdf_name("/Helvetica"),
        }
    )
    content = RawContent(f"BT /F1 24 Tf 72 720 Td ({text}) Tj ET".encode("ascii"), box=BoxConstraints(A4[2], A4[3]))
    resources = generic.DictionaryObject(
        {generic.pdf_name("/Font"): generic.DictionaryObject({generic.pdf_name("/F1"): font})}
    )
    stream = pdf.add_object(generic.StreamObject(stream_data=content.render()))
    pdf.insert_page(PageObject(contents=stream, media_box=A4, resources=resources))
    written = io.BytesIO()
    pdf.write(written)
    return written.getvalue()
