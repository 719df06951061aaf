"""A server that encrypts and asks who calls, through the Python client and OpenAI's."""

import hashlib
import io
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import openai
import pytest
from PIL import Image

from smartedit import AsyncClient, Client, PermissionDenied, SmartEditError, Unauthenticated, Unavailable, tls

from servers import Server, running

CERTIFICATES = Path(__file__).parent / "certificates"
KEY = "smartedit_a-key-for-tests-of-the-python-client"
READER = "smartedit_a-key-that-may-read-metrics-only"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


LOCK = f"""
[tls]
certificate = "{CERTIFICATES / "server.pem"}"
key = "{CERTIFICATES / "server.key"}"
client_ca = "{CERTIFICATES / "ca.pem"}"
http = "server_only"

[auth.keys.python]
sha256 = "{digest(KEY)}"

[auth.keys.reader]
sha256 = "{digest(READER)}"
permissions = ["metrics"]
"""


def credentials() -> grpc.ChannelCredentials:
    return tls(
        ca=CERTIFICATES / "ca.pem",
        certificate=CERTIFICATES / "client.pem",
        key=(CERTIFICATES / "client.key").read_bytes(),
    )


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("locked"), LOCK, credentials()) as server:
        yield server


def test_a_client_with_certificate_and_key_edits(locked: Server, picture: Image.Image) -> None:
    with Client(locked.address, credentials=credentials(), api_key=KEY, timeout=120) as client:
        assert [deployment.name for deployment in client.deployments()] == ["default", "narrow"]
        assert client.edit(picture, "Make it blue", steps=1).image.size
        with client.edit_stream(picture, "Make it blue", steps=1) as stream:
            assert stream.result().image.size
        entries = client.compare(picture, "Make it blue", ["default", "narrow"], steps=1)
        assert len(entries) == 2


async def test_so_does_one_for_asyncio(locked: Server, picture: Image.Image) -> None:
    async with AsyncClient(locked.address, credentials=credentials(), api_key=KEY, timeout=120) as client:
        assert (await client.edit(picture, "Make it blue", steps=1)).image.size
        async with client.edit_stream(picture, "Make it blue", steps=1) as stream:
            assert (await stream.result()).image.size


async def test_who_is_not_known_is_refused_by_name(locked: Server, picture: Image.Image) -> None:
    with Client(locked.address, credentials=credentials(), timeout=60) as client:
        with pytest.raises(Unauthenticated) as missing:
            client.edit(picture, "Make it blue")
        assert missing.value.reason == "CREDENTIALS_MISSING"
    async with AsyncClient(locked.address, credentials=credentials(), api_key="wrong", timeout=60) as client:
        with pytest.raises(Unauthenticated) as unknown:
            await client.deployments()
        assert unknown.value.reason == "CREDENTIALS_UNKNOWN"
    reader = Client(locked.address, credentials=credentials(), api_key=READER, timeout=60)
    with reader, pytest.raises(PermissionDenied):
        reader.edit(picture, "Make it blue")


def test_without_a_certificate_there_is_no_connection(locked: Server) -> None:
    nameless = tls(ca=CERTIFICATES / "ca.pem")
    for shown in (nameless, None):
        with Client(locked.address, credentials=shown, api_key=KEY, timeout=60) as client:
            with pytest.raises(SmartEditError) as refused:
                client.deployments()
            assert isinstance(refused.value, Unavailable)


def test_what_cannot_be_shown_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="belong together"):
        tls(certificate=b"")
    for key in ("", "two\nlines", "schlüssel"):
        with pytest.raises(ValueError, match="API key") as refused:
            Client("localhost:1", api_key=key)
        assert not key or key not in str(refused.value)


def test_openai_shows_its_key(locked: Server, picture: Image.Image) -> None:
    file = io.BytesIO()
    picture.save(file, "PNG")
    trusted = httpx.Client(verify=ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem")))

    def api(key: str) -> openai.OpenAI:
        base = f"https://{locked.http}/v1"
        return openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=120, http_client=trusted)

    with trusted:
        edited = api(KEY).images.edit(image=file.getvalue(), prompt="Make it blue", extra_body={"steps": 1})
        assert edited.data
        with pytest.raises(openai.AuthenticationError) as unknown:
            api("sk-wrong").models.list()
        assert unknown.value.code == "invalid_api_key"
        with pytest.raises(openai.PermissionDeniedError):
            api(READER).models.list()
