"""Requests made beforehand, sent to a listener of the exchange over mutual TLS: ``python bench/exchange_load.py PLAN``.

``PLAN``: JSON of port, PEM file of who asks, certificates of who answers, a file of requests each behind its length, connections,
requests a second (0: as fast as they are answered). Prints one JSON value: how many, how long, times in milliseconds, how many
were not answered 200, bytes of the first answers, and how much of one processor this took.

A process of its own with blocking sockets: a thread a connection, each taking the next request of the file.
"""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

SHOWN = 20
SECONDS = 30.0  # for an answer


def read(path: Path) -> list[bytes]:
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        (size,) = struct.unpack_from("<I", data, place)
        found.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    return found


def write(path: Path, requests: list[bytes]) -> None:
    path.write_bytes(b"".join(struct.pack("<I", len(request)) + request for request in requests))


def request(body: bytes, kind: str) -> bytes:
    head = f"POST /v1/exchange HTTP/1.1\r\nHost: hub\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def drive(plan: dict[str, Any]) -> dict[str, Any]:
    requests = read(Path(plan["requests"]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(plan["own"])
    context.load_verify_locations(cadata="\n".join(plan["pems"]))
    wires = [_connected(context, plan["port"]) for _ in range(plan["connections"])]
    turn, rate = itertools.count(), plan["rate"]
    times: list[float] = []
    answers: list[str] = []
    errors = [0]
    start, used = time.perf_counter(), time.process_time()

    def one(wire: ssl.SSLSocket) -> None:
        while (number := next(turn)) < len(requests):
            if rate and (early := start + number / rate - time.perf_counter()) > 0:
                time.sleep(early)
            began = time.perf_counter()
            wire.sendall(requests[number])
            head, body = _answer(wire)
            times.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200"):
                errors[0] += 1
            if len(answers) < SHOWN:
                answers.append(body.decode())

    threads = [threading.Thread(target=one, args=(wire,)) for wire in wires]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    times.sort()
    return {
        "requests": len(times), "seconds": seconds, "errors": errors[0] + len(requests) - len(times),
        "p50": times[len(times) // 2] * 1000, "p99": times[int(len(times) * 0.99)] * 1000,
        "processor": (time.process_time() - used) / seconds, "answers": answers,
    }  # fmt: skip


def _connected(context: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain)


def _answer(wire: ssl.SSLSocket) -> tuple[bytes, bytes]:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        part = wire.recv(65536)
        if not part:
            raise ConnectionError("closed")
        data += part
    head = data[:end]
    size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = data[end + 4 :]
    while len(body) < size:
        part = wire.recv(65536)
        if not part:
            raise ConnectionError("closed")
        body += part
    return head, body


if __name__ == "__main__":
    print(json.dumps(drive(json.loads(sys.argv[1]))))
