"""YAML documents read strictly: one mapping, no key twice, checked by a pydantic model, reasons named."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from connectors.errors import FatalError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of everything read from YAML: unknown keys are refused, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _written(text: str) -> str:
    if control := control_character(text):
        raise ValueError(f"a control character ({control}) has no place in a text")
    return text


def _filled(text: str) -> str:
    if text and all(unicodedata.category(one)[0] in "ZC" for one in text):
        raise ValueError("a text of blanks says nothing")
    return text


def control_character(text: str) -> str | None:
    """The first control character in ``text`` that is no tab and no line break, as U+0001; None without one. What turns the
    direction of writing is one as well: a reader would see another text than the one that was reviewed."""
    found = _CONTROL.search(text)
    return f"U+{ord(found[0]):04X}" if found else None


Filled = Annotated[str, StringConstraints(min_length=1), AfterValidator(_filled)]
"""A text that says something: neither empty nor blanks only."""


class Text(Strict):
    """One text in Chinese and English."""

    zh: Annotated[Filled, AfterValidator(_written)]
    en: Annotated[Filled, AfterValidator(_written)]


# Longer than any term there is; added to a day of this century it is still a day.
LONGEST = dt.timedelta(days=36525)


def _duration(value: object) -> object:
    """As ISO 8601 writes it, in weeks, days, hours, minutes and seconds: a bare number would be seconds, a month 30 days."""
    if isinstance(value, dt.timedelta) or (isinstance(value, str) and _DURATION.fullmatch(value)):
        return value
    raise ValueError("must be a time as ISO 8601 writes it, in days or hours: P30D, PT26H")


def _days(value: object) -> object:
    if isinstance(value, dt.timedelta) or (isinstance(value, str) and _DAYS.fullmatch(value)):
        return value
    raise ValueError("must be whole days as ISO 8601 writes them: P30D")


def _bounded(value: dt.timedelta) -> dt.timedelta:
    if value > LONGEST:
        raise ValueError(f"must be at most 100 years, P{LONGEST.days}D")
    return value


def _positive(value: dt.timedelta) -> dt.timedelta:
    if value <= dt.timedelta(0):
        raise ValueError("must be longer than zero")
    return value


Duration = Annotated[dt.timedelta, BeforeValidator(_duration), AfterValidator(_positive), AfterValidator(_bounded)]
"""Longer than zero, at most 100 years."""
Days = Annotated[dt.timedelta, BeforeValidator(_days), AfterValidator(_bounded)]
"""Whole days, none up to 100 years of them."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DURATION = re.compile(r"P(?:[0-9]+W|(?=.)(?:[0-9]+D)?(?:T(?=.)(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+S)?)?)")
_DAYS = re.compile(r"P[0-9]{1,9}[DW]")


# libyaml's reading is about eight times as fast; it is in the wheels of PyYAML, not in every build from source.
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_Safe):
    """YAML that refuses a key given twice, where PyYAML would silently keep the last, and a value that is none of its kind
    (2024-02-30) with its line, where PyYAML would fail without."""

    def refuse(self, said: str, node: yaml.Node) -> Any:
        """What becomes of a node that cannot be read, and why it cannot. Here it ends the reading; who reads on returns what
        stands in its place."""
        raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from None

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            why = f": {error}" if isinstance(error, ValueError) and kind == "timestamp" else ""
            self.recursive_objects.pop(node, None)
            return self.refuse(f"not a {_KINDS.get(kind, kind)}{why}", node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := sorted({str(key) for key in keys if keys.count(key) > 1}):
            again = next(key for place, (key, _) in enumerate(node.value) if keys[place] in keys[:place])
            self.refuse(f"key given twice: {', '.join(repeated)}", again)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


_KINDS = {"timestamp": "date or time", "int": "number", "float": "number", "bool": "yes or no"}


def told(error: ValidationError) -> list[ErrorDetails]:
    """What is wrong, each thing once: a list of which something is refused is not also too short for it."""
    found = error.errors(include_url=False, include_context=False)
    places = [item["loc"] for item in found]
    return [item for item in found if item["type"] != "too_short" or not _inside(item["loc"], places)]


def _inside(place: tuple[int | str, ...], places: list[tuple[int | str, ...]]) -> bool:
    return any(len(one) > len(place) and one[: len(place)] == place for one in places)


def reasons(error: ValidationError) -> str:
    """Every reason with its place, in one line."""
    return "; ".join(reason(item) for item in told(error))


def reason(item: ErrorDetails) -> str:
    """One reason with its place."""
    place = ".".join(str(step) for step in item["loc"])
    said = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def load(path: Path, model: type[Model], code: str, **more: Any) -> Model:
    """The document at ``path`` as ``model``, with the values of ``more`` added.

    FatalError ``code`` (sentence with ``file`` and ``reason``) when it cannot be read or does not fit.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - a SafeLoader
        if not isinstance(data, dict):
            raise FatalError(code, file=str(path), reason="the file must be a mapping of keys to values")
        return model.model_validate({**data, **more})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FatalError(code, file=str(path), reason=" ".join(str(error).split())) from error
    except ValidationError as error:
        raise FatalError(code, file=str(path), reason=reasons(error)) from error
