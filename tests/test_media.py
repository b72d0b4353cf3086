"""Files told apart by their bytes."""

from __future__ import annotations

import io

import pytest

from hub import media
from tests import papers

ZIP_BOMB = papers.ofd()[:-12] + (65_000).to_bytes(2, "little") + papers.ofd()[-10:]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (papers.pdf(), media.PDF),
        (papers.PNG, media.PNG),
        (papers.JPEG, media.JPEG),
        (papers.ofd(), media.OFD),
        (papers.ofd("word/document.xml"), None),
        (papers.ofd()[:-30], None),
        (ZIP_BOMB, None),
        (b"PK\x03\x04", None),
        (b"<html>%PDF-", None),
        (papers.PNG[:66], None),
        (papers.JPEG[:106], None),
        (papers.pdf()[:66], None),
        (b"", None),
    ],
)
def test_what_it_is(content: bytes, kind: str | None) -> None:
    file = io.BytesIO(content)
    assert media.sniffed(file) == kind
    assert file.tell() == 0
