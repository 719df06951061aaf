"""A name server that knows one name, as a cluster's knows a headless Service."""

import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HEADER = struct.Struct("!HHHHHH")
_A, _IN = 1, 1
_RESPONSE = 0x8400
_SECONDS = 5
_NAME_OF_THE_QUESTION = 0xC00C


@contextmanager
def name_server(addresses: list[str]) -> Iterator[str]:
    """Answer questions for any name with these addresses; yields where it is asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        threading.Thread(target=_serve, args=(server, addresses), daemon=True).start()
        host, port = server.getsockname()
        yield f"{host}:{port}"
        # Ends the thread.
        server.sendto(b"", (host, port))


def _serve(server: socket.socket, addresses: list[str]) -> None:
    while True:
        query, client = server.recvfrom(512)
        if not query:
            return
        server.sendto(_answer(query, addresses), client)


def _answer(query: bytes, addresses: list[str]) -> bytes:
    (identifier, *_) = _HEADER.unpack_from(query)
    end = query.index(0, _HEADER.size) + 1
    (kind, _) = struct.unpack_from("!HH", query, end)
    known = [ipaddress.IPv4Address(address).packed for address in addresses] if kind == _A else []
    header = _HEADER.pack(identifier, _RESPONSE, 1, len(known), 0, 0)
    answers = [
        struct.pack("!HHHIH", _NAME_OF_THE_QUESTION, _A, _IN, _SECONDS, len(packed)) + packed
        for packed in known
    ]
    return header + query[_HEADER.size : end + 4] + b"".join(answers)
