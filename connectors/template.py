"""The commented folder that ``yici sources new`` writes: texts from ``connectors/templates/``, filled in.

What can be known from name and connector is filled in; the rest is a placeholder that still reads as valid where it can,
and carries the word TODO, so that :func:`open_points` finds it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from connectors.connections import variable
from connectors.source import PEER, UNKNOWN_COLUMNS

FOLDER = Path(__file__).parent / "templates"
UNKNOWN_ENTITY = "todo"  # an entity's name is lower-case
INDEX = "index-entry"  # what a partner hub delivers, always
OPEN = re.compile(r"\bTODO\b|\btodo\b")

REGIONS = {"sh": "310000", "js": "320000", "zj": "330000", "ah": "340000"}
OPTIONS = {
    "rest": ("rest",),
    "database": ("database",),
    "files": ("files",),
    "sftp": ("files", "remote"),
    "s3": ("files", "remote"),
    "hub": ("hub",),
}
PATTERNS = {"csv": "*.csv", "jsonl": "*.jsonl", "xlsx": "*.xlsx", "parquet": "*.parquet"}


@dataclass(frozen=True)
class Choice:
    """What the person who begins a source has already decided; the rest is guessed from the name or left open."""

    name: str
    connector: str
    entity: str | None = None
    region: str | None = None
    connection: str | None = None
    format: str = "csv"


def description(choice: Choice, entities: Iterable[tuple[str, str, str]]) -> str:
    """The text of source.yml. ``entities``: code and names (zh, en) of all there is to choose from."""
    prefix = choice.name.partition("-")[0]
    region = choice.region or REGIONS.get(prefix)
    partner = choice.connector == "hub"
    connection = choice.connection or (prefix if partner else "-".join(choice.name.split("-")[:2]))
    secrets = f"address and secret: {variable(connection)} or the home's connections.json"
    minute = zlib.crc32(choice.name.encode()) % 60  # not every source in the same minute
    delivered = choice.connector in ("files", "sftp", "s3")
    values = {
        "name": choice.name,
        "title_zh": f"TODO {choice.name}",
        "title_en": f"TODO {choice.name}",
        "owner_zh": "TODO 数据提供部门",
        "owner_en": "TODO providing department",
        "basis_zh": "TODO 《政务数据共享条例》第十九条；……",
        "basis_en": "TODO Regulations on Government Data Sharing, Art. 19; ...",
        "region": region or "000000",
        "entities": "\n".join(f"#   {code}  {zh} {en}" for code, zh, en in entities),
        "entity": choice.entity or (INDEX if partner else UNKNOWN_ENTITY),
        "connector": choice.connector,
        "connection": f"{PEER}{connection.removeprefix(PEER)}" if partner else connection,
        "place": "the partner hub, as `yici peer list` names it" if partner else f"a name only; {secrets}",
        "schedule": "*/15 * * * *" if partner else f"{minute} 18 * * *",
        "promise": "PT2H" if partner else "P2D",
        "extent": "partial" if delivered else "changes",
        "row_key": "[handle]" if partner else "[TODO]",
        "as_of": "{column: recorded_at}" if partner else "{column: TODO}",
        "duplicates": "latest" if partner else "quarantine",
        "columns": f"[{', '.join(_index_columns() if partner else UNKNOWN_COLUMNS)}]",
        "format": choice.format,
        "pattern": PATTERNS[choice.format],
    }
    texts = [(FOLDER / f"{part}.yml").read_text(encoding="utf-8") for part in ("source", *OPTIONS[choice.connector])]
    text = Template("".join(texts)).substitute(values)
    for mark in ('region: "000000"  # ', "columns: [TODO]  # "):
        text = text.replace(mark, f"{mark}TODO: ")
    return text


def index_mapping() -> str:
    """mapping.csv of every source whose connector is ``hub``: the feed has one form (docs/protocol/25-index.md)."""
    return (FOLDER / "hub.csv").read_text(encoding="utf-8")


def _index_columns() -> list[str]:
    return [line.split(",")[1] for line in index_mapping().splitlines()[1:]]


def checks(entity: str) -> str:
    """The text of checks.yml, with nothing in it yet."""
    return (
        f"# On top of quality/suites/{entity}.yml; `fail` quarantines a row, `warn` flags it. 在实体通用检查之上的补充检查。\n"
        "checks: []\nbatch: {max_bad_share: 0.5}  # more bad rows than this halt the batch 坏行占比上限\n"
    )


def sample_readme(name: str) -> str:
    """What belongs into the folder's ``sample/``."""
    return Template((FOLDER / "sample.md").read_text(encoding="utf-8")).substitute(name=name)


def open_points(folder: Path) -> Iterator[tuple[Path, int, str]]:
    """File, line number and text of every TODO left in the files of a source; comment lines say what to do, not what
    is open."""
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.csv"), *folder.glob("codelists/*.csv")]):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if OPEN.search(line) and not line.lstrip().startswith("#"):
                yield path, number, line.strip()


_ENTRY = r"^(?P<head>{indent}{key}:[ ]*)(?P<value>{value})(?P<tail>[ ]*(?:#.*)?)$"
_VALUE = r"""\"(?:[^\"\\]|\\.)*\"|'[^']*'|\[.*\]|\{.*?\}|[^#\s][^#]*?"""


def replaced(text: str, key: str, value: str, *, settled: bool = True) -> str:
    """source.yml with the value of ``key`` (``options.columns`` for a nested one) replaced, its comment kept.

    Its TODO goes when it is ``settled``, and comes when it is not. A key that is not there is added, under ``options`` or
    at the end. Only values on one line are found.
    """
    parent, _, name = key.rpartition(".")
    line = f"{'  ' if parent else ''}{name}: {value}" + ("" if settled else "  # TODO")

    def written(found: re.Match[str]) -> str:
        comment = re.sub(r"# TODO\b:?\s*", "# ", found["tail"]).rstrip().removesuffix("#").rstrip()
        if not settled:
            comment = comment.replace("# ", "# TODO: ", 1) if comment else "  # TODO"
        return found["head"] + value + comment

    pattern = _entry(key)
    if pattern.search(text):
        return pattern.sub(written, text, count=1)
    if parent:
        return re.sub(rf"^{parent}:.*$", lambda found: f"{found[0]}\n{line}", text, count=1, flags=re.M)
    return text.rstrip("\n") + f"\n{line}\n"


def is_open(text: str, key: str) -> bool:
    """Whether source.yml leaves ``key`` to be decided: it is not there, or its line says TODO."""
    found = _entry(key).search(text)
    return found is None or OPEN.search(found[0]) is not None


def _entry(key: str) -> re.Pattern[str]:
    parent, _, name = key.rpartition(".")
    return re.compile(_ENTRY.format(indent="  " if parent else "", key=re.escape(name), value=_VALUE), re.M)


def flow(value: object) -> str:
    """A value as YAML on one line, as it stands in source.yml."""
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=1 << 20)
    return text.removesuffix("\n").removesuffix("\n...").strip()
