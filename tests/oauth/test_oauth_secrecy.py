"""No secret shows in a repr, an exception or a metric."""

from __future__ import annotations

import pytest
from support.provider import POLICY, Provider

from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.credentials import random_text
from gateway.oauth.endpoints import EndpointRequest, EndpointResponse
from gateway.oauth.errors import OAuthError
from gateway.oauth.limiter import UNKNOWN, FailedClientLimiter

CANARY = "canary-4711"


async def test_values_that_hold_a_secret_do_not_show_it(provider: Provider) -> None:
    registered = await provider.server.register_client(client_id="c", client_secret=CANARY)
    issued = await provider.server.issue_token_to("c")
    values = [
        registered,
        issued,
        issued.token,
        POLICY,
        ClientCredentials("c", CANARY),
        EndpointRequest("POST", "/token", CANARY, [(b"x", CANARY.encode())], b"canary-4711", "s"),
        EndpointResponse(200, (), CANARY.encode()),
    ]
    shown = " ".join(map(repr, values))
    for secret in (CANARY, issued.access_token, "registration-token", "argon2",
                   str(issued.token.digest)):  # fmt: skip
        assert secret not in shown


async def test_refusals_do_not_repeat_what_was_sent(provider: Provider) -> None:
    with pytest.raises(OAuthError) as refused:
        await provider.issue_token(CANARY, CANARY, CANARY, CANARY)
    assert CANARY not in repr(refused.value) + str(refused.value.body())
    for body in (f"grant_type={CANARY}", f"{CANARY}={CANARY}&{CANARY}=%ff"):
        reply = await provider.fetch(
            "POST", "/token", {"Content-Type": "application/x-www-form-urlencoded"}, body
        )
        assert CANARY not in str(reply.json)
    assert CANARY not in provider.metrics.render().decode()


def test_random_text_never_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["-drawn", "-again", "drawn-"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda size: next(drawn))
    assert random_text(32) == "drawn-"


def test_limiter_forgets_rather_than_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.oauth.limiter.MAX_PAIRS", 10)
    limiter = FailedClientLimiter(failures=1)
    for number in range(100):
        limiter.fail(f"client-{number}", "source")
    assert limiter.retry_after_s("client-0", "source") is None
    assert limiter.retry_after_s("client-99", "source") == 600


def test_made_up_ids_push_no_client_out_of_the_limiter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.oauth.limiter.MAX_PAIRS", 10)
    limiter = FailedClientLimiter(failures=1)
    limiter.fail("shop", "source", state="1 None")
    for number in range(100):
        limiter.fail(f"made-up-{number}", "source", state=UNKNOWN)
    assert limiter.retry_after_s("shop", "source") == 600
    # One that is registered meanwhile is kept with the others, and its failures with it.
    limiter.fail("made-up-99", "source", state="2 None")
    for number in range(100):
        limiter.fail(f"made-up-{number + 100}", "source", state=UNKNOWN)
    found = {one.client_id: one.failures for one in limiter.failing()}
    assert (found["shop"], found["made-up-99"]) == (1, 2)
    restored = FailedClientLimiter(failures=1)
    for one in limiter.failing():
        restored.restore(one)
    assert restored.retry_after_s("shop", "source") is not None
