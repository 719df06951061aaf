"""What a client shows to a server, and what it asks of it."""

from os import PathLike
from pathlib import Path

import grpc

Pem = bytes | str | PathLike[str]
"""A file in PEM format: its content, or its path."""


def tls(
    *, ca: Pem | None = None, certificate: Pem | None = None, key: Pem | None = None
) -> grpc.ChannelCredentials:
    """Give the `credentials` of an encrypted connection.

    `ca` holds the roots that vouch for the server; without it, those that come with grpcio do. `certificate`
    and `key` are shown to a server that asks for them.
    """
    if (certificate is None) != (key is None):
        raise ValueError("certificate and key belong together")
    return grpc.ssl_channel_credentials(_content(ca), _content(key), _content(certificate))


def call_metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Give the metadata that shows an API key or a token."""
    if api_key is None:
        return ()
    if not api_key or not api_key.isascii() or not api_key.isprintable():
        # The key itself is in no message: messages end in logs.
        raise ValueError("the API key is empty or has characters that no header can hold")
    return (("authorization", f"Bearer {api_key}"),)


def _content(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()
