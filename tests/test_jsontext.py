"""connectors/jsontext.py: bare values in quotes, and only they; lines that are not one plain object left out."""

from __future__ import annotations

import pytest

from connectors.jsontext import Lines, quoted


def rewritten(*lines: bytes) -> tuple[list[bytes], list[bool]]:
    text, plain = quoted(Lines.of(b"\n".join(lines) + b"\n"))
    return text.split(b"\n")[:-1], plain.tolist()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a":1.10}', b'{"a":"1.10"}'),
        (b'{"a":-0, "b":true ,"c" : false}', b'{"a":"-0", "b":"true" ,"c" : "false"}'),
        (b'{"a":{"b":3.10E+17}}', b'{"a":{"b":"3.10E+17"}}'),
        (b'{"a":null,"b":"1"}', b'{"a":null,"b":"1"}'),
        (b'{"a":": 5, ","b":5}', b'{"a":": 5, ","b":"5"}'),
        (b'{"a":"\\\\","b":5}', b'{"a":"\\\\","b":"5"}'),
        (b'{"a":"\\\\\\": 5, {","b":5}', b'{"a":"\\\\\\": 5, {","b":"5"}'),
        (b' {"a":5}\t\r', b' {"a":"5"}\t\r'),
        (b"{}", b"{}"),
    ],
)
def test_bare_values_are_quoted(line: bytes, expected: bytes) -> None:
    assert rewritten(line) == ([expected], [True])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"   ",
        b"<html>",
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":1}{"b":2}',
        b'{"a":1} x',
        b'x {"a":1}',
        b'{"a":"x}',
        b'{"a":[1]}',
        b'[{"a":1}]',
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":tru}',
        b'{"a":-}',
        b'{"a":12"b"}',
        b'{"a":"x\x00"}',
        b'{"a":' + b" " * 200 + b"1}",
        b'{"a":' * 20 + b"1" + b"}" * 20,
    ],
)
def test_what_is_not_one_plain_object_is_left_out_alone(line: bytes) -> None:
    good = b'{"a":1}'
    assert rewritten(good, line, good) == ([b'{"a":"1"}'] * 2, [True, False, True])


def test_a_string_that_stays_open_spoils_only_its_line() -> None:
    assert rewritten(b'{"a":"x', b'{"b":{"c":2}}', b'"}', b'{"d":3}') == (
        [b'{"b":{"c":"2"}}', b'{"d":"3"}'],
        [False, True, False, True],
    )


def test_nothing_at_all() -> None:
    assert rewritten(b"") == ([], [False])
