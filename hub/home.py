"""The state folder ``YICI_HOME`` and the settings and keys in it.

``postgres/`` embedded database · ``landing/`` raw bytes and manifests · ``work/`` chunk files of open batches ·
``keys/`` secrets (mode 0600) · ``connections.json`` endpoints of sources (mode 0600) · ``hub.json`` what the hub is called ·
``logs/`` of background services.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from connectors.errors import FatalError

KEY_BYTES = 32
IDENTITY = "hub.json"
NAMED = ("hub", "region")  # what the environment may say instead


@dataclass(frozen=True)
class Home:
    """One state folder. ``path`` is absolute; nothing is created by looking at it."""

    path: Path

    @property
    def database_url(self) -> str | None:
        """An external PostgreSQL, when the operator named one."""
        return os.environ.get("YICI_DATABASE_URL") or None

    @property
    def landing_url(self) -> str:
        return os.environ.get("YICI_LANDING_URL") or (self.path / "landing").as_uri()

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    def identity(self, name: str) -> str | None:
        """``hub`` or ``region``: ``YICI_HUB`` or ``YICI_REGION``, else ``hub.json``, which alone holds the others: ``title``,
        ``api_port``, ``exchange_port``, ``exchange_host``, ``exchange_addresses``.

        FatalError ``identity-invalid`` when the file is no JSON object.
        """
        if name in NAMED and (given := os.environ.get(f"YICI_{name.upper()}")):
            return given
        known = self._said()
        return str(known[name]) if known.get(name) else None

    def _said(self) -> dict[str, Any]:
        try:
            known = json.loads((self.path / IDENTITY).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            known = None
        if not isinstance(known, dict):
            raise FatalError("identity-invalid", file=self.path / IDENTITY)
        return known

    def remember(self, **identity: str) -> None:
        """Write these into ``hub.json``, so that every later command in this home knows who it is."""
        self.create()
        replace_json(self.path / IDENTITY, {**self._said(), **identity})

    def create(self) -> None:
        """Make the folder. It may be entered by others (the embedded database runs as its own user when the caller is
        root), but each secret inside keeps mode 0600 and cannot be listed."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        if not (self.path / ".gitignore").exists():
            (self.path / ".gitignore").write_text("*\n", encoding="ascii")
        for folder in (self.keys, self.work, self.path / "logs"):
            folder.mkdir(exist_ok=True, mode=0o700)

    def secret(self, name: str, *, make: bool = True) -> bytes:
        """The secret ``keys/<name>``, ``KEY_BYTES`` random bytes made on first use.

        Two processes that make it at once end with the same one: the file appears under its name complete or not at
        all (``os.link`` refuses an existing name).
        """
        path = self.keys / name
        if not path.exists():
            if not make:
                raise FatalError("key-missing", name=name, folder=self.keys)
            self.create()
            write_secret(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)))
        return base64.b64decode(path.read_bytes())

    def pseudonym_key(self) -> bytes:
        """Key of the identifier index. With an external database it must exist: a new one would find nothing there."""
        return self.secret("pseudonym.key", make=self.database_url is None)


def write_secret(path: Path, content: bytes) -> None:
    """Write ``content`` with mode 0600 unless ``path`` exists already; never visible half-written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def replace_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as JSON with mode 0600, in place of what is there, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False, default=str)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def current() -> Home:
    """The home that ``YICI_HOME`` names, ``.yici`` in the working directory by default."""
    return Home(Path(os.environ.get("YICI_HOME") or ".yici").expanduser().absolute())


@dataclass(frozen=True)
class KeyedHash:
    """HMAC-SHA256 (RFC 2104) cut to 16 bytes, under the home's pseudonym key.

    ``inner`` and ``outer`` are the padded keys, so that PostgreSQL computes the same value set-based with its built-in
    ``sha256`` (function ``keyed_hash`` of the migrations) as :meth:`of` does for one value here.
    """

    key: bytes

    @functools.cached_property
    def inner(self) -> bytes:
        return bytes(byte ^ 0x36 for byte in self.key.ljust(64, b"\0"))

    @functools.cached_property
    def outer(self) -> bytes:
        return bytes(byte ^ 0x5C for byte in self.key.ljust(64, b"\0"))

    @functools.cached_property
    def _begun(self) -> tuple[Any, Any]:
        """Both hashes with the key already taken in, which is most of the work (RFC 2104, section 4)."""
        return sha256(self.inner), sha256(self.outer)

    def of(self, value: str) -> bytes:
        inner, outer = self._begun[0].copy(), self._begun[1].copy()
        inner.update(value.encode())
        outer.update(inner.digest())
        digest: bytes = outer.digest()
        return digest[:16]


def keyed_hash(home: Home | None = None) -> KeyedHash:
    return KeyedHash((home or current()).pseudonym_key())


def identifier_text(scheme: str, value: str) -> str:
    """The text that is hashed for an identifier; SQL builds the same with ``||``."""
    return f"{scheme}:{value}"
