"""``yici lookup`` and ``yici explain``: ask what is held and what must still be submitted, and why."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from connectors.messages import Language

CLIENT, PURPOSE = "yici-cli", "operator"


def register(app: typer.Typer) -> None:
    @app.command()
    def lookup(
        id_: Annotated[
            str, typer.Option("--id", metavar="SCHEME:VALUE", help="The applicant; `-` reads it from stdin.")
        ],
        item: Annotated[
            list[str], typer.Option("--item", metavar="CODE", help="A service item or bundle; may be repeated.")
        ],
        more: Annotated[list[str] | None, typer.Argument(metavar="[CODE]...", help="Further items.")] = None,
        fact: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A fact of the case.")] = None,
        role: Annotated[
            list[str] | None, typer.Option(metavar="ROLE=SCHEME:VALUE", help="Somebody else concerned.")
        ] = None,
        purpose: Annotated[
            str, typer.Option(help="What it is for; partner hubs are asked for this purpose.")
        ] = PURPOSE,
        case: Annotated[
            str | None, typer.Option(help="Number of the case; partner hubs are asked for a case only.")
        ] = None,
        as_of: Annotated[
            str | None, typer.Option(metavar="TIME", help="Answer as known at this ISO 8601 time.")
        ] = None,
        lang: Annotated[str | None, typer.Option(help="zh or en.")] = None,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
    ) -> None:
        """What is held for an applicant, and what must still be submitted. 查询已有材料与仍需提交的材料。

        Example: [bold]yici lookup --item demo-food-permit --id - --fact legal_representative_in_person=true[/]
        """
        from hub import answers, catalogue, database
        from hub.answers import Question
        from hub.cli import output

        language = _language(lang)
        codes = catalogue.expand((*item, *(more or [])))
        known = [item for code in codes for item in reversed(catalogue.published().get(code, ()))]
        # Without a known item there is nothing to read facts by: the question itself says what is wrong.
        facts = {
            name: answers.fact_from_text(known, name, text) if known else text for name, text in _pairs(fact, "--fact")
        }
        applicant, roles = _identifier(id_), dict(_pairs(role, "--role"))
        question = Question(
            items=codes,
            applicant=applicant,
            client=CLIENT,
            purpose=purpose,
            facts=facts,
            roles=roles,
            case=_case(case, (applicant, *roles.values())),
            as_of=_time(as_of) if as_of else None,
            language=language,
        )
        given = answers.ask(database.engine(), question)
        if json:
            output.json(given[0] if len(given) == 1 else given)
        else:
            for answer in given:
                _print_answer(answer, language)

    @app.command()
    def explain(
        answer: Annotated[str, typer.Argument(metavar="ANSWER", help="The `answer` field of a lookup.")],
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
        lang: Annotated[str | None, typer.Option(help="zh or en.")] = None,
    ) -> None:
        """Show rule by rule how an answer came about. 逐条说明某次答复的依据。

        Example: [bold]yici explain 6f1c2a4e-…[/]
        """
        from hub import database, records
        from hub.cli import output

        language = _language(lang)
        found = records.explain(database.engine(), answer)
        if json:
            output.json(found)
        else:
            _print_trace(found, language)


def _language(lang: str | None) -> Language:
    from connectors import messages

    if lang is None:
        return messages.language()
    if lang not in ("zh", "en"):
        raise typer.BadParameter("zh or en", param_hint="--lang")
    return "zh" if lang == "zh" else "en"


def _pairs(texts: list[str] | None, option: str) -> list[tuple[str, str]]:
    from connectors.errors import UsageError

    pairs: list[tuple[str, str]] = []
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not name or not equals or name in dict(pairs):
            raise UsageError("pair-invalid", option=option)
        pairs.append((name, value))
    return pairs


def _identifier(text: str) -> str:
    from connectors.errors import UsageError

    if text != "-":
        return text
    line = sys.stdin.readline().strip()
    if not line:
        raise UsageError("identifier-absent")
    return line


def _case(case: str | None, parties: Iterable[str]) -> str | None:
    from connectors.errors import UsageError
    from hub import mentions

    if case is not None and mentions.names_somebody(case, parties):
        raise UsageError("case-names-somebody")
    return case


def _time(text: str) -> dt.datetime:
    from connectors.errors import UsageError
    from hub.clock import CHINA

    try:
        time = dt.datetime.fromisoformat(text)
        return time if time.tzinfo else time.replace(tzinfo=CHINA)
    except ValueError:
        raise UsageError("as-of-unparsed") from None


_STYLES = {
    "held": "green",
    "alternative_held": "green",
    "held_elsewhere": "green",
    "not_required": "dim",
    "deferred": "yellow",
    "undetermined": "yellow",
}
_WORDS = {
    "zh": ("要求", "结论", "说明", "仍需提交", "现在无需提交任何材料", "待确定", "可后补或承诺"),
    "en": ("Requirement", "Disposition", "Why", "Still to submit", "Nothing to submit now", "Still open", "Deferred"),
}
_DISPOSITIONS = {
    "held": "已有",
    "alternative_held": "已有可替代材料",
    "held_elsewhere": "外省已有",
    "deferred": "容缺或承诺",
    "expired": "已过期",
    "not_required": "不需要",
    "submit": "需提交",
    "undetermined": "待定",
}


def _print_answer(answer: dict[str, Any], language: Language) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mappings import model

    requirement, disposition, why, submit, nothing, unclear, later = _WORDS[language]
    console = Console()
    table = Table(title=escape(f"{answer['item_name']} ({answer['item']})"), title_justify="left", expand=True)
    table.add_column(requirement, ratio=3, overflow="fold")
    table.add_column(disposition, ratio=2, overflow="fold")
    table.add_column(why, ratio=6, overflow="fold")
    for entry in answer["requirements"]:
        word = (
            _DISPOSITIONS.get(entry["disposition"], entry["disposition"]) if language == "zh" else entry["disposition"]
        )
        style = _STYLES.get(entry["disposition"], "red")
        basis = f"\n[dim]{escape(entry['legal_basis'])}[/]" if entry["legal_basis"] else ""
        lines = [entry["reason"], *(each["text"] for each in entry.get("questions", ())), entry.get("next_step")]
        if needed := entry.get("roles_needed"):
            lines.append(", ".join(f"{each['role']} ({each['name']})" for each in needed))
        lines += [_partner(found) for found in entry.get("elsewhere", [])]
        lines += [f"{row['source']} · {row['file']} · {row['row']}" for row in entry.get("provenance", [])]
        table.add_row(
            escape(entry["name"]) + basis, f"[{style}]{word}[/]", escape("\n".join(line for line in lines if line))
        )
    console.print(table)
    names = [getattr(model.load(code).name, language) for code in answer["must_submit"]]
    unsure = sum(entry["disposition"] == "undetermined" for entry in answer["requirements"])
    console.print(f"[bold]{submit}:[/] {escape(', '.join(names))}" if names else f"[bold]{nothing}[/]", highlight=False)
    deferred = [code for entry in answer["requirements"] for code in entry.get("deferral", {}).get("materials", [])]
    if deferred:
        names = [getattr(model.load(code).name, language) for code in dict.fromkeys(deferred)]
        console.print(f"[yellow]{later}: {escape(', '.join(names))}[/]", highlight=False)
    if unsure:
        console.print(f"[yellow]{unclear}: {unsure}[/]", highlight=False)
    console.print(f"[dim]yici explain {answer['answer']}[/]\n", highlight=False)


def _partner(found: dict[str, Any]) -> str:
    """One certificate at a partner hub on one line."""
    parts = (
        found["hub"],
        found["region"],
        f"→ {found['valid_to'] or '-'}",
        f"@ {found['as_of'] or '-'}",
        found["handle"],
    )
    return " · ".join(part for part in parts if part)


def _print_trace(found: dict[str, Any], language: Language) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.tree import Tree

    body = {entry["requirement"]: entry for entry in (found["body"] or {}).get("requirements", [])}
    trace = found["trace"]
    tree = Tree(escape(f"{found['item']} v{trace['version']} · {found['asked_at']} · {found['client']}"))
    tree.add(escape(f"inputs sha256 {found['inputs_digest']} · replay {found['replay']}"))
    tree.add(escape("facts: " + (", ".join(f"{name}={value}" for name, value in trace["facts"].items()) or "-")))
    sources = tree.add("sources")
    for source in trace["sources"]:
        late = " · late" if source["late"] else ""
        what = " ".join([source["material"], *(source[key] for key in ("hub", "region") if key in source)])
        sources.add(escape(f"{source['source']} ({what}): {source['last_success_at'] or '-'}{late}"))
    for entry in trace["requirements"]:
        branch = tree.add(f"[bold]{escape(entry['requirement'])}[/] → {escape(entry['disposition'])}")
        branch.add(escape(body.get(entry["requirement"], entry)["reason"]))
        condition = entry["condition"]
        word = {True: "true", False: "false", None: "open: " + ", ".join(condition["deciding"])}[condition["value"]]
        branch.add(escape(f"condition {word}"))
        for place, option in enumerate(entry["options"], start=1):
            leaf = branch.add(f"option {place}")
            for use in option:
                known = [f"{holding['holding']} {holding['status']}" for holding in use.get("holdings", [])]
                known += [f"{entry['source']} {entry['epoch']} {entry['status']}" for entry in use.get("entries", [])]
                keys = " ".join(known)
                leaf.add(
                    escape(f"{use['material']} of {use['holder']}: {use['state']} ({use['reason']}) {keys}".rstrip())
                )
    for given in found["evidence"]:
        branch = tree.add(escape(f"evidence {given['material']} {given['holding']} · {given['at']}"))
        branch.add(escape(f"{given['provider'] or 'this hub 本节点'}: {', '.join(given['fields'])}"))
        if given["message"]:
            branch.add(escape(f"yici ledger show {given['message']}"))
    Console().print(tree, highlight=False)
