"""Endpoint and secret by *name*: a source says ``connection: sh-ga``, never an address or a password.

Looked up in this order: the variable ``YICI_CONN_SH_GA`` (a URI, or a JSON object), the file ``connections.json`` of the
home (mode 0600), then, inside an Airflow task only, the Airflow connection of that name.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from connectors.errors import FatalError

FILE = "connections.json"


@dataclass(frozen=True)
class Connection:
    """Where to connect and as whom. ``url`` never holds the secret; ``repr`` shows none of it."""

    name: str
    url: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)


def variable(name: str) -> str:
    """The environment variable that may hold the connection ``name``."""
    return "YICI_CONN_" + name.upper().replace("-", "_")


def home_file() -> Path:
    return Path(os.environ.get("YICI_HOME") or ".yici") / FILE


def resolve(name: str) -> Connection:
    """The connection called ``name``. FatalError ``connection-missing`` names the places that were searched."""
    place = variable(name)
    if value := os.environ.get(place):
        return _from_text(name, value, place)
    path = home_file()
    if (entry := _file_entries(path).get(name)) is not None:
        if isinstance(entry, str):
            return from_uri(name, entry)
        return _from_fields(name, entry, str(path))
    if "airflow.sdk" in sys.modules and (connection := _from_airflow(name)):
        return connection
    raise FatalError("connection-missing", connection=name, variable=place, file=str(path))


def _file_entries(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if mode & 0o077:
                raise FatalError("connections-file-open", file=str(path), mode=f"{mode:04o}")
            entries = json.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # the text of a JSON error quotes nothing of the file
        raise FatalError("connections-file-invalid", file=str(path), reason=str(error)) from None
    if not isinstance(entries, dict):
        raise FatalError("connections-file-invalid", file=str(path), reason="not a JSON object")
    return entries


def _from_text(name: str, text: str, place: str) -> Connection:
    if not text.lstrip().startswith("{"):
        return from_uri(name, text.strip())
    try:
        fields = json.loads(text)
    except ValueError:
        raise FatalError("connection-invalid", connection=name, place=place) from None
    return _from_fields(name, fields, place)


def _from_fields(name: str, fields: object, place: str) -> Connection:
    known = {"url", "username", "password", "extra"}
    if not isinstance(fields, dict) or not isinstance(fields.get("url"), str) or set(fields) - known:
        raise FatalError("connection-invalid", connection=name, place=place)
    extra = fields.get("extra") or {}
    if not isinstance(extra, dict):
        raise FatalError("connection-invalid", connection=name, place=place)
    return from_uri(name, fields["url"], fields.get("username"), fields.get("password"), extra)


def from_uri(
    name: str,
    uri: str,
    username: str | None = None,
    password: str | None = None,
    extra: dict[str, Any] | None = None,
) -> Connection:
    """Takes user and password out of the URI, so that the URL can be shown and logged."""
    if "://" in uri:
        parts = urlsplit(uri)
        user_info, at, host = parts.netloc.rpartition("@")
        if at:
            user, colon, secret = user_info.partition(":")
            username = username or (unquote(user) or None)
            password = password or (unquote(secret) if colon else None)
        query = parse_qsl(parts.query, keep_blank_values=True)
        for key, value in query:
            if key == "password":
                password = password or value
        if at or any(key == "password" for key, _ in query):
            kept = urlencode([item for item in query if item[0] != "password"], safe="/:")
            uri = urlunsplit((parts.scheme, host, parts.path, kept, parts.fragment))
            if not host and parts.scheme and "://" not in uri:  # urlunsplit drops an empty authority
                uri = uri.replace(":", "://", 1)
    return Connection(name, uri, username, password, dict(extra or {}))


def _from_airflow(name: str) -> Connection | None:
    from airflow.sdk import Connection as AirflowConnection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = AirflowConnection.get(name)
    except AirflowNotFoundException:
        return None
    host = found.host or ""
    if "://" not in host:
        scheme = {"postgres": "postgresql", "file": "file"}.get(found.conn_type, found.conn_type)
        host = f"{scheme}://{host}"
    if found.port:
        host = f"{host}:{found.port}"
    if found.schema:
        host = f"{host}/{found.schema}"
    return from_uri(name, host, found.login, found.password, found.extra_dejson)
