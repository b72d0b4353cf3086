"""Which rows a question of Delta Sharing asks for, understood exactly or refused.

To the protocol ``predicateHints`` (SQL) and ``jsonPredicateHints`` are hints that a server may skip; here rows that do not
match never leave, so what cannot be understood is an error. Only agreed columns can be named: a filter over any other would
tell what is in it. Both are read into one tree of lists, which is JSON: ``["and" | "or", node, …]``, ``["not", node]``,
``["null", column]``, ``["=" | "<>" | "<" | "<=" | ">" | ">=", column, literal]``. Literals are text in the one form of
the column's type: ISO 8601 days, ``true``, decimal digits. Nulls match nothing but ``IS NULL``, as in SQL.

Source: PROTOCOL.md of delta-io/delta-sharing, "SQL Expressions for Filtering" and "JSON predicates for Filtering". Beyond
the former: AND, OR, NOT, parentheses, IN, BETWEEN, DATE '…'.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from connectors.errors import UsageError

if TYPE_CHECKING:
    from mappings.model import ValueType

Node = list[Any]
Columns = Mapping[str, "ValueType"]

DEEPEST = 32
MOST = 1000  # nodes of one hint
WHOLE, FRACTION = 16, 4  # digits of a decimal (mappings/arrow.py)
FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SAME = {"==": "=", "!=": "<>"}
_JSON_OPS = {"equal": "=", "lessThan": "<", "lessThanOrEqual": "<=", "greaterThan": ">", "greaterThanOrEqual": ">="}
_JSON_TYPES: dict[str, tuple[ValueType, ...]] = {
    "bool": ("boolean",),
    "int": ("integer", "decimal"),
    "long": ("integer", "decimal"),
    "decimal": ("decimal",),
    "string": ("string",),
    "date": ("date",),
}
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^'\\]|'')*')           # a backslash is an escape to some and none to others
    |(?P<number>[+-]?[0-9]+(?:\.[0-9]+)?(?![0-9A-Za-z_.]))
    |(?P<name>`[^`]+`(?:\.`[^`]+`)*)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<sign><>|<=(?!>)|>=|==|!=|=|<|>|\(|\)|,))""",
    re.VERBOSE,
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {"and", "or", "not", "is", "null", "in", "between", "true", "false", "date"}


def read(sql: Sequence[str], as_json: str | None, columns: Columns) -> Node | None:
    """All hints of one question together, None when there is none.

    ``columns``: those agreed, with their types. UsageError ``share-predicate-unreadable`` (``hint``: which, counted from 1, 0 for
    the JSON), ``share-predicate-column``, ``share-predicate-type``.
    """
    nodes = [_Sql(text, number, columns).read() for number, text in enumerate(sql, 1)]
    if as_json is not None:
        nodes.append(_Json(columns).read(as_json))
    return nodes[0] if len(nodes) == 1 else ["and", *nodes] if nodes else None


def named(node: Node) -> set[str]:
    """The columns that a node looks at."""
    if node[0] in ("and", "or", "not"):
        return set().union(*(named(child) for child in node[1:]))
    return {str(node[1])}


class _Reader:
    """What both forms have in common: columns, literals, bounds."""

    def __init__(self, hint: int, columns: Columns) -> None:
        self.hint, self.columns, self.nodes = hint, columns, 0

    def unreadable(self) -> NoReturn:
        raise UsageError("share-predicate-unreadable", hint=self.hint)

    def column(self, name: object) -> str:
        if not isinstance(name, str) or name not in self.columns:
            raise UsageError("share-predicate-column", hint=self.hint, known=", ".join(self.columns))
        return name

    def compared(self, sign: str, column: str, kind: str, text: str) -> Node:
        """``kind``: of the literal: string, number, date or boolean."""
        self.count(0)
        if _SURROGATE.search(text):  # half a character, as JSON can write it: no text, so no value of any column
            self.unreadable()
        wanted = self.columns[column]
        literal = _literal(wanted, kind, text)
        if literal is None or (wanted == "boolean" and sign not in ("=", "<>")):
            raise UsageError("share-predicate-type", hint=self.hint, column=column, type=wanted)
        return [sign, column, literal]

    def count(self, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MOST or depth > DEEPEST:
            self.unreadable()


def _literal(wanted: ValueType, kind: str, text: str) -> str | None:
    """The literal in the form of the column's type; None when it is no value of it."""
    if wanted == "string" and kind == "string":
        return text
    if wanted == "boolean" and kind == "boolean":
        return text
    if wanted == "date" and kind in ("string", "date") and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            return dt.date.fromisoformat(text).isoformat()
        except ValueError:
            return None
    if wanted == "integer" and kind == "number" and re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        return str(int(text)) if -(2**63) <= int(text) < 2**63 else None
    if wanted == "decimal" and kind == "number":
        sign, whole, fraction = re.fullmatch(r"([+-]?)([0-9]+)(?:\.([0-9]+))?", text).groups("")  # type: ignore[union-attr]
        whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
        if len(whole) <= WHOLE and len(fraction) <= FRACTION:
            return f"{'-' if sign == '-' else ''}{whole}{'.' if fraction else ''}{fraction}"
    return None


class _Sql(_Reader):
    """Recursive descent over the tokens ``(kind, text)`` of one expression."""

    def __init__(self, text: str, hint: int, columns: Columns) -> None:
        super().__init__(hint, columns)
        self.tokens: list[tuple[str, str]] = []
        self.place = 0
        at = 0
        while at < len(text) and text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None or len(self.tokens) > 20 * MOST:
                self.unreadable()
            kind, said = str(found.lastgroup), str(found[found.lastgroup or 0])
            if kind == "word" and said.lower() in _WORDS:
                kind, said = "key", said.lower()
            self.tokens.append((kind, said))
            at = found.end()

    def read(self) -> Node:
        node = self.any_of(0)
        if self.place < len(self.tokens):
            self.unreadable()
        return node

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")

    def take(self, *wanted: tuple[str, str]) -> bool:
        """Whether exactly these tokens come next; if so they are taken."""
        if tuple(self.tokens[self.place : self.place + len(wanted)]) != wanted:
            return False
        self.place += len(wanted)
        return True

    def need(self, kind: str, text: str) -> None:
        if not self.take((kind, text)):
            self.unreadable()

    def any_of(self, depth: int) -> Node:
        nodes = [self.all_of(depth)]
        while self.take(("key", "or")):
            nodes.append(self.all_of(depth))
        return nodes[0] if len(nodes) == 1 else ["or", *nodes]

    def all_of(self, depth: int) -> Node:
        nodes = [self.negated(depth)]
        while self.take(("key", "and")):
            nodes.append(self.negated(depth))
        return nodes[0] if len(nodes) == 1 else ["and", *nodes]

    def negated(self, depth: int) -> Node:
        self.count(depth)
        if self.take(("key", "not")):
            return ["not", self.negated(depth + 1)]
        if self.take(("sign", "(")):
            node = self.any_of(depth + 1)
            self.need("sign", ")")
            return node
        return self.simple()

    def simple(self) -> Node:
        if self.peek()[0] not in ("name", "word"):
            kind, text = self.value()
            sign = self.sign()
            return self.compared(FLIPPED[sign], self.named_column(), kind, text)
        column = self.named_column()
        if self.take(("key", "is"), ("key", "null")):
            return ["null", column]
        if self.take(("key", "is"), ("key", "not"), ("key", "null")):
            return ["not", ["null", column]]
        turned = self.take(("key", "not"))
        if self.take(("key", "in")):
            self.need("sign", "(")
            nodes = [self.compared("=", column, *self.value())]
            while self.take(("sign", ",")):
                nodes.append(self.compared("=", column, *self.value()))
            self.need("sign", ")")
            node: Node = ["or", *nodes]
        elif self.take(("key", "between")):
            low = self.compared(">=", column, *self.value())
            self.need("key", "and")
            node = ["and", low, self.compared("<=", column, *self.value())]
        elif turned:
            self.unreadable()
        else:
            return self.compared(self.sign(), column, *self.value())
        return ["not", node] if turned else node

    def named_column(self) -> str:
        kind, text = self.peek()
        self.place += 1
        if kind not in ("name", "word") or self.peek() == ("sign", "("):  # a function
            self.unreadable()
        return self.column(text.replace("`", ""))

    def sign(self) -> str:
        kind, text = self.peek()
        if kind != "sign" or (sign := _SAME.get(text, text)) not in FLIPPED:
            self.unreadable()
        self.place += 1
        return sign

    def value(self) -> tuple[str, str]:
        """The kind of a literal, and its text."""
        dated = self.take(("key", "date"))
        kind, text = self.peek()
        self.place += 1
        if kind == "string":
            return "date" if dated else "string", text[1:-1].replace("''", "'")
        if not dated and kind == "number":
            return "number", text
        if not dated and kind == "key" and text in ("true", "false"):
            return "boolean", text
        self.unreadable()


class _Json(_Reader):
    """The tree of JSON predicates. A member that is not known could mean anything, so it is refused."""

    def __init__(self, columns: Columns) -> None:
        super().__init__(0, columns)

    def read(self, text: str) -> Node:
        try:
            return self.node(json.loads(text), 0)
        except (ValueError, RecursionError):
            self.unreadable()

    def node(self, said: Any, depth: int) -> Node:
        self.count(depth)
        if not isinstance(said, dict) or set(said) != {"op", "children"} or not isinstance(said["children"], list):
            self.unreadable()
        op, children = said["op"], said["children"]
        if op in ("and", "or") and len(children) >= 2:
            return [op, *(self.node(child, depth + 1) for child in children)]
        if op == "not" and len(children) == 1:
            return ["not", self.node(children[0], depth + 1)]
        if op == "isNull" and len(children) == 1:
            return ["null", self.leaf_column(children[0])]
        if not isinstance(op, str) or op not in _JSON_OPS or len(children) != 2:
            self.unreadable()
        one, other = children
        if isinstance(one, dict) and one.get("op") == "column":
            return self.compared(_JSON_OPS[op], self.leaf_column(one), *self.leaf_literal(other))
        return self.compared(FLIPPED[_JSON_OPS[op]], self.leaf_column(other), *self.leaf_literal(one))

    def leaf_column(self, said: Any) -> str:
        if not isinstance(said, dict) or set(said) != {"op", "name", "valueType"} or said["op"] != "column":
            self.unreadable()
        column = self.column(said["name"])
        if self.columns[column] not in self.types(said["valueType"]):
            raise UsageError("share-predicate-type", hint=0, column=column, type=self.columns[column])
        return column

    def leaf_literal(self, said: Any) -> tuple[str, str]:
        if not isinstance(said, dict) or set(said) != {"op", "value", "valueType"} or said["op"] != "literal":
            self.unreadable()
        first, value = self.types(said["valueType"])[0], said["value"]
        if isinstance(value, bool | int) and first in ("boolean", "integer"):
            value = str(value).lower()  # they should be text, and are not with every client
        if not isinstance(value, str):
            self.unreadable()
        if first == "boolean":
            value = value.lower()
            if value not in ("true", "false"):
                self.unreadable()
        number = first in ("integer", "decimal")
        if number and not re.fullmatch(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?", value):
            self.unreadable()
        return "number" if number else first, value

    def types(self, name: Any) -> tuple[ValueType, ...]:
        if not isinstance(name, str) or name not in _JSON_TYPES:
            self.unreadable()
        return _JSON_TYPES[name]
