"""Background processes of one home: started, found again, stopped without a trace.

Each service runs in a session of its own, writes to ``logs/<name>.log`` and is noted in ``services.json`` with its
process number and creation time, so that a reused number is never mistaken for it. Every process started here, and
whatever it starts, carries ``YICI_SERVICE_HOME`` in its environment: :func:`stop_all` finds also those that no list and no
process group knows any more. The embedded database goes last. A hub in ``hubs/`` of the home (the demo's neighbour) is a
home of its own and goes with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from connectors.errors import FatalError
from hub import embedded
from hub.home import Home

MARKER = "YICI_SERVICE_HOME"
HOST = "127.0.0.1"
GRACE_SECONDS = 6.0
READY_SECONDS = 120.0
PORTS_TRIED = 200
RACES = 10  # ports in a row that others may take between the look and the start
USED = (errno.EADDRINUSE, errno.EACCES)


@dataclass(frozen=True)
class Running:
    """A service as it was started. ``created`` is the process's creation time in seconds since 1970; ``host`` is what it listens on."""

    name: str
    pid: int
    created: float
    port: int | None
    log: str
    host: str = HOST

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def process(self) -> psutil.Process | None:
        """The live process, or None when it has ended (also when its number now belongs to another)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same else None

    def listens(self) -> bool:
        """Whether the service itself, or a process that it started, listens on its port: whoever else answers there is another."""
        if (process := self.process()) is None:
            return False
        with contextlib.suppress(psutil.Error):
            return _listens(process, self.port) or any(_listens(child, self.port) for child in _below(process))
        return False


@contextlib.contextmanager
def exclusive(home: Home) -> Iterator[None]:
    """Only one process starts or stops the services of a home. FatalError ``services-busy`` names the other one."""
    home.create()
    path = home.path / "services.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FatalError("services-busy", pid=path.read_text().split(" ")[0] or "?") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {psutil.Process().create_time()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def running(home: Home) -> dict[str, Running]:
    """The services that are up, by name."""
    try:
        noted = json.loads((home.path / "services.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    services = (Running(**entry) for entry in noted)
    return {service.name: service for service in services if service.process()}


def free_port(preferred: int, taken: Sequence[int] = (), host: str = HOST) -> int:
    """``preferred``, or the next port of ``host`` that nobody listens on. FatalError ``ports-used``."""
    for port in range(preferred, preferred + PORTS_TRIED):
        if port not in taken and _free(port, host):
            return port
    raise FatalError("ports-used", host=host, first=preferred, last=preferred + PORTS_TRIED - 1)


def environment(home: Home, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a service sees: the caller's environment without another Airflow's settings, this home, this interpreter."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    root = str(Path(__file__).parent.parent)
    return kept | {
        MARKER: str(home.path),
        "YICI_HOME": str(home.path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(part for part in (root, kept.get("PYTHONPATH")) if part),
        "PYTHONUNBUFFERED": "1",
        "SPT_NOENV": "1",  # setproctitle would overwrite the environment, and with it the marker
        **(extra or {}),
    }


def start(home: Home, name: str, command: Sequence[str], *, port: int | None = None, host: str = HOST,
          variables: Mapping[str, str] | None = None) -> Running:  # fmt: skip
    """Start ``command``, which listens on ``port`` of ``host``, in the background and note it; one that is up already is left alone."""
    known = running(home)
    if name in known:
        return known[name]
    log = home.path / "logs" / f"{name}.log"
    lock = embedded.lock_descriptor(home) if home.database_url is None else None
    try:
        # The mode of a log: it names files and row numbers, nobody else's business.
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env=environment(home, variables), pass_fds=() if lock is None else (lock,), cwd=home.path,
            )  # fmt: skip
        finally:
            os.close(output)
    finally:
        if lock is not None:
            os.close(lock)
    service = Running(name, process.pid, psutil.Process(process.pid).create_time(), port, str(log), host)
    _note(home, [*known.values(), service])
    _children[process.pid] = process
    return service


def wait(service: Running, ready: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
    """Wait until ``ready()`` says so and, where it has a port, it is the service itself that listens there.

    FatalError ``service-ended`` or ``service-slow`` names the log; ``port-lost``: it ended, and another listens on its port.
    """
    deadline = time.monotonic() + seconds
    while True:
        if (child := _children.get(service.pid)) is not None:
            child.poll()  # a dead child is reaped, so that it does not look alive
        if service.process() is None:
            if service.port is not None and not _free(service.port, service.host):
                raise FatalError("port-lost", service=service.name, port=service.port, log=service.log)
            raise FatalError("service-ended", service=service.name, log=service.log)
        if (service.port is None or service.listens()) and ready():
            return
        if time.monotonic() > deadline:
            raise FatalError("service-slow", service=service.name, seconds=int(seconds), log=service.log)
        time.sleep(0.2)


def settled(service: Running, ready: Callable[[Running], bool], again: Callable[[list[int]], Running]) -> Running:
    """The service once it answers, as :func:`wait`. Where another process, such as another hub's start, got its port first,
    ``again(ports)`` starts it anew on a port that is none of those it lost."""
    lost: list[int] = []
    while True:
        try:
            wait(service, lambda service=service: ready(service))  # type: ignore[misc]
            return service
        except FatalError as error:
            if error.code != "port-lost" or len(lost) == RACES:
                raise
        lost.append(service.port or 0)
        service = again(lost)


def answers(url: str, seconds: float = 5.0) -> bool:
    """Whether ``url`` answers with a status below 300."""
    return answered(url, seconds) is not None


def answered(url: str, seconds: float = 5.0) -> bytes | None:
    """What ``url`` answers with a status below 300; None where it does not."""
    import http.client
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=seconds) as response:
            return bytes(response.read()) if response.status < 300 else None
    except (OSError, http.client.HTTPException):
        return None


def stop(found: Sequence[Running], grace: float = GRACE_SECONDS) -> None:
    """Stop these services, and what they started, alone."""
    known = [process for service in found if (process := service.process())]
    _end([*known, *(child for process in known for child in _below(process))], grace)


def stop_all(home: Home, grace: float = GRACE_SECONDS) -> int:
    """Stop whatever runs for this home, the embedded database last. Returns how many processes were ended.

    A process that starts or stops services just now is told to end first. Safe to call when nothing runs.
    """
    if not home.path.is_dir():
        return 0
    ended = 0
    if (other := _starter(home)) is not None:
        ended += _end([other], max(grace, 20.0))
    for _ in range(5):  # a process may start another between the search and its end
        found = processes(home)
        if not found:
            break
        ended += _end(found, grace)
    (home.path / "services.json").unlink(missing_ok=True)
    for inner in inner_homes(home):
        ended += stop_all(inner, grace)
    embedded.stop(home)
    # What an interrupted first start leaves: `initdb` and the server it runs, which carry nothing of ours.
    return ended + _end(_of_database(home), grace)


def inner_homes(home: Home) -> list[Home]:
    """Homes of other hubs that live and end with this one."""
    folder = home.path / "hubs"
    return [Home(path) for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []


def processes(home: Home) -> list[psutil.Process]:
    """Every process of this home's services, children and strays included, except the caller itself."""
    found: dict[int, psutil.Process] = {}
    for service in running(home).values():
        if process := service.process():
            found[process.pid] = process
            with contextlib.suppress(psutil.Error):
                found.update({child.pid: child for child in process.children(recursive=True)})
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARKER) == str(home.path)
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
        except (psutil.Error, OSError):
            continue
    found.pop(os.getpid(), None)
    return list(found.values())


_children: dict[int, subprocess.Popen[bytes]] = {}


def _free(port: int, host: str) -> bool:
    """Whether one could listen there as far as others are concerned; what else is wrong with ``host`` the service says itself."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno not in USED
    return True


def _listens(process: psutil.Process, port: int | None) -> bool:
    found = process.net_connections("tcp")
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _of_database(home: Home) -> list[psutil.Process]:
    """Processes that work on the embedded database's folder."""
    folder, found = str(embedded.data_folder(home)), []
    for process in psutil.process_iter():
        try:
            named = [*process.cmdline(), process.environ().get("PGDATA", "")]
            if process.name() in ("postgres", "initdb") and any(part.startswith(folder) for part in named):
                found.append(process)
        except (psutil.Error, OSError, IndexError):
            continue
    return [process for process in found if process.pid != os.getpid()]


def _note(home: Home, services: Sequence[Running]) -> None:
    draft = home.path / f".services.{os.getpid()}.json"
    draft.write_text(json.dumps([asdict(service) for service in services], indent=2))
    draft.chmod(0o600)
    draft.replace(home.path / "services.json")


def _starter(home: Home) -> psutil.Process | None:
    """The process, other than this one, that holds the lock of :func:`exclusive`."""
    try:
        pid, created = (home.path / "services.lock").read_text().split(" ")
        process = psutil.Process(int(pid))
        if process.pid == os.getpid() or abs(process.create_time() - float(created)) > 1:
            return None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    with open(home.path / "services.lock", "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return process
    return None


def _end(found: Sequence[psutil.Process], grace: float) -> int:
    """SIGTERM, and after ``grace`` seconds SIGKILL."""
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(found, timeout=grace)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    for pid in [process.pid for process in found if process.pid in _children]:
        _children.pop(pid).poll()
    return len(found)
