"""connectors/marks.py: what is wrong with a document is said with the line on which it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from connectors import marks
from connectors.documents import Strict, Text
from connectors.marks import Defect, Document

DOCUMENT = """\
# a comment
name: &both {zh: 名, en: name}
parts:
  - {name: *both, size: 1}
  - name: *both
    size: 2
"""


class Part(Strict):
    name: Text
    size: int


class Whole(Strict):
    name: Text
    parts: tuple[Part, ...]


def written(folder: Path, text: str) -> Path:
    path = folder / "whole.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_place_has_the_line_of_its_key_or_of_what_is_around_it(tmp_path: Path) -> None:
    document = marks.read(written(tmp_path, DOCUMENT))
    assert isinstance(document, Document)
    assert document.fit(Whole)[1] == []
    found = {place: document.line(place) for place in [(), ("name",), ("parts", 0), ("parts", 1, "size")]}
    assert found == {(): 2, ("name",): 2, ("parts", 0): 4, ("parts", 1, "size"): 6}
    # What is missing is missing there; under an anchor used again, the place of its use.
    assert document.line(("parts", 1, "colour")) == 5
    assert document.line(("parts", 7)) == 3
    assert document.line(("parts", 1, "name", "fr")) == 5


def test_every_reason_has_its_place(tmp_path: Path) -> None:
    document = marks.read(
        written(tmp_path, DOCUMENT.replace("size: 1", "size: big").replace("    size: 2", "    s: 2"))
    )
    assert isinstance(document, Document)
    fitted, said = document.fit(Whole)
    assert fitted is None
    found = [str(document.defect(place, reason)).removeprefix(f"{document.path}:") for place, reason in said]
    assert [line.partition(":")[0] for line in found] == ["4", "5", "6"]
    assert "parts.1.s: unknown key" in found[2]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: [2\n", 3, "expected"),
        ("", 1, "mapping"),
        ("- a\n", 1, "mapping"),
        ("a: \x00\n", 0, "unacceptable character"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, line: int, reason: str) -> None:
    defect = marks.read(written(tmp_path, text))
    assert isinstance(defect, Defect)
    assert (defect.line, reason in defect.reason) == (line, True), defect


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    assert isinstance(marks.read(tmp_path / "none.yml"), Defect)
    path = tmp_path / "bytes.yml"
    path.write_bytes(b"a: \xff\n")
    assert isinstance(marks.read(path), Defect)


def test_defects_are_listed_with_their_lines() -> None:
    assert str(Defect("f.yml", 3, "wrong")) == "f.yml:3: wrong"
    assert str(Defect("f.yml", 0, "gone")) == "f.yml: gone"
    assert marks.lines([Defect("f.yml", 3, "wrong"), Defect("f.yml", 0, "gone")]) == "line 3: wrong; gone"


@pytest.mark.parametrize(
    ("written_as", "reason"),
    [
        ("2024-02-30", "not a date or time: "),
        ("2024-13-01", "not a date or time: "),
        ("!!timestamp soon", "not a date or time"),
        ("!!int soon", "not a number"),
        ("!!bool soon", "not a yes or no"),
        (r'"Identity \u0001kzzz\u0001"', "a control character (U+0001)"),
        (r'"\x1b[2J"', "a control character (U+001B)"),
        (r'"\x9b2J"', "a control character (U+009B)"),
        (r'"a\rb"', "a control character (U+000D)"),
    ],
)
def test_a_value_that_cannot_be_has_its_line(tmp_path: Path, written_as: str, reason: str) -> None:
    path = written(tmp_path, DOCUMENT.replace("size: 2", f"size: {written_as}"))
    found = marks.read(path)
    assert isinstance(found, Document)
    assert found.fit(Whole) == (None, []), "what could not be read is not said again"
    [defect] = found.unreadable()
    assert (defect.file, defect.line) == (str(path), 6)
    assert defect.reason.startswith(reason)


def test_the_reading_goes_on_behind_what_cannot_be_read(tmp_path: Path) -> None:
    text = DOCUMENT.replace("en: name", 'en: "a\\u202eb"').replace("size: 1", "size: 2024-02-30")
    text += "    colour: !!int red\n    size: 3\n"
    found = marks.read(written(tmp_path, text))
    assert isinstance(found, Document)
    fitted, said = found.fit(Whole)
    assert fitted is None
    told = sorted([*found.unreadable(), *(found.defect(place, reason) for place, reason in said)])
    assert [(each.line, each.reason.partition(":")[0]) for each in told] == [
        (2, "a control character (U+202E) has no place here"), (4, "not a date or time"),
        (7, "not a number"), (7, "parts.1.colour"), (8, "key given twice"),
    ]  # fmt: skip


def test_tabs_and_lines_are_no_control_characters(tmp_path: Path) -> None:
    read = marks.read(written(tmp_path, r'name: {zh: "一\t二\n三", en: x}'))
    assert isinstance(read, Document) and read.data["name"]["zh"] == "一\t二\n三"


def test_a_list_is_not_too_short_for_what_is_wrong_in_it(tmp_path: Path) -> None:
    class Two(Strict):
        parts: Annotated[tuple[Part, ...], Field(min_length=2)]

    [(place, _)] = fitted(
        tmp_path, "parts: [{name: {zh: 一, en: x}, size: 1}, {name: {zh: 一, en: x}, size: big}]", Two
    )
    assert place == ("parts", 1, "size")
    [(place, reason)] = fitted(tmp_path, "parts: []", Two)
    assert place == ("parts",) and "at least 2" in reason


def fitted(folder: Path, text: str, model: type[Strict]) -> list[tuple[marks.Place, str]]:
    document = marks.read(written(folder, text))
    assert isinstance(document, Document)
    return document.fit(model)[1]


def test_files_that_nobody_reads_are_told(tmp_path: Path) -> None:
    for name in ("a.yml", "b.yaml", "c.YML", "d.yml.bak", ".hidden", "a@1.yml"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert [Path(each.file).name for each in marks.strangers(tmp_path)] == ["b.yaml", "c.YML", "d.yml.bak"]
    assert marks.strangers(tmp_path / "none") == []
