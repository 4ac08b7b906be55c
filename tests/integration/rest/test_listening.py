"""The listener: TLS as promised, certificates replaced while it runs, shutdown that lets finish."""

import asyncio
import os
import ssl
import subprocess
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from shared.kernel.errors import IntegrityError
from shared.pki import formats, keys
from shared.web import app, tls
from shared.web.auth import open_to_all
from tests.support.pki_hierarchy import Hierarchy, leaf_plan
from tests.support.rest_server import pem_with_key

CA = Hierarchy().gateway


def identity() -> tuple[bytes, bytes]:
    key = keys.generate()
    der = CA.issue(leaf_plan(public_key=keys.spki(key.public_key())))
    return formats.pem([der]).encode(), pem_with_key(key, [])


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def presented(port: int) -> int:
    """Connect and give the serial number of the certificate that is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(der).serial_number


async def test_a_certificate_is_replaced_without_restart():
    context = tls.people_context(*identity())
    application = app.create([web.get("/", open_to_all(hello, "test"))], random=os.urandom)
    async with app.serve([app.Endpoint(application, "127.0.0.1", 0, context)]) as (port,):
        before = await presented(port)
        certificate, _key = identity()
        with pytest.raises(IntegrityError):
            tls.load_identity(context, certificate, identity()[1])
        assert await presented(port) == before
        tls.load_identity(context, *identity())
        assert await presented(port) != before


@pytest.mark.parametrize(
    ("option", "works"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)]
)
async def test_old_tls_is_refused(option: str, works: bool):
    application = app.create([web.get("/", open_to_all(hello, "test"))], random=os.urandom)
    endpoint = app.Endpoint(application, "127.0.0.1", 0, tls.people_context(*identity()))
    async with app.serve([endpoint]) as (port,):
        outcome = await asyncio.to_thread(
            subprocess.run,
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", option,
             "-cipher", "DEFAULT@SECLEVEL=0"],
            input=b"", capture_output=True, check=False, timeout=30,
        )  # fmt: skip
    assert (b"Cipher is (NONE)" not in outcome.stdout) is works


def test_no_key_is_left_on_disk(tmp_path: Path):
    before = set(tmp_path.parent.iterdir()), set(Path("/dev/shm").iterdir())
    tls.people_context(*identity())
    assert (set(tmp_path.parent.iterdir()), set(Path("/dev/shm").iterdir())) == before


async def test_shutdown_lets_running_requests_finish():
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        started.set()
        await release.wait()
        return web.Response(text="done")

    application = app.create([web.get("/", open_to_all(slow, "test"))], random=os.urandom)
    async with app.serve([app.Endpoint(application, "127.0.0.1", 0)]) as (port,):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await started.wait()
        asyncio.get_running_loop().call_later(0.1, release.set)
    assert (await reader.read()).endswith(b"done")
    writer.close()


async def test_a_handler_that_hangs_is_given_up():
    async def forever(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    application = app.create(
        [web.get("/", open_to_all(forever, "test"))], random=os.urandom, deadline_s=0.1
    )
    async with app.serve([app.Endpoint(application, "127.0.0.1", 0)]) as (port,):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"Retry-After" in answer


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01\x00\xa5", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA" * 9_000,
     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx"],
    ids=range(5),
)  # fmt: skip
async def test_what_is_no_http_gets_no_stack_trace(junk: bytes):
    application = app.create([web.get("/", open_to_all(hello, "test"))], random=os.urandom)
    async with app.serve([app.Endpoint(application, "127.0.0.1", 0)]) as (port,):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(junk)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
    assert answer == b"" or answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"Traceback" not in answer
