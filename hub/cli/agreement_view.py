"""How ``yici agreement`` shows an agreement: as JSON, as a row of a list, as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa


def short(row: sa.Row[Any]) -> dict[str, Any]:
    """What can be said of a version without opening it, as it stands now: one that was altered is shown as such."""
    import datetime as dt

    from connectors.errors import YiciError
    from hub.exchange import agreements

    told = {
        "agreement": f"{row.id}/{row.version}",
        "peer": row.peer,
        "provider": row.provider,
        "state": agreements.effective(row, dt.datetime.now(dt.UTC)),
        "suspended_by": row.suspended_by,
        "ended_by": row.ended_by,
        "signed_here": row.own_signature is not None,
        "signed_there": row.peer_signature is not None,
        "valid_from": row.valid_from,
        "valid_to": row.valid_to,
        "replaced_at": row.replaced_at,
        "epoch": row.epoch,
        "untold": [owed["kind"] for owed in row.untold],
    }
    try:
        terms = agreements.opened(row).terms
    except YiciError:
        return {**told, "state": "broken", "modes": [], "materials": []}
    return {**told, "modes": terms.modes, "materials": list(terms.materials)}


def whole(row: sa.Row[Any]) -> dict[str, Any]:
    """All of a version, with what is needed to verify its signatures."""
    from hub.exchange import agreement_terms, agreements

    terms = agreements.opened(row).terms
    return {
        **short(row),
        "terms": terms.model_dump(mode="json"),
        "conditions": {code: each.sharing.conditions for code, each in agreement_terms.conditions(terms).items()},
        "digest": agreement_terms.digest(bytes(row.document)),
        "document": bytes(row.document).decode(),
        "own_signature": row.own_signature,
        "peer_signature": row.peer_signature,
        "history": row.history,
    }


def show(row: sa.Row[Any], *, err: bool = False) -> None:
    """Print all of a version for people."""
    from rich.table import Table

    from hub.cli import output
    from hub.exchange import agreement_terms, agreements

    terms = agreements.opened(row).terms
    conditions = agreement_terms.conditions(terms)
    shown = Table(show_header=False, title=terms.reference, title_justify="left")
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for name, said in (
        ("state 状态", standing(short(row))),
        ("provider → receiver", f"{terms.provider} → {terms.receiver}"),
        ("basis 使用依据", f"{terms.basis.zh}\n{terms.basis.en}"),
        ("scenario 使用场景", f"{terms.scenario.zh}\n{terms.scenario.en}"),
        ("materials 使用范围", "\n".join(f"{code}: {_fields(fields)}" for code, fields in terms.materials.items())),
        (
            "conditions 有条件共享",
            "\n".join(f"{code}: {_condition(each)}" for code, each in conditions.items()) or "-",
        ),
        ("regions 区划", ", ".join(terms.regions)),
        ("modes 共享方式", ", ".join(terms.modes)),
        ("purposes 用途", ", ".join(terms.purposes)),
        ("term 使用时限", f"{moment(terms.valid_from)} – {moment(terms.valid_to)}"),
        ("consent 申请人同意", terms.consent),
        ("epoch 索引期次", f"{row.epoch or '-'}, {terms.epoch_days} d"),
        ("correction 校核", "yes 是" if terms.correction else "no 否"),
        ("SHA-256", agreement_terms.digest(bytes(row.document))),
        (
            "history 经过",
            "\n".join(
                " ".join(
                    filter(None, (each["at"][:19] + "Z", each["hub"], each["kind"], each["actor"], each["reason"]))
                )
                for each in row.history
            ),
        ),
    ):
        shown.add_row(name, _escaped(said))
    (output.messages() if err else output.console()).print(shown)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _fields(fields: Any) -> str:
    return fields if isinstance(fields, str) else ", ".join(fields) or "(held or not 仅是否持有)"


def _condition(material: Any) -> str:
    said = material.sharing.conditions
    return f"{said.zh} {said.en}" if said else "-"


def standing(told: dict[str, Any]) -> str:
    """How a version (:func:`short`) stands, in words."""
    said = [WORDS[told["state"]]]
    if told["state"] == "expired":
        said.append(moment(told["valid_to"]))
    elif told["state"] == "upcoming":
        said.append(f"from {moment(told['valid_from'])}")
    if told["suspended_by"]:
        said.append(f"by {', '.join(told['suspended_by'])}")
    if told["ended_by"] and told["state"] in (*COUNTS, "suspended"):
        said.append(
            f"end wanted by {', '.join(told['ended_by'])}, waits for the other side 已由其提出终止，待另一方提出"
        )
    if told["state"] == "proposed":
        said.append("accepted here 本方已接受" if told["signed_here"] and told["signed_there"] else
                    "waits for them 待对方处理" if told["signed_here"] else "waits for us 待本方处理")  # fmt: skip
    if told["replaced_at"] and told["state"] in (*COUNTS, "suspended"):
        said.append(f"until {moment(told['replaced_at'])}")
    if told["untold"]:
        said.append("not confirmed by them yet 对方尚未确认")
    return "\n".join(said)


def moment(at: Any) -> str:
    """In Beijing."""
    from hub.clock import CHINA

    return str(at.astimezone(CHINA).strftime("%Y-%m-%d %H:%M"))


COUNTS = ("in_force", "upcoming")
WORDS = {
    "proposed": "proposed 已提出",
    "in_force": "in force 生效",
    "upcoming": "agreed, not begun 已签署，尚未开始",
    "suspended": "suspended 已中止",
    "expired": "expired 已到期",
    "superseded": "superseded 已被取代",
    "ended": "ended 已终止",
    "declined": "declined 已拒绝或撤回",
    "broken": "altered in the store 存储被改动",
}
