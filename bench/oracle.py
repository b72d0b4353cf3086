"""What every answer has to be, read off the text of the requirements and the generator's truth, as plainly as possible.

Nothing of the hub is used here: no resolver, no model, no store. Items and sources are read as the YAML that people wrote,
certificates from the truth beside the synthetic files, and what a requirement asks of a certificate's content from the row
that the department wrote. Slow and simple on purpose: each rule is one sentence of the design, written down once more.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parent.parent
HELD = ("held", "alternative_held", "held_elsewhere")
SUBMIT = ("submit", "expired", "deferred")

PARTNER = "zj-hub-index"  # Zhejiang's hub keeps its own household register, and tells us of it
# Which source delivers which of the generator's files.
FOLDERS = {
    "ga/residents": "sh-ga-residents", "ga/households": "sh-ga-households", "ga-zj/": PARTNER,
    "mca/marriages": "sh-mca-marriages", "mca/dibao": "sh-mca-allowances", "mnr/": "sh-mnr-titles",
    "moe/": "sh-moe-degrees", "nhc/": "sh-nhc-births", "hrss/sh/": "sh-hrss-insurance", "hrss/zj/": "zj-hrss-insurance",
    "nia/": "cn-nia-documents", "samr/": "cn-samr-conversions",
    **{f"amr/{code}/": f"{code}-amr-enterprises" for code in ("sh", "js", "zj", "ah")},
}  # fmt: skip
# Whose each place of a certificate is.
ROLES = {
    "marriage-certificate": ("spouse_a", "spouse_b"), "birth-certificate": ("mother", "child", "father"),
    "social-insurance-record": ("insured",),
}  # fmt: skip
# What departments' codes stand for, where a requirement speaks of it.
KINDS = {"110": "职工养老保险", "310": "职工医疗保险"}
STATES = {"1": "参保缴费", "2": "暂停缴费", "4": "终止参保"}
TITLES = {"in_force": "现势", "suspended": "查封", "cancelled": "注销"}
# Denials of who somebody is: of the birth date or sex that a number tells. The other kinds deny a single record.
IDENTITY = ("birth-date", "sex", "link-birth-date", "link-number")
DAY = dt.timedelta(days=1)
CHINA = dt.timezone(dt.timedelta(hours=8))


def source_of(file: str) -> str:
    """The source that delivers ``file``, a path inside the generator's folder."""
    return next(name for prefix, name in FOLDERS.items() if file.startswith(prefix))


@dataclass(frozen=True)
class Source:
    """A department's source, or what a partner hub tells; ``province``: two digits, 00 or 10 for the whole country; ``part``: it
    may tell of a part of the province alone."""

    name: str
    material: str
    province: str
    promise: dt.timedelta
    part: bool = False


@dataclass(frozen=True)
class Certificate:
    """One certificate in the role of one holder. ``paper``: what all its holders' have in common. ``delivered`` and ``gone``:
    with which delivery it came, and went."""

    paper: tuple[str, int]
    material: str
    source: str
    subject: str
    identifier: str
    role: str
    begins: dt.date | None
    ends: dt.date | None
    status: str
    says: Mapping[str, Any]
    delivered: int
    gone: int | None = None


@dataclass(frozen=True)
class Party:
    """Somebody concerned: the subject of the truth, and the identifier (scheme:value) that the question names."""

    subject: str
    identifier: str


@dataclass(frozen=True)
class Scenario:
    """One question. ``delivery``: how much had been delivered; ``late``: sources behind their promise."""

    item: Mapping[str, Any]
    parties: Mapping[str, Party]
    facts: Mapping[str, Any]
    day: dt.date
    delivery: int
    late: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """What a requirement comes to, and what lacks: of each paper the material, whose it is by role, and the province where only its
    own will do (two digits)."""

    disposition: str
    lacks: frozenset[tuple[str, str, str | None]] = frozenset()

    @property
    def asked(self) -> frozenset[tuple[str, str, str | None]]:
        """What is to be handed in now."""
        return frozenset() if self.disposition == "deferred" else self.lacks


@dataclass
class Truth:
    """The folder of the generator, read; ``deliveries``: file -> the number of the delivery it comes with, from 1; ``told``: what
    codes begin with of the divisions that the partner hub may tell of."""

    folder: Path
    deliveries: Mapping[str, int]
    told: tuple[str, ...] = ("33",)
    of: dict[str, list[Certificate]] = field(default_factory=dict)  # by subject
    links: dict[str, list[tuple[str, int]]] = field(
        default_factory=dict
    )  # identifier -> linked with, since which delivery
    denied: dict[str, int] = field(default_factory=dict)  # identifier -> the delivery that brought the denial
    held: set[tuple[str, int]] = field(default_factory=set)  # rows that say something: file and number
    misfiled: set[tuple[str, str]] = field(default_factory=set)  # (subject, material): a record under another's number

    def __post_init__(self) -> None:
        self.volatile = {
            path.stem
            for path in (ROOT / "mappings/model/materials").glob("*.yml")
            if yaml.safe_load(path.read_text())["volatile"]
        }
        self.sources = dict(_sources())
        if self.told != ("33",):
            self.sources[PARTNER] = replace(self.sources[PARTNER], part=True)
        self.items = _items()
        self._certificates()
        self._contradictions()

    def _certificates(self) -> None:
        lines = _Lines(self.folder)
        for row in pq.read_table(self.folder / "truth/certificates.parquet").to_pylist():
            if not row["held"]:
                continue
            file, material = row["file"], row["material"]
            self.held.add((file, row["row"]))
            if material == "identity-link":
                one, other = row["holders"]
                for here, there in ((one, other), (other, one)):
                    self.links.setdefault(here, []).append((there, self.deliveries[file]))
            elif source_of(file) == PARTNER and not lines.named(file, row["row"])["xzqh"].startswith(self.told):
                continue
            elif material != "subsistence-allowance":
                roles = ROLES.get(material, ("holder",))
                says = _says(material, row["status"], lines.at(file, row["row"]) if material in _READ else {})
                for place, (identifier, subject) in enumerate(zip(row["holders"], row["subjects"], strict=True)):
                    role = roles[place]
                    if material == "real-estate-title":
                        organisation = identifier.startswith(("cn.uscc:", "cn.regno:"))
                        role = "owner_organisation" if organisation else "owner_person"
                    self._add(Certificate(
                        (file, row["row"]), material, source_of(file), subject, identifier, role, row["valid_from"], row["valid_to"],
                        row["status"], says, self.deliveries[file],
                    ))  # fmt: skip
        self._allowances()

    def _allowances(self) -> None:
        """A roster holds until the next one: who is no longer on it is no longer entitled, who is new is."""
        whose = {row["identifier"]: row["person"] for row in _people(self.folder)}
        first = {
            row["identifier"]: row for row in pq.read_table(self.folder / "truth/certificates.parquet").to_pylist()
            if row["material"] == "subsistence-allowance"
        }  # fmt: skip
        second = {}
        for line in (self.folder / "mca/dibao-next.csv").read_text(encoding="utf-8").splitlines()[1:]:
            number, _, holder, _, _, _, begins, ends, _ = line.split(",")
            second[number] = (f"cn.ric:{holder}", dt.date.fromisoformat(begins), dt.date.fromisoformat(ends))
        for number in {**first, **second}:
            old, new = first.get(number), second.get(number)
            held = old is not None and old["held"]
            since = self.deliveries["mca/dibao.csv"] if held else self.deliveries["mca/dibao-next.csv"]
            if not held and new is None:
                continue
            if new:
                holder, begins, ends = new
            else:
                assert old is not None
                holder, begins, ends = old["holders"][0], old["valid_from"], old["valid_to"]
            subject = f"person:{whose[holder.partition(':')[2]]}"
            self._add(Certificate(
                (number, 0), "subsistence-allowance", "sh-mca-allowances", subject, holder, "holder", begins, ends, "in_force", {}, since,
                None if new else self.deliveries["mca/dibao-next.csv"],
            ))  # fmt: skip

    def _add(self, certificate: Certificate) -> None:
        self.of.setdefault(certificate.subject, []).append(certificate)

    def _contradictions(self) -> None:
        for row in pq.read_table(self.folder / "truth/contradictions.parquet").to_pylist():
            concerned = [subject for subject in (row["subject"], row["other"]) if subject]
            if row["kind"] in IDENTITY:
                # A row that is kept back, for dirt beside, says nothing.
                if (row["file"], row["row"]) in self.held:
                    self.denied[row["identifier"]] = min(
                        self.deliveries[row["file"]], self.denied.get(row["identifier"], 99)
                    )
            elif row["kind"] == "shared-identifier":
                self.misfiled.update((subject, "social-insurance-record") for subject in concerned)

    def version(self, code: str, day: dt.date) -> Mapping[str, Any] | None:
        """The version of an item in force on ``day``."""
        for item in self.items[code]:
            force = item["in_force"]
            if force["from"] <= day and (force.get("to") is None or day <= force["to"]):
                return item
        return None

    def known_as(self, identifier: str, delivery: int) -> set[str]:
        """All identifiers that delivered rows link with this one, step by step."""
        found, todo = {identifier}, [identifier]
        while todo:
            for other, since in self.links.get(todo.pop(), ()):
                if since <= delivery and other not in found:
                    found.add(other)
                    todo.append(other)
        return found

    def doubtful(self, scenario: Scenario) -> bool:
        """Whether it cannot be said who some party of the question is."""
        return any(self.nobody(party, scenario.delivery) for party in scenario.parties.values())

    def nobody(self, party: Party, delivery: int) -> bool:
        """Whether a delivered row denies what an identifier says itself, this one or one that is linked with it."""
        return any(self.denied.get(name, 99) <= delivery for name in self.known_as(party.identifier, delivery))

    def filed_wrong(self, scenario: Scenario, requirement: Mapping[str, Any]) -> bool:
        """Whether a record that the requirement could be about stands under somebody else's number."""
        return any(
            (scenario.parties[use["holder"]].subject, use["material"]) in self.misfiled
            for option in requirement["options"] for use in map(_whole, option["materials"]) if use["holder"] in scenario.parties
        )  # fmt: skip

    def answer(self, scenario: Scenario) -> list[Verdict]:
        """What each requirement comes to, in order."""
        return [self.requirement(scenario, requirement) for requirement in scenario.item["requirements"]]

    def asked(self, scenarios: Sequence[Scenario]) -> list[frozenset[str]]:
        """The materials that each of several items asked about together asks for: of no person any paper that one before it has
        asked that person for, nor one of any province where any of them asks for the same one of a certain province."""
        every = [
            {
                (material, scenario.parties[role].identifier, province)
                for verdict in self.answer(scenario) for material, role, province in verdict.asked
            }
            for scenario in scenarios
        ]  # fmt: skip
        certain = {(material, person) for wanted in every for material, person, province in wanted if province}
        before: set[tuple[str, str, str | None]] = set()
        found = []
        for wanted in every:
            once = {paper for paper in wanted - before if paper[2] or paper[:2] not in certain}
            found.append(frozenset(material for material, _, _ in once))
            before |= wanted
        return found

    def requirement(self, scenario: Scenario, requirement: Mapping[str, Any]) -> Verdict:
        # No proof without a basis in law.
        if requirement.get("legal_basis") is None:
            return Verdict("not_required")
        applies = _applies(requirement.get("when"), scenario)
        if applies is False:
            return Verdict("not_required")
        # Any one option will do, and of that everything.
        options = [
            [self.material(scenario, _whole(use)) for use in option["materials"]] for option in requirement["options"]
        ]
        for place, option in enumerate(options):
            if set(option) == {"there"}:
                return Verdict("alternative_held" if place else "held")
        if any(set(option) <= {"there", "at a partner"} for option in options):
            return Verdict("held_elsewhere")
        # Nobody knows whether it is needed at all.
        if applies is None:
            return Verdict("undetermined")
        # Something is not known now that could make it unnecessary to ask.
        if any(set(option) <= {"there", "at a partner", "not known"} for option in options):
            return Verdict("undetermined")
        # What is asked for is what certainly lacks of the preferred option, which is the first.
        uses = zip(map(_whole, requirement["options"][0]["materials"]), options[0], strict=True)
        lacks = frozenset(
            (use["material"], use["holder"], use["region"]) for use, each in uses if each in ("not there", "ended")
        )
        if requirement.get("deferral"):
            return Verdict("deferred", lacks)
        return Verdict("submit" if "not there" in options[0] else "expired", lacks)

    def material(self, scenario: Scenario, use: Mapping[str, Any]) -> str:
        """``there``, ``at a partner``, ``not there``, ``ended`` or ``not known``: one certificate that an option needs."""
        # Whoever the certificate has to name must be somebody; who may have no identifier, only if the question gives one.
        named = [use["holder"], *use["with"], *(role for role in use["with_named"] if role in scenario.parties)]
        for role in named:
            one = scenario.parties.get(role)
            # Nobody guesses which of two persons is meant: nothing held counts, and nothing is asked for.
            if one is None or self.nobody(one, scenario.delivery):
                return "not known"
        party, others = scenario.parties[use["holder"]], [scenario.parties[role] for role in named[1:]]
        names = self.known_as(party.identifier, scenario.delivery)
        found = [
            each for each in self.of.get(party.subject, ())
            if each.material == use["material"] and each.identifier in names and each.delivered <= scenario.delivery
            and (each.gone is None or each.gone > scenario.delivery)
            and (use["as"] is None or each.role in use["as"])
            and (use["region"] is None or self.sources[each.source].province == use["region"])
            and all(self._names_too(each, other, scenario.delivery) for other in others)
        ]  # fmt: skip
        verdicts = [self._good(each, use, scenario.day) for each in found]
        good = [each for each, verdict in zip(found, verdicts, strict=True) if verdict == "good"]
        if good:
            # What may change from day to day is not trusted while its source is late.
            trusted = [
                each for each in good if use["material"] not in self.volatile or each.source not in scenario.late
            ]
            if not trusted:
                return "not known"
            return "there" if any(each.source != PARTNER for each in trusted) else "at a partner"
        if "says nothing" in verdicts:
            return "not known"
        # Not there means something only as long as who would know is up to date.
        # The item's own registers know of people from everywhere what they own and do there.
        provinces = (use["region"],) if use["region"] else (_province(party.identifier), scenario.item["region"][:2])
        for source in self.sources.values():
            if source.material == use["material"] and source.name in scenario.late:
                spoke = any(each.source == source.name for each in found)
                # A part's silence leaves nothing open: what is elsewhere in the province it may not tell.
                if source.part and not spoke:
                    continue
                if spoke or source.province in ("00", "10") or source.province in provinces:
                    return "not known"
        return "ended" if "ended" in verdicts else "not there"

    def _names_too(self, each: Certificate, other: Party, delivery: int) -> bool:
        """Whether the same paper names the other too, in another place."""
        names = self.known_as(other.identifier, delivery)
        return any(
            theirs.paper == each.paper and theirs.identifier in names and theirs.role != each.role
            for theirs in self.of.get(other.subject, ())
        )

    def _good(self, each: Certificate, use: Mapping[str, Any], day: dt.date) -> str:
        """``good``, ``bad``, ``ended`` or ``says nothing`` of what is wanted."""
        if each.status not in ("in_force", "expired"):
            return "bad"
        if each.status == "expired" or (each.ends is not None and each.ends < day):
            return "ended"
        if each.begins is not None and each.begins > day:
            return "bad"
        if each.ends is not None and each.ends < day + use["valid_left"]:
            return "ended"
        if use["max_age"] is not None:
            if each.begins is None:
                return "says nothing"
            if each.begins + use["max_age"] < day:
                return "ended"
        tests = [_test(predicate, each.says.get(predicate["attribute"])) for predicate in use["where"]]
        if False in tests:
            return "bad"
        return "says nothing" if None in tests else "good"


def _whole(use: Mapping[str, Any]) -> dict[str, Any]:
    """A use of a material with what it leaves unsaid."""
    return {
        "material": use["material"], "holder": use.get("holder", "applicant"), "as": use.get("as"), "region": use.get("region"),
        "where": use.get("where", ()), "with": use.get("with", ()), "with_named": use.get("with_named", ()), "valid_left": _duration(use.get("valid_left", "P0D")),
        "max_age": _duration(use["max_age"]) if "max_age" in use else None,
    }  # fmt: skip


def _test(predicate: Mapping[str, Any], said: Any) -> bool | None:
    if said is None:
        return None
    if "is" in predicate:
        return bool(said == predicate["is"])
    if "at_least" in predicate:
        return bool(said >= predicate["at_least"])
    if "at_most" in predicate:
        return bool(said <= predicate["at_most"])
    return said in predicate["one_of"]


def _applies(condition: Mapping[str, Any] | None, scenario: Scenario) -> bool | None:
    """Whether the condition holds; None if that depends on what was not said, tried with everything it could be."""
    if condition is None:
        return True
    declared = scenario.item["facts"]
    open_ = {}
    for name, named in _named(condition).items():
        if name not in scenario.facts:
            kind = declared[name]["type"]
            if kind == "boolean":
                open_[name] = [True, False]
            elif kind == "string":
                open_[name] = declared[name]["values"]
            else:
                open_[name] = [value + step for value in named for step in (-1, 0, 1)]
    results = {
        _holds(condition, {**scenario.facts, **dict(zip(open_, values, strict=True))})
        for values in itertools.product(*open_.values())
    }
    return results.pop() if len(results) == 1 else None


def _named(condition: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Facts that a condition speaks of, and the values it compares them with."""
    if "fact" in condition:
        return {condition["fact"]: [value for name, value in condition.items() if name != "fact"]}
    found: dict[str, list[Any]] = {}
    for part in condition.get("all") or condition.get("any") or [condition["not"]]:
        for name, values in _named(part).items():
            found.setdefault(name, []).extend(values)
    return found


def _holds(condition: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    if "all" in condition:
        return all(_holds(part, facts) for part in condition["all"])
    if "any" in condition:
        return any(_holds(part, facts) for part in condition["any"])
    if "not" in condition:
        return not _holds(condition["not"], facts)
    value = facts[condition["fact"]]
    if "is" in condition:
        return bool(value == condition["is"])
    return bool(value >= condition["at_least"] if "at_least" in condition else value <= condition["at_most"])


def _province(identifier: str) -> str | None:
    """The province that an identifier was given in, where it says so."""
    scheme, _, value = identifier.partition(":")
    begin = {"cn.ric": 0, "cn.uscc": 2, "cn.regno": 0, "cn.fpr": 1}.get(scheme)
    found = value[begin : begin + 2] if begin is not None else ""
    return found if re.fullmatch("[1-9][0-9]", found) and found != "10" else None


def _duration(text: str) -> dt.timedelta:
    """``P30D``, ``PT26H``."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(\d+)H)?", text)
    assert found, text
    return dt.timedelta(days=int(found[1] or 0), hours=int(found[2] or 0))


def _sources() -> Iterable[tuple[str, Source]]:
    for path in sorted((ROOT / "connectors/sources").glob("*/source.yml")):
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        if said["name"] in FOLDERS.values():
            material = "household-register" if said["name"] == PARTNER else said["entity"]
            yield said["name"], Source(said["name"], material, said["region"][:2], _duration(said["promise"]))


def _items() -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for path in sorted((ROOT / "mappings/model/items").glob("*.yml")):
        item = yaml.safe_load(path.read_text(encoding="utf-8"))
        item.setdefault("facts", {})
        item.setdefault("roles", {})
        found.setdefault(item["code"], []).append(item)
    return found


_READ = ("social-insurance-record", "degree-certificate")  # whose rows say what requirements ask about


def _says(material: str, status: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """What a certificate says, as far as any requirement asks."""
    if material == "real-estate-title":
        return {"state": TITLES[status]}
    if material == "degree-certificate":
        return {"degree": row["certificate"]["degree"]}
    if material == "social-insurance-record":
        return {"insurance_kind": KINDS[row["xzlx"]], "state": STATES[row["cbzt"]], "months_paid": int(row["ljjfys"])}
    return {}


def _people(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "truth/people.parquet").to_pylist()


class _Lines:
    """Rows of files by number, as the departments wrote them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: dict[str, list[bytes]] = {}
        self.tables: dict[str, list[dict[str, str]]] = {}

    def at(self, file: str, row: int) -> Mapping[str, Any]:
        if file not in self.read:
            raw = (self.folder / file).read_bytes()
            self.read[file] = (gzip.decompress(raw) if file.endswith(".gz") else raw).split(b"\n")
        found: Mapping[str, Any] = json.loads(self.read[file][row - 1])
        return found

    def named(self, file: str, row: int) -> Mapping[str, str]:
        """The same of a file with a header, which is its row 1."""
        if file not in self.tables:
            # Whatever its encoding is, commas and codes are as they are in ASCII.
            with (self.folder / file).open(encoding="latin-1", newline="") as lines:
                self.tables[file] = list(csv.DictReader(lines))
        return self.tables[file][row - 2]
