"""YAML documents with the lines on which things stand, so that what is wrong with a file is said with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from connectors.documents import Loader, control_character, reason, told

Model = TypeVar("Model", bound=BaseModel)
Place = Sequence[str | int]


@dataclass(frozen=True, order=True)
class Defect:
    """One thing wrong with a file; lines are counted from 1, 0: the file as a whole."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class Document:
    """One file as it was read: its data, and the nodes that know their lines."""

    path: Path
    data: dict[Any, Any]
    root: yaml.Node
    unread: tuple[tuple[yaml.Node, str], ...] = ()  # what could not be read, and why; nothing fits that holds any of it

    def line(self, place: Place) -> int:
        """The line on which ``place`` stands: a key's own, else that of the nearest thing around it."""
        return self._found(place)[1] + 1

    def defect(self, place: Place, said: str) -> Defect:
        return Defect(str(self.path), self.line(place), said)

    def unreadable(self) -> list[Defect]:
        """What could not be read, each with its line."""
        return [Defect(str(self.path), node.start_mark.line + 1, said) for node, said in self.unread]

    def fit(self, model: type[Model]) -> tuple[Model | None, list[tuple[Place, str]]]:
        """The document as ``model``, or None and why not, each reason with its place; :meth:`unreadable` is not said again."""
        try:
            fitted = model.model_validate(self.data)
            return (None if self.unread else fitted), []
        except ValidationError as error:
            return None, [(item["loc"], reason(item)) for item in told(error) if not self._said(item)]

    def _said(self, item: ErrorDetails) -> bool:
        """Whether the value could not even be read; that a key is unknown is another matter."""
        place = self._found(item["loc"])[0]
        return item["type"] != "extra_forbidden" and any(node is place for node, _ in self.unread)

    def _found(self, place: Place) -> tuple[yaml.Node, int]:
        """What stands at ``place``, or the nearest thing around it, and the line, counted from 0."""
        node, line = self.root, self.root.start_mark.line
        for step in place:
            found = _below(node, step)
            if found is None:
                break
            node, line = found
        return node, int(line)


class _Unread:
    """Stands where nothing could be read: no value of any field."""

    def __repr__(self) -> str:
        return "…"


class _Reader(Loader):
    """YAML without control characters, which can be written as escapes: what stands in these documents is shown to people.
    What cannot be read is noted, and the reading goes on: whoever corrects a file wants to hear of everything."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.unread: list[tuple[yaml.Node, str]] = []

    def refuse(self, said: str, node: yaml.Node) -> Any:
        if all(known is not node for known, _ in self.unread):
            self.unread.append((node, said))
        return _Unread()

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        if isinstance(node, yaml.ScalarNode) and (control := control_character(node.value)):
            self.refuse(f"a control character ({control}) has no place here", node)
        return super().construct_scalar(node)


def lines(defects: Sequence[Defect]) -> str:
    """What is wrong with one file, each reason with its line, in one line."""
    return "; ".join(f"line {each.line}: {each.reason}" if each.line else each.reason for each in defects)


def read(path: Path) -> Document | Defect:
    """The document at ``path``, or what keeps it from being read: it is no YAML, or no mapping."""
    try:
        loader = _Reader(path.read_text(encoding="utf-8"))
        try:
            root = loader.get_single_node()
            data = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError) as error:
        return Defect(str(path), 0, " ".join(str(error).split()))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ": ".join(part for part in (error.context, error.problem) if part)
        return Defect(str(path), mark.line + 1 if mark else 0, said)
    except yaml.YAMLError as error:
        return Defect(str(path), 0, " ".join(str(error).split()))
    if root is None or not isinstance(data, dict):
        return Defect(str(path), 1, "the file must be a mapping of keys to values")
    return Document(path, data, root, tuple(loader.unread))


def strangers(folder: Path) -> list[Defect]:
    """Files of ``folder`` that nobody reads, as their names do not end in ``.yml``; hidden ones are nobody's concern."""
    seen = (path for path in sorted(folder.glob("*")) if path.is_file() and not path.name.startswith("."))
    said = "this file is not read: the name of a document ends in .yml"
    return [Defect(str(path), 0, said) for path in seen if path.suffix != ".yml"]


def _below(node: yaml.Node, step: str | int) -> tuple[yaml.Node, int] | None:
    """What stands under ``step``, and the line of its key; of an anchor used again, the line of its use."""
    if isinstance(node, yaml.MappingNode):
        return next(((value, key.start_mark.line) for key, value in _pairs(node) if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line
    return None


def _pairs(node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    yield from ((key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode))
