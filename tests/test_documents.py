"""connectors/documents.py: YAML read strictly; whatever is wrong is an error that names the file."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.documents import Duration, Strict, Text, load
from connectors.errors import FatalError


class Whole(Strict):
    name: Text
    promise: Duration = dt.timedelta(days=1)
    delimiter: str = ","


def loaded(folder: Path, text: str) -> Whole:
    path = folder / "whole.yml"
    path.write_text(text, encoding="utf-8")
    return load(path, Whole, "source-invalid")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: 2024-02-30\n", "not a date or time"),
        ("name: !!int x\n", "not a number"),
        ("name: {zh: x, zh: y}\n", "key given twice: zh"),
        ('name: {zh: "x\\u0001", en: y}\n', "a control character (U+0001)"),
        ("name: {zh: x, en: y}\npromise: 30\n", "promise: must be a time as ISO 8601 writes it"),
    ],
)
def test_what_is_refused_is_said_with_the_file(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(FatalError) as caught:
        loaded(tmp_path, text)
    assert caught.value.code == "source-invalid" and caught.value.values["file"] == str(tmp_path / "whole.yml")
    assert reason in str(caught.value.values["reason"])


def test_a_delimiter_may_be_a_control_character(tmp_path: Path) -> None:
    assert loaded(tmp_path, 'name: {zh: x, en: y}\ndelimiter: "\\x01"\n').delimiter == "\x01"


@pytest.mark.parametrize(
    ("given", "hours"),
    [("PT26H", 26), ("P2D", 48), ("P1DT2H", 26), ("P1W", 168), ("PT90M", 1.5), ("PT3600S", 1), ("P36525D", 876600)]
    + [
        (bad, None) for bad in (30, "30", "P", "PT", "P1DT", "", "P0D", "-PT1H", "P1M", "P36526D", "P9999999D", "26:00")
    ],
)
def test_durations(given: Any, hours: float | None) -> None:
    whole = {"name": {"zh": "x", "en": "y"}, "promise": given}
    if hours is None:
        with pytest.raises(ValidationError, match="promise"):
            Whole.model_validate(whole)
    else:
        assert Whole.model_validate(whole).promise == dt.timedelta(hours=hours)
