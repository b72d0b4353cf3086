"""The signatures of a PDF, checked by pyHanko in a process of its own.

The file comes from anybody: whatever it does to its reader, it does to a process that knows no secret and ends by itself.
Certificates under ``trust/`` of the home (PEM or DER) are the roots that are trusted; nothing is fetched, so that whether a
certificate was revoked is only known where the file brings the proof along. What is not checked: docs/evidence.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

Verdict = Literal["unsigned", "valid", "valid-untrusted", "invalid", "unchecked"]

TRUST = "trust"  # folder of the home
SECONDS = 20  # of processor time, and nearly so of time
MEMORY = 2 << 30  # bytes of address space
MOST = 50  # signatures looked at
_WORST: tuple[Verdict, ...] = ("invalid", "unchecked", "valid-untrusted", "valid")
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


class Checked(NamedTuple):
    """The worst verdict of all signatures, and one entry for each (one for all beyond :data:`MOST`): ``verdict``, ``reason`` of one unchecked or invalid,
    ``whole`` (it covers the file to its end), ``signed_at`` as the signer says, ``certificate`` (SHA-256)."""

    verdict: Verdict
    signatures: list[dict[str, Any]]


def check(file: IO[bytes], trust: Path) -> Checked:
    """What the signatures of the PDF behind ``file`` (a file on disk) are worth. ``unchecked`` when nobody can tell."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    file.seek(0)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hub.pdf_signatures", str(trust)], stdin=file.fileno(), capture_output=True,
            timeout=SECONDS + 10, env=environment, cwd=Path(__file__).parent.parent, check=True,
        )  # fmt: skip
        said = json.loads(done.stdout)
        return Checked(said["verdict"], said["signatures"])
    except (subprocess.SubprocessError, OSError, ValueError, KeyError):
        return Checked("unchecked", [])
    finally:
        file.seek(0)


def read(file: IO[bytes], trust: Path) -> Checked:
    """The same in this process."""
    from pyhanko.pdf_utils.misc import PdfError
    from pyhanko.pdf_utils.reader import PdfFileReader
    from pyhanko_certvalidator import ValidationContext

    context = ValidationContext(trust_roots=_roots(trust), allow_fetching=False)
    try:
        reader = PdfFileReader(file, strict=False)
        signatures = reader.embedded_signatures
        found = [_one(one, context) for one in signatures[:MOST]]
        if len(signatures) > MOST:  # any of the rest may be the worst
            found.append({"verdict": "unchecked", "reason": "too-many"})
    except (PdfError, ValueError, TypeError, KeyError, IndexError, RecursionError, NotImplementedError):
        return Checked("unchecked", [])
    if not found:
        return Checked("unsigned", [])
    return Checked(next(verdict for verdict in _WORST if any(one["verdict"] == verdict for one in found)), found)


def _one(signed: Any, context: Any) -> dict[str, Any]:
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko.sign.validation.status import SignatureCoverageLevel

    try:
        status = validate_pdf_signature(signed, context)
    except Exception as error:  # an algorithm that is not known here, a structure that nobody foresaw
        return {"verdict": "unchecked", "reason": type(error).__name__}
    sound = status.valid and status.intact and status.docmdp_ok
    verdict: Verdict = "invalid" if not sound else "valid" if status.bottom_line else "valid-untrusted"
    told: dict[str, Any] = {
        "verdict": verdict,
        "whole": status.coverage == SignatureCoverageLevel.ENTIRE_FILE,
        "signed_at": status.signer_reported_dt.isoformat() if status.signer_reported_dt else None,
        "certificate": status.signing_cert.sha256.hex(),
    }
    if verdict == "invalid":
        told["reason"] = "altered" if not status.intact else "signature" if not status.valid else "changed-since"
    elif verdict == "valid-untrusted" and status.revoked:
        told |= {"verdict": "invalid", "reason": "revoked"}
    return told


def _roots(trust: Path) -> list[Any]:
    from asn1crypto import pem, x509

    found = []
    for path in sorted(trust.glob("*")) if trust.is_dir() else ():
        content = path.read_bytes()
        parts = [der for _, _, der in pem.unarmor(content, multiple=True)] if pem.detect(content) else [content]
        found += [x509.Certificate.load(der) for der in parts]
    return found


def _bounded() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    _bounded()
    print(json.dumps(read(sys.stdin.buffer, Path(sys.argv[1]))._asdict()))
