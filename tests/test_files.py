"""connectors/files.py: what is new in a drop folder is landed, what is still being written is left."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from connectors import files
from connectors.connections import Connection
from connectors.errors import FatalError, UsageError
from connectors.landing import LandedFile, Landing
from connectors.source import FilesOptions, Source, load

HEADER = "企业名称,统一社会信用代码,注册日期,企业类型,注册资金,所在省份,地区\n"
ROWS = HEADER + "甲公司,91310117MA1J3AJ43G,2019-01-02,N/A,1,上海,松江\n"


@pytest.fixture
def source() -> Source:
    packaged = load("sh-amr-enterprises")
    assert isinstance(packaged.options, FilesOptions)
    return packaged.model_copy(update={"options": packaged.options.model_copy(update={"settle_seconds": 0.3})})


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


def put(path: Path, text: str = ROWS, age: float = 60) -> None:
    path.write_text(text, encoding="utf-8")
    moment = time.time() - age
    os.utime(path, (moment, moment))


def there(place: Path | str) -> Connection:
    return Connection("sh-amr", str(place))


def test_new_files_then_nothing_then_the_changed_one(source: Source, landing: Landing, drop: Path) -> None:
    put(drop / "2019.csv")
    put(drop / "2018.CSV", ROWS + "\n")
    first = files.fetch(source, there(drop), None, landing)
    assert [file.name for file in first.files] == ["2018.CSV", "2019.csv"]
    assert first.cursor is not None
    assert first.cursor["2019.csv"] == [len(ROWS.encode()), (drop / "2019.csv").stat().st_mtime_ns]
    assert landing.open(first.files[1]).read() == ROWS.encode()

    again = files.fetch(source, there(drop), first.cursor, landing)
    assert (again.files, again.cursor) == ([], first.cursor)

    put(drop / "2019.csv", ROWS + "乙公司,1,2019-01-03,N/A,1,上海,松江\n", age=30)
    third = files.fetch(source, there(drop), first.cursor, landing)
    assert [file.name for file in third.files] == ["2019.csv"]
    assert third.cursor is not None
    assert set(third.cursor) == {"2018.CSV", "2019.csv"}


def test_what_is_taken(source: Source, landing: Landing, drop: Path) -> None:
    for name in ("a.csv.part", "b.csv.tmp", ".hidden.csv", "~lock.csv", "notes.txt"):
        put(drop / name)
    (drop / "folder.csv").mkdir()
    (drop / "packed.csv.gz").write_bytes(gzip.compress(ROWS.encode()))
    fetched = files.fetch(source, there(drop), None, landing)
    assert [file.name for file in fetched.files] == ["packed.csv.gz"]


def test_empty_folder_is_a_success(source: Source, landing: Landing, drop: Path) -> None:
    fetched = files.fetch(source, there(drop), None, landing)
    assert (fetched.files, fetched.cursor) == ([], {})


def test_fresh_but_finished_file_is_taken(source: Source, landing: Landing, drop: Path) -> None:
    put(drop / "now.csv", age=0)
    assert len(files.fetch(source, there(drop), None, landing).files) == 1


def test_growing_file_is_left_for_the_next_run(source: Source, landing: Landing, drop: Path) -> None:
    put(drop / "whole.csv")
    put(drop / "growing.csv", age=0)
    stop = threading.Event()

    def write() -> None:
        with (drop / "growing.csv").open("a") as stream:
            while not stop.wait(0.02):
                stream.write("x\n")
                stream.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        first = files.fetch(source, there(drop), None, landing)
    finally:
        stop.set()
        writer.join()
    assert [file.name for file in first.files] == ["whole.csv"]
    assert first.cursor is not None
    assert "growing.csv" not in first.cursor
    second = files.fetch(source, there(drop), first.cursor, landing)
    assert [file.name for file in second.files] == ["growing.csv"]


def test_file_written_to_while_it_was_read_is_left(source: Source, drop: Path, tmp_path: Path) -> None:
    put(drop / "a.csv")

    class Disturbed(Landing):
        def put(self, data: Any, name: str) -> LandedFile:
            landed = super().put(data, name)
            with (drop / name).open("a") as stream:
                stream.write("more\n")
            return landed

    fetched = files.fetch(source, there(drop), None, Disturbed(tmp_path / "landing"))
    assert (fetched.files, fetched.cursor) == ([], {})


def test_empty_file(source: Source, landing: Landing, drop: Path) -> None:
    put(drop / "empty.csv", "")
    with pytest.raises(FatalError) as caught:
        files.fetch(source, there(drop), None, landing)
    assert caught.value.code == "file-empty"
    assert "empty.csv" in caught.value.message("zh")


def test_missing_folder_and_unknown_protocol(source: Source, landing: Landing, tmp_path: Path) -> None:
    for url, code in ((tmp_path / "absent", "folder-missing"), ("nosuch://x/y", "folder-url")):
        with pytest.raises(FatalError) as caught:
            files.fetch(source, there(url), None, landing)
        assert caught.value.code == code


def test_other_file_system(source: Source, landing: Landing) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    with fsspec.open(f"{root}/2019.csv", "wb") as stream:
        stream.write(ROWS.encode())
    first = files.fetch(source, there(root), None, landing)
    assert [file.name for file in first.files] == ["2019.csv"]
    assert files.fetch(source, there(root), first.cursor, landing).files == []


def test_input(source: Source, landing: Landing, drop: Path) -> None:
    put(drop / "b.csv", age=0)
    put(drop / "a.csv")
    put(drop / "notes.txt")
    one = files.land_input(source, str(drop / "notes.txt"), landing)
    assert ([file.name for file in one.files], one.cursor) == (["notes.txt"], None)
    both = files.land_input(source, str(drop), landing)
    assert ([file.name for file in both.files], both.cursor) == (["a.csv", "b.csv"], None)
    with pytest.raises(UsageError) as caught:
        files.land_input(source, str(drop / "absent.csv"), landing)
    assert caught.value.exit_code == 2
    put(drop / "empty.csv", "")
    with pytest.raises(FatalError):
        files.land_input(source, str(drop / "empty.csv"), landing)


def test_progress(source: Source, landing: Landing, drop: Path) -> None:
    put(drop / "a.csv")
    put(drop / "b.csv")
    seen: list[tuple[int, int | None]] = []
    files.fetch(source, there(drop), None, landing, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_check(source: Source, drop: Path, tmp_path: Path) -> None:
    assert [step.ok for step in files.check(source, there(tmp_path / "absent"))] == [False]
    assert [(step.step, step.ok) for step in files.check(source, there(drop))] == [("folder", True), ("files", True)]
    put(drop / "a.csv", age=100)
    steps = files.check(source, there(drop))
    assert [step.step for step in steps] == ["folder", "files", "columns"]
    assert all(step.ok for step in steps)
    put(drop / "b.csv", ROWS.replace("注册资金", "资本"), age=10)
    last = files.check(source, there(drop))[-1]
    assert not last.ok
    assert "注册资金" in last.detail and "资本" in last.detail and "mapping.csv" in last.advice
    put(drop / "c.csv", "<html>", age=5)
    assert files.check(source, there(drop))[-1].step == "content"


@pytest.mark.parametrize("kind", ["jsonl", "xlsx", "parquet"])
def test_check_reads_the_format_that_is_agreed(source: Source, drop: Path, kind: str) -> None:
    options = {"format": kind, "pattern": f"*.{kind}", "columns": ("a", "b")}
    other = source.model_copy(update={"options": source.options.model_copy(update=options)})
    write = {"jsonl": _jsonl, "xlsx": _xlsx, "parquet": _parquet}[kind]
    write(drop / f"x.{kind}", ["a", "b"])
    assert [(step.step, step.ok) for step in files.check(other, there(drop))] == [
        ("folder", True), ("files", True), ("columns", True),
    ]  # fmt: skip
    write(drop / f"x.{kind}", ["a", "c"])
    last = files.check(other, there(drop))[-1]
    assert (last.step, last.ok) == ("columns", False) and "c" in last.detail
    (drop / f"x.{kind}").write_bytes(b"<html>")
    assert files.check(other, there(drop))[-1].step == "content"


def _jsonl(path: Path, names: list[str]) -> None:
    path.write_text(json.dumps(dict.fromkeys(names, "1")) + "\n")


def _xlsx(path: Path, names: list[str]) -> None:
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, names)
        sheet.write_row(1, 0, ["1"] * len(names))


def _parquet(path: Path, names: list[str]) -> None:
    pq.write_table(pa.table({name: ["1"] for name in names}), path)
