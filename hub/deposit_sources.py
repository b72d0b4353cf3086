"""Deposits as sources: one folder for each material, written from the model into ``sources/`` of the home.

What a person verified goes the way of every record, so that gates, identities, conservation, ``yici verify`` and ``yici
rebuild`` hold for it too ([decision 16](docs/decisions/0016-deposits.md)). The folders are written anew when the model
changes; nobody edits or schedules them. Columns have the names of the exchange table, dots made hyphens.
"""

from __future__ import annotations

import csv
import functools
import io
import os
from pathlib import Path
from typing import Any

import yaml

from connectors import source as sources
from connectors.documents import Text
from hub import home
from hub.findings import DEPOSITED
from mappings import model
from mappings.model import Material
from mappings.schemes import SCHEMES

PREFIX = "hub-deposits-"
# Weaker than every register: a department's word on the same certificate counts before it.
AUTHORITY = 10
NOWHERE = DEPOSITED  # that there is no deposit says nothing
NEVER = "P36500D"  # it cannot be late
LIST = "identifier-scheme"
ID, TIME = "deposit", "updated_at"
REJECTED = "cancelled"  # in the status of a row: the deposit counts no more, and says nothing of the certificate
_TRANSFORMS = {"string": "text", "money": "amount"}  # others bear the name of their type
_FOLDED = {"certificate_number": "number", "status": "status"}


def name(material: str) -> str:
    """The source of deposits of ``material``."""
    return PREFIX + material


def column(field: str) -> str:
    """The raw column of a column of the exchange table."""
    return field.replace(".", "-")


@functools.cache
def owners() -> dict[str, Text]:
    """Who owns each source, deposits included; the folders are read once."""
    own = Text(zh="申请人自行提交（本节点核验）", en="Handed in by the applicant, verified by this hub")
    found = {described.name: described.owner for described in sources.readable()[0]}
    return {**found, **{name(material.code): own for material in model.all_materials()}}


def write_all() -> None:
    """Write the folders of all materials where they are not as the model has it."""
    for material in model.all_materials():
        write(material)


def write(material: Material, root: Path | None = None) -> Path:
    """The folder of one material, each file whole or not at all."""
    folder = (root or sources.written()) / name(material.code)
    home.current().create()
    for path, text in _files(material).items():
        place = folder / path
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = place.with_name(f".{place.name}.{os.getpid()}")
            draft.write_text(text, encoding="utf-8")
            draft.replace(place)
    return folder


def _files(material: Material) -> dict[str, str]:
    lines = _mapping(material)
    columns = [ID, *dict.fromkeys(one for line in lines for one in line[1].split("|") if one != TIME), TIME]
    described: dict[str, Any] = {
        "name": name(material.code),
        "title": {"zh": f"申请人提交并经核验的{material.name.zh}", "en": f"{material.name.en}, handed in and verified"},
        "owner": {"zh": "本节点", "en": "This hub"},
        "region": NOWHERE,
        "legal_basis": {
            "zh": "《国务院关于在线政务服务的若干规定》第七条",
            "en": "State Council Order 716, Art. 7: what was submitted serves the service alone",
        },
        "entity": material.code,
        "authority": AUTHORITY,
        "connector": "files",
        "connection": name(material.code),
        "promise": NEVER,
        "extent": "changes",
        "row_key": [ID],
        "as_of": {"column": TIME},
        "duplicates": "latest",
        "retracts": {"column": column("status"), "values": [REJECTED]},
        "volume": {"min": 0, "max": 1_000_000, "times_usual": 1_000_000},
        "options": {"format": "jsonl", "pattern": "*.jsonl", "columns": columns},
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["field", "from", "transform", "note"])
    writer.writerows(lines)
    writer.writerow(["-", ID, "", "the row's key"])
    schemes = "".join(f"{scheme},{scheme}\n" for scheme in SCHEMES)
    return {
        f"codelists/{LIST}.csv": f"from,to\n{schemes}",
        "mapping.csv": text.getvalue(),
        # Last: with it there is a source.
        sources.DESCRIPTION: "# Written by the hub from the model: deposits of one material.\n"
        + yaml.safe_dump(described, allow_unicode=True, sort_keys=False),
    }


def _mapping(material: Material) -> list[list[str]]:
    """field, from, transform, note."""
    lines = []
    for field, kind in material.columns().items():
        start, _, rest = field.partition(".")
        if start == "holder":
            role, _, part = rest.partition(".")
            if part == "scheme":
                given = f"{column(f'holder.{role}.value')}|{column(field)}"
                lines.append([f"holder.{role}", given, f"{material.holders[role].kind}:{LIST}", ""])
            elif part == "name":
                lines.append([field, column(field), "text", ""])
        else:
            lines.append([field, column(field), _FOLDED.get(field) or _TRANSFORMS.get(kind, kind), ""])
    return lines
