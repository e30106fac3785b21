"""A listener serves certificates by name, challenges by protocol, and redirects plain HTTP."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from support.acme_gateways import NAME, OTHER_NAME
from support.acme_issuing import issue
from support.deadlines import until, within
from support.jose_values import make_certificate
from support.running_gateway import RawClient, RunningGateway, StartGateway
from support.stores.faults import break_store, mend_store

from gateway.acme.certificates import ACME_IDENTIFIER, check_chain, make_key
from gateway.acme.state import AcmeState, Challenge
from gateway.app.build.acme import acme_settings
from gateway.oauth.keys.sealing import Seal
from gateway.store import open_store

AUTHORIZATION = "token.thumbprint"


@pytest.fixture
async def gateway(start: StartGateway, tmp_path: Path) -> RunningGateway:
    """A gateway whose CA does not respond."""
    acme = {"domains": [NAME, OTHER_NAME], "directory": "https://127.0.0.1:9/dir"}
    listen = {
        "tls": {"acme": acme},
        "http_redirect": {"host": "127.0.0.1", "port": 0, "https_port": 8443},
    }
    return await start("http://127.0.0.1:9", listen=listen, provider={"seal_key": "s" * 40})


@pytest.fixture
async def state(gateway: RunningGateway) -> AsyncIterator[AcmeState]:
    """The store of the gateway, as another replica has it."""
    store = await open_store(gateway.gateway.config.store)
    yield AcmeState(store.records, Seal(lambda: b"s" * 40))
    await store.close()


async def put(state: AcmeState, gateway: RunningGateway, name: str, *, serial: int = 1) -> None:
    settings = acme_settings(gateway.gateway.config)
    assert settings is not None
    key, now = make_key(), await state.now()
    chain = issue(key, name, serial=serial, end=30)
    await state.put_certificate(settings.directory_id, check_chain(name, chain, key, now=now))


async def handshake(
    gateway: RunningGateway, name: str | None, *alpn: str
) -> tuple[x509.Certificate, str | None] | None:
    """The certificate that a client gets, and the protocol; None where the handshake fails."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn or ("http/1.1",)))
    try:
        async with within():
            _, writer = await asyncio.open_connection(
                "127.0.0.1", gateway.port, ssl=context, server_hostname=name or ""
            )
    except (ssl.SSLError, ConnectionError):
        return None
    tls = writer.get_extra_info("ssl_object")
    found = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
    writer.close()
    return found, tls.selected_alpn_protocol()


async def serial_of(gateway: RunningGateway, name: str | None) -> int:
    found = await handshake(gateway, name)
    return 0 if found is None else found[0].serial_number


async def test_certificate_is_chosen_by_name_and_replaced_without_a_restart(
    gateway: RunningGateway, state: AcmeState
) -> None:
    assert await handshake(gateway, NAME) is None
    await put(state, gateway, NAME, serial=1)
    await put(state, gateway, OTHER_NAME, serial=2)

    async def serves(name: str | None, serial: int) -> bool:
        return await serial_of(gateway, name) == serial

    await until(lambda: serves(OTHER_NAME, 2))
    assert await serves(NAME, 1)
    assert await serves(NAME.upper(), 1)
    assert await serves("unknown.gateway.test", 1)
    assert await serves(None, 1)
    expiry = "gateway_certificate_expiry_timestamp_seconds"
    assert await gateway.metric(expiry, certificate=f"listen/{OTHER_NAME}") > await state.now()
    await put(state, gateway, OTHER_NAME, serial=3)
    await until(lambda: serves(OTHER_NAME, 3))
    assert await serves(NAME, 1)


async def test_certificate_of_a_file_serves_other_names(
    start: StartGateway, tmp_path: Path
) -> None:
    own = make_certificate(tmp_path, "own")
    acme = {"domains": [NAME], "directory": "https://127.0.0.1:9/dir"}
    tls = {"acme": acme, "cert": str(own.cert), "key": str(own.key)}
    gateway = await start(
        "http://127.0.0.1:9", listen={"tls": tls}, provider={"seal_key": "s" * 40}
    )
    expected = x509.load_der_x509_certificate(own.der).serial_number
    assert await serial_of(gateway, NAME) == expected  # until there is another one
    store = await open_store(gateway.gateway.config.store)
    await put(AcmeState(store.records, Seal(lambda: b"s" * 40)), gateway, NAME)
    await store.close()

    async def is_served() -> bool:
        return await serial_of(gateway, NAME) == 1

    await until(is_served)
    assert await serial_of(gateway, OTHER_NAME) == expected
    assert await serial_of(gateway, None) == expected


async def test_certificates_are_served_while_the_store_is_unavailable(
    gateway: RunningGateway, state: AcmeState, tmp_path: Path
) -> None:
    await put(state, gateway, NAME)

    async def is_served() -> bool:
        return await serial_of(gateway, NAME) == 1

    await until(is_served)
    break_store(tmp_path / "gateway.db")

    async def is_noticed() -> bool:
        return await gateway.metric("gateway_store_up") == 0

    await until(is_noticed)
    assert await is_served()
    mend_store(tmp_path / "gateway.db")
    await put(state, gateway, NAME, serial=2)

    async def is_renewed() -> bool:
        return await serial_of(gateway, NAME) == 2

    await until(is_renewed)


async def test_certificate_of_staging_is_served_until_there_is_another_one(
    gateway: RunningGateway, state: AcmeState
) -> None:
    await put(state, gateway, NAME)

    async def is_served() -> bool:
        return await serial_of(gateway, NAME) == 1

    await until(is_served)
    config = gateway.gateway.config
    assert config.listen.tls is not None
    assert config.listen.tls.acme is not None
    acme = config.listen.tls.acme.model_copy(update={"directory": "https://127.0.0.1:9/other"})
    tls = config.listen.tls.model_copy(update={"acme": acme})
    listen = config.listen.model_copy(update={"tls": tls})
    await gateway.gateway._apply(config.model_copy(update={"listen": listen}))
    await state.touch()
    await put(state, gateway, OTHER_NAME, serial=2)

    async def is_other_served() -> bool:
        return await serial_of(gateway, OTHER_NAME) == 2

    await until(is_other_served)
    assert await is_served()


async def has_challenge(gateway: RunningGateway) -> bool:
    found = await handshake(gateway, NAME, "acme-tls/1")
    return found is not None and found[1] == "acme-tls/1"


async def begin_challenge(gateway: RunningGateway, state: AcmeState) -> None:
    """Have a certificate and a pending challenge of the same name served."""
    await put(state, gateway, NAME)

    async def has_certificate() -> bool:
        return await serial_of(gateway, NAME) == 1

    await until(has_certificate)
    await state.put_challenge(Challenge("tls-alpn-01", NAME, "token", AUTHORIZATION))
    await until(lambda: has_challenge(gateway))


async def test_challenge_is_served_to_its_protocol_alone(
    gateway: RunningGateway, state: AcmeState
) -> None:
    await begin_challenge(gateway, state)
    found = await handshake(gateway, NAME, "acme-tls/1")
    assert found is not None
    found[0].extensions.get_extension_for_oid(x509.ObjectIdentifier(ACME_IDENTIFIER))
    # Clients get what they always got, and the other name has no challenge.
    usual = await handshake(gateway, NAME, "h2", "http/1.1")
    assert usual is not None
    assert usual[0].serial_number == 1
    assert usual[1] in {"h2", "http/1.1"}
    other = await handshake(gateway, OTHER_NAME, "acme-tls/1")
    assert other is None or other[1] is None
    await state.delete_challenge(NAME)

    async def is_gone() -> bool:
        return not await has_challenge(gateway)

    await until(is_gone)


async def test_client_hello_may_come_in_pieces_while_a_challenge_is_pending(
    gateway: RunningGateway, state: AcmeState
) -> None:
    await begin_challenge(gateway, state)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in (hello[:1], hello[1:7], hello[7:-1], hello[-1:]):
        writer.write(piece)
        await asyncio.sleep(0.05)
    async with within():
        while True:
            incoming.write(await reader.read(65536))
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
    found = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
    assert found.serial_number == 1
    writer.close()


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 20000]
)
async def test_garbage_is_no_challenge(
    gateway: RunningGateway, state: AcmeState, garbage: bytes
) -> None:
    await state.put_challenge(Challenge("tls-alpn-01", NAME, "token", AUTHORIZATION))

    async def is_served() -> bool:
        return await handshake(gateway, NAME, "acme-tls/1") is not None

    await until(is_served)
    client = await gateway.connect()
    await client.send(garbage)
    async with within():
        while await client.reader.read(65536):
            pass


async def plain(gateway: RunningGateway, request: bytes) -> tuple[int, str | None, bytes]:
    client: RawClient = await gateway.connect_to(gateway.gateway.redirect_address)
    await client.send(request)
    response = await client.read_response()
    await client.close()
    return response.status, response.header("location"), response.body


async def test_plain_http_is_redirected_and_serves_challenges(
    gateway: RunningGateway, state: AcmeState
) -> None:
    get = b"GET /a/b?c=%20d HTTP/1.1\r\nHost: " + NAME.encode() + b":80\r\n\r\n"
    expected = (308, f"https://{NAME}:8443/a/b?c=%20d", b"")
    assert await plain(gateway, get) == expected
    post = get.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n")
    assert await plain(gateway, post) == expected
    assert (await plain(gateway, b"GET / HTTP/1.0\r\n\r\n"))[0] == 400
    ask = get.replace(b"/a/b?c=%20d", b"/.well-known/acme-challenge/token")
    assert (await plain(gateway, ask))[0] == 404
    await state.put_challenge(Challenge("http-01", NAME, "token", AUTHORIZATION))

    async def is_served() -> bool:
        return await plain(gateway, ask) == (200, None, AUTHORIZATION.encode())

    await until(is_served)
    reasons = [line.get("reason") for line in await gateway.logged(5)][:4]
    assert reasons == ["http_redirect", "http_redirect", "host", "acme_challenge"]


async def test_token_of_another_path_is_no_challenge(
    gateway: RunningGateway, state: AcmeState
) -> None:
    await state.put_challenge(Challenge("http-01", NAME, "token", AUTHORIZATION))

    async def status_of(path: str) -> int:
        ask = f"GET /.well-known/acme-challenge/{path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"
        return (await plain(gateway, ask.encode()))[0]

    async def is_served() -> bool:
        return await status_of("token") == 200

    await until(is_served)
    for path in ("Token", "token/", "token/x", "x/token", ""):
        assert await status_of(path) == 404
