"""``docs/problems.md``: every problem a caller can be told of, written from the codes themselves."""

from __future__ import annotations

from connectors import messages
from hub import problems

PATH = "problems.md"
_HEAD = """<!-- Written by `yici docs`; edit hub/problems.py and hub/messages/. -->

# Problems the API answers with 接口错误码

Problem details (RFC 9457), `application/problem+json`. `code` is stable and never taken back; `detail` is a sentence in the
language asked for and says what to do next, without repeating what was sent. `fault` says whose it is: with `caller` the same
request will fail again, with `hub` or `partner` it may be repeated later, after `Retry-After` where there is one.

| code | status | fault | English | 中文 |
|---|---|---|---|---|
"""


def page() -> str:
    """The page as Markdown, by status, then code."""
    sentences = messages.sentences()
    rows = [
        f"| `{code}` | {kind.status} | {kind.fault} | {sentences[code]['title']['en']} | {sentences[code]['title']['zh']} |\n"
        for code, kind in sorted(problems.KINDS.items(), key=lambda entry: (entry[1].status, entry[0]))
    ]
    return _HEAD + "".join(rows)
