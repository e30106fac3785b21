"""The parsers of the provider: whatever comes in is read or refused, and never breaks them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.jose_values import make_key
from support.provider import SEAL

from gateway.oauth.access import constraint_of
from gateway.oauth.authentication.presented import read_basic, read_credentials
from gateway.oauth.binding.certificates import read_certificate_header
from gateway.oauth.binding.dpop import DpopError, DpopProofs, read_dpop
from gateway.oauth.client_metadata import read_metadata
from gateway.oauth.endpoints.introspection import describe_token
from gateway.oauth.errors import InvalidScopeError, OAuthError
from gateway.oauth.external_issuers.claims import make_token
from gateway.oauth.jose import (
    ALGORITHMS,
    Jwt,
    JwtError,
    read_jwt,
    read_public_key,
    sign_jwt,
    verify_jwt,
)
from gateway.oauth.parameters import read_form, read_repeated, split_scope

KEY = make_key()
GOOD = sign_jwt({"alg": "ES256"}, {"sub": "x", "exp": 1}, KEY)
PUBLIC = read_public_key(KEY.as_dict(private=False))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
SCOPE_NAME = st.text(st.sampled_from([chr(n) for n in range(0x21, 0x7F) if chr(n) not in '"\\']),
                     min_size=1, max_size=10)  # fmt: skip


@given(st.lists(SCOPE_NAME, max_size=8))
def test_scope_round_trip(names: list[str]) -> None:
    assert split_scope(" ".join(names)) == tuple(dict.fromkeys(names))


@given(st.text(max_size=40))
def test_any_scope_is_read_or_refused(text: str) -> None:
    try:
        names = split_scope(text)
    except InvalidScopeError:
        return
    assert all(name.isascii() and name.isprintable() and " " not in name for name in names)
    assert len(set(names)) == len(names)


@given(st.text(max_size=200) | st.lists(st.text(), max_size=4).map(".".join))
def test_any_text_is_a_jwt_or_refused(text: str) -> None:
    try:
        jwt = read_jwt(text)
    except JwtError:
        return
    assert isinstance(jwt, Jwt)


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
def test_jwt_with_one_character_changed_is_refused_or_the_same(at: int, character: str) -> None:
    assert PUBLIC is not None
    altered = GOOD[:at] + character + GOOD[at + 1 :]
    try:
        jwt = verify_jwt(altered, [PUBLIC], ALGORITHMS)
    except JwtError:
        return
    # The last character of a base64 part has bits that mean nothing.
    assert jwt.claims == {"sub": "x", "exp": 1}


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "k", "d", "kid", "use"]), JSON
    )
)
def test_any_object_is_a_public_key_or_none(member: dict[str, Any]) -> None:
    key = read_public_key(member)
    assert key is None or not key.is_private


@given(st.dictionaries(st.sampled_from(["exp", "iat", "aud", "sub", "iss"]), JSON))
def test_claims_of_any_kind_are_read_by_their_type(claims: dict[str, Any]) -> None:
    jwt = Jwt({}, claims)
    assert all(isinstance(name, str) for name in jwt.audience)
    try:
        end = jwt.time("exp")
    except JwtError:
        assert "exp" in claims
    else:
        assert (end is None) is ("exp" not in claims)
        assert end is None or abs(end) < 1e12
    assert jwt.text("sub") is None or jwt.text("sub") == claims["sub"]


@given(
    st.dictionaries(
        st.sampled_from(["client_id", "azp", "sub", "scope", "scp", "aud", "cnf"]), JSON
    )
)
def test_external_claims_of_any_kind_make_a_token_that_is_safe_in_headers(
    claims: dict[str, Any],
) -> None:
    token = make_token("t", "corp", claims, issued_at=0, expires_at=1)
    if token is not None:
        assert token.client_id.startswith("corp:")
        assert describe_token(token)["token_type"] in {"Bearer", "DPoP"}
        assert (constraint_of(token, ()) is None) <= (not claims.get("cnf"))
        assert (token.client_id + token.scope).isascii()
        assert not {"\r", "\n", "\0"} & set(token.client_id + token.scope)


@given(st.binary(max_size=200))
def test_any_proof_is_refused(value: bytes) -> None:
    with pytest.raises(DpopError):
        DpopProofs(SEAL).verify([(b"DPoP", value)], method="GET", origins=("https://a",), path="/")


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_any_authorization_is_of_the_dpop_scheme_or_not(values: list[bytes]) -> None:
    token = read_dpop(values)
    assert token is None or token in values[0]


@given(st.binary(max_size=300))
def test_any_certificate_header_is_read_or_not(value: bytes) -> None:
    der = read_certificate_header(value)
    assert der is None or der.startswith(b"\x30")


@given(st.dictionaries(st.sampled_from(["client_id", "client_secret", "client_assertion",
                                        "client_assertion_type"]), st.text(min_size=1)),
       st.binary(max_size=40))  # fmt: skip
def test_any_credentials_are_read_or_refused(form: dict[str, str], basic: bytes) -> None:
    allowed = frozenset({"basic", "form"})
    for headers in ([], [(b"Authorization", b"Basic " + basic)]):
        try:
            credentials = read_credentials(
                headers, allowed, form=form, header={}, query={}  # type: ignore[arg-type]
            )  # fmt: skip
        except OAuthError:
            continue
        assert credentials.client_id or credentials.client_secret


@given(st.lists(st.tuples(st.sampled_from(["resource", "scope"]), st.text(min_size=1, max_size=5))))
def test_repeatable_parameters_are_all_read_and_others_only_once(
    pairs: list[tuple[str, str]],
) -> None:
    try:
        body = urlencode(pairs)
    except UnicodeEncodeError:
        return
    resources = [value for name, value in pairs if name == "resource"]
    assert list(read_repeated(body, "resource")) == list(dict.fromkeys(resources))
    scopes = [value for name, value in pairs if name == "scope"]
    try:
        form = read_form(body, repeatable={"resource"})
    except OAuthError:
        assert len(scopes) > 1
        return
    assert form == ({"scope": scopes[0]} if scopes else {})


@given(JSON)
def test_any_metadata_is_read_or_refused(value: Any) -> None:
    members = value if isinstance(value, dict) else {"jwks": value, "redirect_uris": value}
    try:
        metadata = read_metadata(members)
    except OAuthError:
        return
    assert json.dumps(metadata.stored())


@given(st.binary(max_size=200))
def test_any_basic_header_is_read_or_refused(value: bytes) -> None:
    for headers in ([(b"Authorization", b"Basic " + value)], [(b"authorization", value)]):
        try:
            credentials = read_basic(headers)
        except OAuthError:
            continue
        assert credentials is not None or not value
        assert credentials is None or credentials.client_id


@given(st.binary(max_size=300))
def test_any_form_is_read_or_refused(body: bytes) -> None:
    try:
        parameters = read_form(body)
    except OAuthError:
        return
    assert all(parameters.values())


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=5))
def test_form_round_trip(parameters: dict[str, str]) -> None:
    try:
        encoded = urlencode(parameters)
    except UnicodeEncodeError:
        return
    assert read_form(encoded.encode()) == parameters
