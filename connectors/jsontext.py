"""Lines of JSON told apart with numpy over their bytes: which hold one plain object, and where its bare values stand.

A JSON reader that infers types loses what was written: ``1.10`` becomes 1.1, an 18-digit number a float. So every bare
value is put in quotes before the text is parsed, and arrives as the characters it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DEEPEST = 16  # levels of objects; a record that is nested deeper is not read
MOST_BLANKS = 64  # around a record, and between a colon and its value
BARE = r"^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false)$"

NEWLINE, QUOTE, BACKSLASH, COLON = 10, 34, 92, 58
_BLANK, _START = (np.zeros(256, dtype=bool) for _ in range(2))
_BLANK[list(b" \t\r")] = True
_START[list(b"-0123456789tf")] = True  # of a number, true or false


def _marking(characters: bytes) -> bytes:
    return bytes(code in characters for code in range(256))


_STRUCTURE = _marking(b"{}[]:")
_END = _marking(b",}]: \t\r\n")  # of a bare value
_CONTROL = _marking(bytes(set(range(32)) - set(b"\t\r\n")))


@dataclass(frozen=True)
class Lines:
    """``data``: the bytes of ``text`` (uint8), the last a line end; line i is ``data[starts[i]:ends[i]]``, blanks around it left out.

    An empty line has ``starts == ends``; ``newlines[i]`` is where the line's end stands.
    """

    text: bytes
    data: Any
    starts: Any
    ends: Any
    newlines: Any

    @classmethod
    def of(cls, text: bytes) -> Lines:
        data = np.frombuffer(text, np.uint8)
        newlines = np.flatnonzero(data == NEWLINE)
        starts = np.concatenate(([0], newlines[:-1] + 1))
        ends = newlines.copy()
        for _ in range(MOST_BLANKS):
            before, after = (ends > starts) & _BLANK[data[starts]], (ends > starts) & _BLANK[data[ends - 1]]
            if not (before.any() or after.any()):
                break
            starts = starts + before
            ends = np.maximum(starts, ends - after)
        return cls(text, data, starts, ends, newlines)

    def places(self, marks: bytes) -> Any:
        """Where the marked characters stand."""
        return np.flatnonzero(np.frombuffer(self.text.translate(marks), np.bool_))

    def holding(self, places: Any) -> Any:
        """Mask of the lines (n,) that hold one of ``places``."""
        mask = np.zeros(len(self.newlines), dtype=bool)
        mask[np.searchsorted(self.newlines, places)] = True
        return mask


def quoted(lines: Lines) -> tuple[bytes, Any]:
    """The lines that hold exactly one object without lists, each bare value in quotes; and the mask (n,) of those lines.

    Their syntax within is left to the parser; that no object reaches beyond its line is made sure of here.
    """
    data = lines.data
    quotes = _quotes(data)
    count = np.diff(np.searchsorted(quotes, np.append(lines.starts, len(data))))
    plain = (lines.ends > lines.starts) & (count % 2 == 0)
    plain &= ~lines.holding(lines.places(_CONTROL))

    structure = lines.places(_STRUCTURE)
    structure = structure[~_inside(lines, quotes, plain)[structure]]
    kinds = data[structure]
    plain &= _one_object(lines, structure[kinds != COLON]) & ~lines.holding(structure[kinds == ord("[")])

    starts, settled = _values(data, structure[kinds == COLON])
    plain &= ~lines.holding(starts[~settled])
    starts = starts[settled & _START[data[starts]]]
    starts = starts[plain[np.searchsorted(lines.newlines, starts)]]
    ends = lines.places(_END)
    ends = ends[np.searchsorted(ends, starts)]
    wrong = ~_well_formed(data, starts, ends)
    plain &= ~lines.holding(starts[wrong])

    kept = np.repeat(plain, np.diff(lines.newlines, prepend=-1))
    places = np.stack([starts, ends], axis=1)[~wrong].ravel()
    return np.insert(data, places, QUOTE)[np.insert(kept, places, kept[places])].tobytes(), plain


def _quotes(data: Any) -> Any:
    """Quotes that open or close a string: those not escaped by an odd number of backslashes."""
    quotes = np.flatnonzero(data == QUOTE)
    slashes = np.flatnonzero(data == BACKSLASH)
    if not len(slashes):
        return quotes
    first = np.diff(slashes, prepend=-2) != 1
    run = np.arange(len(slashes)) - np.maximum.accumulate(np.where(first, np.arange(len(slashes)), 0)) + 1
    before = np.searchsorted(slashes, quotes) - 1
    escaped = (before >= 0) & (slashes[before] == quotes - 1) & (run[before] % 2 == 1)
    return quotes[~escaped]


def _inside(lines: Lines, quotes: Any, plain: Any) -> Any:
    """Mask of the bytes inside strings; lines that are not ``plain`` have none."""
    quotes = quotes[plain[np.searchsorted(lines.newlines, quotes)]]
    steps = np.zeros(len(lines.data) + 1, dtype=np.int8)
    steps[quotes[::2]] = 1
    steps[quotes[1::2]] = -1
    return np.cumsum(steps, dtype=np.int8)[:-1].astype(bool)


def _one_object(lines: Lines, structure: Any) -> Any:
    """Mask of the lines that begin with an opening brace whose closing brace is the line's last character."""
    data = lines.data
    depth = np.cumsum(np.where((data[structure] == ord("{")) | (data[structure] == ord("[")), 1, -1))
    first = np.searchsorted(structure, lines.starts)
    last = np.searchsorted(structure, lines.ends) - 1
    filled = last >= first
    before = np.concatenate(([0], depth))[first]
    line = np.searchsorted(lines.newlines, structure)
    depth = depth - before[line]
    closed = np.bincount(line[depth <= 0], minlength=len(filled)) == 1
    deep = lines.holding(structure[depth > DEEPEST])
    at = np.minimum(first, max(len(structure) - 1, 0))
    if not len(structure):
        return filled
    whole = (structure[at] == lines.starts) & (structure[last] == lines.ends - 1) & (depth[last] == 0)
    return filled & closed & whole & (data[lines.starts] == ord("{")) & ~deep


def _values(data: Any, colons: Any) -> tuple[Any, Any]:
    """Where the value after each colon starts, and whether it was found within reach."""
    starts = colons + 1
    for _ in range(MOST_BLANKS):
        blank = _BLANK[data[starts]]
        if not blank.any():
            break
        starts = starts + blank
    return starts, ~_BLANK[data[starts]]


def _well_formed(data: Any, starts: Any, ends: Any) -> Any:
    """Which of the bare values are numbers, true or false as JSON writes them."""
    offsets = np.concatenate(([0], np.cumsum(ends - starts)))
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(np.ascontiguousarray(data[places]))]
    tokens = pa.Array.from_buffers(pa.large_binary(), len(starts), buffers)
    return pc.match_substring_regex(tokens, BARE).to_numpy(zero_copy_only=False)
