"""A source: one folder under ``connectors/sources/``, read and validated before anything else is done with it.

Light on purpose (standard library, PyYAML, pydantic): the Airflow DAG folder imports it each time it is parsed.
"""

from __future__ import annotations

import codecs
import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    model_validator,
)

from connectors import documents
from connectors.documents import Duration, Strict, Text
from connectors.errors import FatalError, UsageError

PACKAGED = Path(__file__).parent / "sources"
DESCRIPTION = "source.yml"


def _byte(value: str) -> str:
    if not value.isascii():
        raise ValueError("must be one ASCII character")
    return value


def _encoding(value: str) -> str:
    """One where a line break, a comma and a quote are those bytes and nothing else is."""
    try:
        name = codecs.lookup(value).name
    except LookupError:
        raise ValueError(f"{value} is not an encoding") from None
    if '\n,"'.encode(name) != b'\n,"':
        raise ValueError(f"{value} is not supported: only encodings that contain ASCII are")
    return name


def _cron(value: str) -> str:
    if len(value.split()) != 5:
        raise ValueError("must be a cron expression of five fields")
    return value


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
PEER = "peer:"  # before the name of a partner hub
Place = Annotated[str, StringConstraints(pattern=rf"^({PEER})?[a-z0-9]+(-[a-z0-9]+)*$", max_length=len(PEER) + 80)]
Cron = Annotated[str, AfterValidator(_cron)]
Columns = tuple[Annotated[str, StringConstraints(min_length=1)], ...]
UNKNOWN_COLUMNS = ("TODO",)
EARLIEST = dt.date(1900, 1, 1)  # no source, and no delivery of one, is as of a day before


class AsOf(Strict):
    """Where a batch's as-of comes from: a raw column, or a constant when the landing carries none."""

    column: str | None = None
    date: dt.date | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.column is None) == (self.date is None):
            raise ValueError("name exactly one of `column` and `date`")
        latest = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)  # it is tomorrow already somewhere
        if self.date is not None and not EARLIEST <= self.date <= latest:
            raise ValueError(
                f"`date` lies between {EARLIEST} and today: all that comes later would count as older than it"
            )
        return self


class Retracts(Strict):
    """Which rows of a source that delivers changes say that a row is taken back: those with one of ``values`` in a raw column."""

    column: Annotated[str, StringConstraints(min_length=1)]
    values: Annotated[tuple[str, ...], Field(min_length=1)]


class Volume(Strict):
    """Bounds on the rows of one batch; ``times_usual`` compares with the source's earlier batches."""

    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(gt=0)]
    times_usual: Annotated[float, Field(gt=1)] = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError("`min` is above `max`")
        return self


class Options(Strict):
    """What every connector knows: the raw columns the agreement with the department names.

    Where records name their own keys (JSON) they must be named: else the columns of a record, and so its digest, would
    depend on the records it comes with. A folder just begun may say ``[TODO]``; nothing can be loaded with that.
    """

    columns: Columns = ()

    @property
    def agreed(self) -> Columns:
        """``columns``, none while they are still to be found out."""
        return () if self.columns == UNKNOWN_COLUMNS else self.columns


class RestOptions(Options):
    """Paged JSON over HTTPS with OAuth2 client credentials; the names a server uses for its parameters and keys.

    ``paging: pages`` counts pages and knows a total; ``cursor`` follows the token under ``next`` until there is none, and
    keeps the one under ``resume``, if the server gives it, for the next reading. Records may be nested: a column
    ``holder.id.number`` is found inside, and what else stands there has such a dotted path too.
    """

    connector: Literal["rest"] = "rest"
    paging: Literal["pages", "cursor"] = "pages"
    cursor_parameter: str = "cursor"
    next: str = "next"
    resume: str = "resume"
    path: Annotated[str, StringConstraints(pattern=r"^/")]
    token_path: Annotated[str, StringConstraints(pattern=r"^/")] = "/oauth/token"  # noqa: S105 - an address
    client_authentication: Literal["basic", "form"] = "basic"
    scope: str | None = None
    records: str = "records"
    total: str = "total"
    page_parameter: str = "page"
    size_parameter: str = "page_size"
    since_parameter: str = "updated_since"
    until_parameter: str = "updated_until"
    page_size: Annotated[int, Field(ge=1, le=1000)] = 500
    watermark: str
    overlap: Duration = dt.timedelta(minutes=5)
    connect_seconds: Annotated[float, Field(gt=0)] = 5
    read_seconds: Annotated[float, Field(gt=0)] = 30
    request_seconds: Annotated[float, Field(gt=0)] = 120
    requests_per_second: Annotated[float, Field(gt=0)] = 20
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    backoff_seconds: Annotated[float, Field(ge=0)] = 0.5
    retry_after_seconds: Annotated[float, Field(gt=0)] = 60
    page_bytes: Annotated[int, Field(gt=0)] = 32 * 1024 * 1024


class DatabaseOptions(Options):
    """One table or view of a PostgreSQL database, read by watermark."""

    connector: Literal["database"] = "database"
    table: Annotated[str, StringConstraints(min_length=1)]
    db_schema: Annotated[str | None, Field(alias="schema")] = None
    watermark: str | None = None
    overlap: Duration = dt.timedelta(minutes=5)
    connect_seconds: Annotated[int, Field(gt=0)] = 10
    statement_seconds: Annotated[float, Field(gt=0)] = 600


class FileOptions(Options):
    """Files, wherever they lie. ``header_rows``: lines of an XLSX header; merged cells above give ``group/name``."""

    format: Literal["csv", "jsonl", "xlsx", "parquet"] = "csv"
    pattern: str = "*.csv"
    encodings: Annotated[tuple[Annotated[str, AfterValidator(_encoding)], ...], Field(min_length=1)] = (
        "utf-8",
        "gb18030",
    )
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1), AfterValidator(_byte)] = ","
    multiline: bool = False
    sheet: str | None = None
    header_rows: Annotated[int, Field(ge=1, le=5)] = 1
    settle_seconds: Annotated[float, Field(ge=0)] = 5


class FilesOptions(FileOptions):
    """A drop folder: a local path or any fsspec URL."""

    connector: Literal["files"] = "files"


class RemoteOptions(FileOptions):
    """Files fetched over a network."""

    connect_seconds: Annotated[float, Field(gt=0)] = 10
    read_seconds: Annotated[float, Field(gt=0)] = 30
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    backoff_seconds: Annotated[float, Field(ge=0)] = 0.5
    requests_per_second: Annotated[float, Field(gt=0)] = 20


class SftpOptions(RemoteOptions):
    """A folder of an SFTP server; its host key is known by the connection, never learnt."""

    connector: Literal["sftp"] = "sftp"


class S3Options(RemoteOptions):
    """Objects under a prefix of a bucket in S3 or a store that speaks its protocol."""

    connector: Literal["s3"] = "s3"


class HubOptions(Options):
    """The index feed of a partner hub (docs/protocol/25-index.md). ``streams``: parts of one read that are asked for at once."""

    connector: Literal["hub"] = "hub"
    page_size: Annotated[int, Field(ge=1, le=20_000)] = 10_000
    streams: Annotated[int, Field(ge=1, le=8)] = 2
    request_seconds: Annotated[float, Field(gt=0)] = 120


AnyOptions = RestOptions | DatabaseOptions | FilesOptions | SftpOptions | S3Options | HubOptions


class Source(Strict):
    """One source as its folder describes it. ``connection``: a name, or ``peer:<name>`` for the index of a partner hub;
    ``promise``: how late the last successful run may be."""

    name: Name
    folder: Path
    title: Text
    owner: Text
    region: Annotated[str, StringConstraints(pattern=r"^\d{6}$")]
    legal_basis: Text
    entity: Name
    authority: Annotated[int, Field(ge=0, le=100)]
    connector: Literal["rest", "database", "files", "sftp", "s3", "hub"]
    connection: Place
    schedule: Cron | None = None
    promise: Duration
    extent: Literal["snapshot", "partial", "changes"]
    row_key: Annotated[Columns, Field(min_length=1)]
    as_of: AsOf
    duplicates: Literal["quarantine", "halt", "latest"] = "quarantine"
    retracts: Retracts | None = None
    volume: Volume
    options: Annotated[AnyOptions, Field(discriminator="connector")]

    @model_validator(mode="before")
    @classmethod
    def _tag(cls, data: Any) -> Any:
        """The options are those of the connector named one level up."""
        if not isinstance(data, dict):
            return data
        options = data.get("options")
        options = {} if options is None else options
        if isinstance(options, dict) and "connector" in data:
            if "connector" in options:
                raise ValueError("`connector` belongs beside `options`, not inside")
            return {**data, "options": {**options, "connector": data["connector"]}}
        return data

    @model_validator(mode="after")
    def _columns_known(self) -> Self:
        if self.name != self.folder.name:
            raise ValueError(f"`name` is {self.name}, the folder is {self.folder.name}: they must be equal")
        known = self.options.agreed
        keyed = self.connector in ("rest", "hub") or getattr(self.options, "format", None) == "jsonl"
        if keyed and not self.options.columns:
            raise ValueError("options.columns: name every raw column of the agreement; JSON records need it")
        used = [*self.row_key, self.as_of.column, getattr(self.options, "watermark", None)]
        if self.retracts is not None:
            if self.extent != "changes":
                raise ValueError("retracts: only for `extent: changes`; a snapshot takes a row back by not listing it")
            if self.retracts.column not in known:
                raise ValueError(f"not among options.columns: {self.retracts.column}")
        if missing := [column for column in used if known and column and column not in known]:
            raise ValueError(f"not among options.columns: {', '.join(missing)}")
        if self.connection.startswith(PEER) != (self.connector == "hub"):
            raise ValueError(f"connection: {PEER}<name> of a partner hub for the connector hub, a name for any other")
        if self.extent == "changes" and self.connector == "database" and not getattr(self.options, "watermark", None):
            raise ValueError("a database read by changes needs options.watermark")
        return self

    @property
    def peer(self) -> str:
        """The partner hub whose index this source reads."""
        return self.connection.removeprefix(PEER)

    @property
    def mapping_path(self) -> Path:
        return self.folder / "mapping.csv"

    @property
    def checks_path(self) -> Path:
        return self.folder / "checks.yml"

    @property
    def sample_path(self) -> Path:
        return self.folder / "sample"

    def contract_files(self) -> tuple[Path, ...]:
        """The files whose bytes define what this folder promises, those that exist, in a fixed order."""
        candidates = (self.folder / DESCRIPTION, self.mapping_path, self.checks_path)
        return tuple(path for path in candidates if path.is_file())


def roots() -> tuple[Path, ...]:
    """The packaged folder of sources, then those named in ``YICI_SOURCES`` (separated by ``os.pathsep``)."""
    extra = os.environ.get("YICI_SOURCES", "")
    return (PACKAGED, *(Path(part) for part in extra.split(os.pathsep) if part))


def written() -> Path:
    """Folders that the hub writes for itself (hub/deposit_sources.py): found by name, not listed, and nothing schedules them."""
    return Path(os.environ.get("YICI_HOME") or ".yici") / "sources"


def _folders(root: Path | None) -> Iterator[Path]:
    for place in roots() if root is None else (Path(root),):
        if not place.is_dir():
            raise FatalError("sources-root-missing", root=str(place))
        yield from sorted(path.parent for path in place.glob(f"*/{DESCRIPTION}"))


def read(folder: Path) -> Source:
    """The source described in ``folder``. FatalError ``source-invalid`` names the file and every reason."""
    return documents.load(folder / DESCRIPTION, Source, "source-invalid", folder=folder.resolve())


def load(name: str, root: Path | None = None) -> Source:
    """The source called ``name``. UsageError ``source-unknown`` lists the names there are."""
    folders = list(_folders(root))
    if root is None and (own := written() / name / DESCRIPTION).is_file():
        folders.append(own.parent)
    found = [folder for folder in folders if folder.name == name]
    if not found:
        raise UsageError("source-unknown", source=name, known=", ".join(sorted(folder.name for folder in folders)))
    if len(found) > 1:
        raise FatalError("source-twice", source=name, folders=", ".join(str(folder) for folder in found))
    return read(found[0])


def all_sources(root: Path | None = None) -> list[Source]:
    """Every source, by name. FatalError when one is invalid or a name occurs in two roots."""
    sources, broken = readable(root)
    if broken:
        raise broken[0]
    return sources


def readable(root: Path | None = None) -> tuple[list[Source], list[FatalError]]:
    """Every source that can be read, by name, and why others cannot: one broken folder hides no other."""
    seen: dict[str, Path] = {}
    sources: list[Source] = []
    broken: list[FatalError] = []
    for folder in _folders(root):
        try:
            if other := seen.get(folder.name):
                raise FatalError("source-twice", source=folder.name, folders=f"{other}, {folder}")
            seen[folder.name] = folder
            sources.append(read(folder))
        except FatalError as error:
            broken.append(error)
    return sorted(sources, key=lambda source: source.name), broken
