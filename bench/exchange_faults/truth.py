"""What is true: the certificates that a schedule puts into a hub's register, and what follows from them for whoever reads its index.

Kept here, in Python, from what is put in; never read back from a hub. Only keys are: what a handle is called depends on them. The
ids are computed anew (RFC 2104, RFC 5869), not with the code under test.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from mappings import checksums

MATERIAL = "business-licence"
REGIONS = {"sh": "310000", "js": "320000", "zj": "330000"}
HUBS = tuple(REGIONS)
FIRST = 40  # certificates of a register before any schedule
STATUSES = ("in_force", "in_force", "in_force", "suspended", "revoked")
ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
OUTSIDE = "999999"  # division of none of the hubs
AWAY = range(FIRST - 2, FIRST)  # certificates that nobody else is to know of


def register(hub: str) -> str:
    """The source that a hub's certificates come from."""
    return f"{hub}-register"


def index(hub: str) -> str:
    """The source through which others read a hub's index."""
    return f"rig-{hub}-index"


@dataclass(frozen=True)
class Certificate:
    """One licence of ``hub``; ``version``: how often it has changed."""

    hub: str
    number: int
    version: int = 0
    status: str = "in_force"
    valid_to: str | None = "2099-12-31"
    region: str = ""
    withdrawn: bool = False

    @property
    def key(self) -> bytes:
        return hashlib.sha256(f"{self.hub} {self.number}".encode()).digest()[:16]

    @property
    def digest(self) -> uuid.UUID:
        said = f"{self.hub} {self.number} {self.version} {self.status} {self.valid_to} {self.region}"
        return uuid.UUID(bytes=hashlib.sha256(said.encode()).digest()[:16])

    @property
    def holder(self) -> str:
        return credit_code(self.hub, self.number)

    @property
    def name(self) -> str:
        return f"试验{self.hub}{self.number}号{'改' * (self.version % 4)}有限公司"

    @property
    def announced(self) -> bool:
        """Whether the agreements between the hubs let others know of it."""
        return not self.withdrawn and self.region[:2] == REGIONS[self.hub][:2]

    def document(self) -> dict[str, Any]:
        return {
            "certificate_number": f"{REGIONS[self.hub]}{self.number:09d}",
            "name": self.name,
            "region": self.region,
            "status": self.status,
            "valid_from": "2015-01-01",
            "valid_to": self.valid_to,
            "holders": [{"role": "holder", "scheme": "cn.uscc", "value": self.holder, "name": None}],
            "attributes": {"registered_on": "2015-01-01"},
        }


def credit_code(hub: str, number: int) -> str:
    """An invented unified social credit code, valid by construction."""
    digits, left = "", number
    for _ in range(5):
        left, digit = divmod(left, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    body = f"91{REGIONS[hub][:2]}0101MA7F{digits}"
    return body + chr(checksums.mod_31(np.frombuffer(body.encode(), dtype=np.uint8).reshape(1, -1))[0])


@dataclass
class Register:
    """All certificates that a hub ever had, by number, as they are now."""

    hub: str
    known: dict[int, Certificate] = field(default_factory=dict)

    def first(self) -> list[Certificate]:
        return self._put(
            replace(one, region=OUTSIDE) if one.number in AWAY else one for one in map(self._new, range(FIRST))
        )

    def change(self, rng: random.Random) -> list[Certificate]:
        """What happens next: some are new, some change, some are withdrawn, some come back."""
        held = [one for one in self.known.values() if not one.withdrawn and one.number not in AWAY]
        gone = [one for one in self.known.values() if one.withdrawn]
        changed = rng.sample(held, min(len(held), rng.randint(1, 6)))
        made = [self._new(len(self.known) + place) for place in range(rng.randint(0, 4))]
        for one in changed:
            what = rng.choice(("status", "status", "valid_to", "withdrawn", "withdrawn", "region"))
            match what:
                case "status":
                    made.append(replace(one, version=one.version + 1, status=rng.choice(STATUSES)))
                case "valid_to":
                    made.append(replace(one, version=one.version + 1, valid_to=f"20{rng.randint(30, 99)}-06-30"))
                case "region":  # out of what is agreed, or back in
                    away = one.region[:2] == REGIONS[self.hub][:2]
                    made.append(
                        replace(one, version=one.version + 1, region=OUTSIDE if away else self._new(one.number).region)
                    )
                case _:
                    made.append(replace(one, withdrawn=True))
        if gone and rng.random() < 0.5:
            one = rng.choice(gone)
            made.append(replace(one, withdrawn=False, version=one.version + 1))
        return self._put(made)

    def mend(self, number: int) -> list[Certificate]:
        """A correction is right: the certificate changes."""
        one = self.known[number]
        return self._put([replace(one, version=one.version + 1)])

    def _new(self, number: int) -> Certificate:
        return Certificate(self.hub, number, region=f"{REGIONS[self.hub][:2]}01{number % 12 + 1:02d}")

    def _put(self, made: Iterable[Certificate]) -> list[Certificate]:
        made = list(made)
        self.known |= {one.number: one for one in made}
        return made

    def entries(self, epoch: str, agreed: bytes, reader: bytes) -> Counter[str]:
        """The index entries that whoever reads in ``epoch`` has to keep. ``agreed``: the key under the agreement; ``reader``: the
        key that the reader hashes identifiers with."""
        key, found = epoch_key(agreed, epoch), Counter[str]()
        for one in self.known.values():
            if not one.announced:
                continue
            subject = keyed(key, f"cn.uscc:{one.holder}").hex()
            identifier = keyed(reader, f"index:{index(self.hub)}:{epoch}:{subject}").hex()
            found["|".join((
                handle(key, one), MATERIAL, one.region, one.status, "2015-01-01", one.valid_to or "",
                keyed(key, f"version:{one.digest.hex}").hex(), "holder", identifier, epoch,
            ))] += 1  # fmt: skip
        return found


def handle(key: bytes, one: Certificate) -> str:
    """What stands for a certificate in the epoch with this key."""
    return keyed(key, f"holding:{one.key.hex()}").hex()


def keyed(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()[:16]


def epoch_key(agreed: bytes, epoch: str) -> bytes:
    """HKDF-SHA256 with no salt, one block."""
    extracted = hmac.new(bytes(32), agreed, hashlib.sha256).digest()
    return hmac.new(extracted, f"yici-index epoch {epoch}".encode() + b"\x01", hashlib.sha256).digest()


def digest(lines: Counter[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines.elements())).encode()).hexdigest()


def write(engine: sa.Engine, made: Sequence[Certificate], hashing: bytes) -> None:
    """Put certificates into the store of their hub in one transaction, as a merge leaves them. ``hashing``: the key of the home."""
    if not made:
        return
    hub = made[0].hub
    rows = [
        {
            "key": one.key.hex(),
            "row_key": str(uuid.UUID(bytes=one.key)),
            "digest": str(one.digest),
            "status": one.status,
            "valid_from": "2015-01-01",
            "valid_to": one.valid_to,
            "region": one.region,
            "document": json.dumps(one.document(), ensure_ascii=False),
            "holder": keyed(hashing, f"cn.uscc:{one.holder}").hex(),
            "withdrawn": one.withdrawn,
        }
        for one in made
    ]
    bind = {
        "rows": json.dumps(rows), "count": len(rows), "batch": uuid.uuid4().hex, "source": register(hub), "material": MATERIAL,
        "region": REGIONS[hub],
    }  # fmt: skip
    with engine.begin() as connection:
        for statement in _FIRST:
            connection.execute(sa.text(statement), bind)
        # From here on no other merge becomes known before this one.
        head = connection.execute(sa.text(_HEAD), bind).one()
        for statement in _MERGED:
            connection.execute(sa.text(statement), {**bind, "position": head.position, "at": head.recorded_at})


_ROWS = """
SELECT decode(key, 'hex') AS key, row_key::uuid, digest::uuid, status, valid_from::date, valid_to::date, region, document,
  decode(holder, 'hex') AS holder, withdrawn, position
FROM ROWS FROM (jsonb_to_recordset(cast(:rows AS jsonb)) AS (key text, row_key text, digest text, status text, valid_from text,
  valid_to text, region text, document text, holder text, withdrawn boolean)) WITH ORDINALITY
  AS r (key, row_key, digest, status, valid_from, valid_to, region, document, holder, withdrawn, position)
"""
_FIRST = (
    """INSERT INTO source (name, entity, region, authority, extent, promise_seconds, last_success_at)
    VALUES (:source, :material, :region, 100, 'partial', 172800, now())
    ON CONFLICT (name) DO UPDATE SET last_success_at = excluded.last_success_at""",
    "INSERT INTO landed_file (source, digest, name, size) VALUES (:source, 'file', 'file', 1) ON CONFLICT DO NOTHING",
)
_HEAD = """
UPDATE feed_head SET position = position + :count,
  recorded_at = greatest(clock_timestamp(), recorded_at + interval '1 microsecond') RETURNING position, recorded_at
"""
_MERGED = (
    f"""INSERT INTO feed (position, holding, material, change, digest, batch, recorded_at)
    SELECT :position - :count + r.position, r.key, :material, CASE WHEN r.withdrawn THEN 'withdrawn'
      WHEN h.key IS NULL THEN 'added' ELSE 'changed' END, CASE WHEN NOT r.withdrawn THEN r.digest END, :batch, :at
    FROM ({_ROWS}) AS r LEFT JOIN holding AS h ON h.key = r.key""",
    """INSERT INTO batch (id, source, state, extent, contract, merges_seen, recorded_at, finished_at)
    VALUES (:batch, :source, 'merged', 'changes', '', 0, :at, :at)""",
    f"""INSERT INTO holding_past (holding, recorded_from, recorded_to, material, digest, source, row_key, batch, file, "row",
      identifiers, document)
    SELECT v.holding, v.recorded_from, :at, v.material, v.digest, v.source, v.row_key, v.batch, v.file, v."row",
      ARRAY[r.holder], v.document
    FROM holding_version AS v JOIN ({_ROWS}) AS r ON r.key = v.holding WHERE v.recorded_to IS NULL""",
    f"""DELETE FROM holding AS h USING ({_ROWS}) AS r WHERE h.key = r.key""",
    f"""DELETE FROM holding_holder AS h USING ({_ROWS}) AS r WHERE h.holding = r.key""",
    f"""INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
    SELECT r.key, 1, :source, r.row_key, f.id, 1, r.document
    FROM ({_ROWS}) AS r JOIN landed_file AS f ON f.source = :source WHERE NOT r.withdrawn
    ON CONFLICT (holding, id) DO UPDATE SET document = excluded.document""",
    f"""INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, "row", holding,
      mapped, authority, said_digest, said_at)
    SELECT :source, r.row_key, r.digest, r.digest, CASE WHEN r.withdrawn THEN 'withdrawn' ELSE 'accepted' END, true, :at, :at,
      :batch, f.id, 1, CASE WHEN NOT r.withdrawn THEN r.key END, CASE WHEN NOT r.withdrawn THEN 1 END, 100, r.digest, :at
    FROM ({_ROWS}) AS r JOIN landed_file AS f ON f.source = :source
    ON CONFLICT (source, row_key) DO UPDATE SET digest = excluded.digest, verdict = excluded.verdict, updated_at = :at,
      as_of = :at, batch = :batch, holding = excluded.holding, mapped = excluded.mapped, said_digest = excluded.digest, said_at = :at""",
    f"""INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting,
      status, valid_from, valid_to, region, batch)
    SELECT r.key, 1, :material, :source, r.row_key, r.digest, :at, 100, 1, false, r.status, r.valid_from, r.valid_to, r.region,
      :batch
    FROM ({_ROWS}) AS r WHERE NOT r.withdrawn""",
    f"""INSERT INTO holding_holder (identifier, holding, role)
    SELECT r.holder, r.key, 'holder' FROM ({_ROWS}) AS r WHERE NOT r.withdrawn""",
)
