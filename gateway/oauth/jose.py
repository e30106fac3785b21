"""Signed JSON: what the provider asks of JOSE, in the few words it needs.

joserfc does the work. What is added here is what a caller must not forget: an explicit
list of asymmetric algorithms, keys that are public and strong enough, a bound on size,
and one error for whatever can be wrong (RFC 8725 sections 3.1 to 3.5).

joserfc and the cryptography below it, 50 ms and 10 MiB, are imported with the first JWT or key.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.oauth.library_errors import jose_errors

if TYPE_CHECKING:
    from joserfc.jwk import Key

ALGORITHMS = (
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
)  # fmt: skip
"""All that are ever accepted: asymmetric ones, so that no public key can pass for a secret."""
_KINDS: Mapping[str, tuple[str, frozenset[str | None]]] = {
    "ES256": ("EC", frozenset({"P-256"})), "ES384": ("EC", frozenset({"P-384"})),
    "ES512": ("EC", frozenset({"P-521"})), "Ed25519": ("OKP", frozenset({"Ed25519"})),
    # Not X25519 and X448, whose keys are for key agreement (RFC 8037 section 3.2).
    "EdDSA": ("OKP", frozenset({"Ed25519", "Ed448"})),
    **dict.fromkeys(
        ("PS256", "PS384", "PS512", "RS256", "RS384", "RS512"), ("RSA", frozenset({None}))
    ),
}  # fmt: skip
"""The type and the curves of keys for each algorithm."""
# Not a set: what a JWK says may be anything, also what no set can hold.
_PUBLIC_KINDS = ("EC", "OKP", "RSA")
_SECRET_MEMBERS = frozenset({"d", "k", "p", "q", "priv"})
"""Members of private and symmetric keys (RFC 7518 section 6)."""
_SAME = {"EdDSA", "Ed25519"}
"""Two names of one algorithm (RFC 9864)."""
MAX_TOKEN_CHARS = 32 * 1024
"""As large as a head may be by default."""
MAX_KEYS = 100
MIN_RSA_BITS = 2048
MAX_TIME = 1e12
# Of keys without a matching id, so many are tried: a signature check is not free.
MAX_ATTEMPTS = 8


@cache
def _registry() -> Any:
    from joserfc.errors import SecurityWarning
    from joserfc.jws import JWSRegistry

    class Registry(JWSRegistry):
        max_header_length = 8 * 1024  # a header may hold a key or a certificate chain

        def get_alg(self, name: str) -> Any:
            # joserfc warns of `EdDSA` since RFC 9864 names its curves; its warning is silenced
            # when signing.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)
                return super().get_alg(name)

    # Header members that are not registered are ignored, as RFC 7515 section 4 asks for.
    return Registry(algorithms=list(ALGORITHMS), strict_check_header=False)


class JwtError(Exception):
    """It is not a JWT, or not one that these keys signed."""


class SignatureError(JwtError):
    """None of these keys signed it."""


@dataclass(frozen=True, slots=True)
class Jwt:
    """The parts of a JWT (RFC 7519)."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any] = field(repr=False)

    def text(self, claim: str) -> str | None:
        """A claim that is text, None where it is absent or something else."""
        value = self.claims.get(claim)
        return value if isinstance(value, str) and value else None

    def time(self, claim: str) -> float | None:
        """Return a claim that is a NumericDate (RFC 7519 section 2), None where it is absent.

        Raises `JwtError` for one that is there and can't be used: to take it for absent would
        lift the limit that it sets.
        """
        if claim not in self.claims:
            return None
        value = self.claims[claim]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) < MAX_TIME:
            raise JwtError(f"{claim} is no time in seconds")
        return float(value)

    @property
    def key_id(self) -> str | None:
        """The id of the key that it says it is signed with."""
        key_id = self.header.get("kid")
        return key_id if isinstance(key_id, str) else None

    @property
    def audience(self) -> tuple[str, ...]:
        """The audience (RFC 7519 section 4.1.3), one or several."""
        value = self.claims.get("aud")
        values = value if isinstance(value, list) else [value]
        return tuple(member for member in values if isinstance(member, str))


def looks_like_jwt(token: str) -> bool:
    """Whether a token has the form of a signed JWT: three parts, the first a JSON object."""
    return token.startswith("ey") and token.count(".") == 2


def read_jwt(token: str) -> Jwt:
    """The parts of a JWT, before anything about them is proven. Raises `JwtError`."""
    if len(token) > MAX_TOKEN_CHARS:
        raise JwtError("too large")
    from joserfc import jws

    try:
        signature = jws.extract_compact(token.encode("ascii"), registry=_registry())
        header: Mapping[str, Any] = signature.headers()
        if "crit" in header or "b64" in header:
            raise JwtError("extension")
        return Jwt(header, _decode_claims(signature.payload))
    except jose_errors():
        raise JwtError("malformed") from None


def verify_jwt(token: str, keys: Sequence[Key], algorithms: Collection[str]) -> Jwt:
    """The parts of a JWT that one of `keys` signed with one of `algorithms`. Raises `JwtError`."""
    unproven = read_jwt(token)
    algorithm = unproven.header.get("alg")
    if algorithm not in algorithms or algorithm not in ALGORITHMS:
        raise JwtError("algorithm")
    from joserfc import jws

    for key in choose_keys(keys, unproven.header)[:MAX_ATTEMPTS]:
        try:
            proven = jws.deserialize_compact(token, key, [algorithm], _registry())
        except jose_errors():
            continue
        return Jwt(proven.headers(), _decode_claims(proven.payload))
    raise SignatureError("signature")


def choose_keys(keys: Sequence[Key], header: Mapping[str, Any]) -> list[Key]:
    """The keys that may have signed: of the kind that the algorithm needs, and of the id that the
    header names, if it does."""
    key_id = header.get("kid")
    fitting = [key for key in keys if _fits(key, header.get("alg"))]
    if key_id is None:
        return fitting
    # Compared one by one: what the header says may be anything, also what no set can hold.
    named = [key for key in fitting if key.kid == key_id]
    return named + [key for key in fitting if key.kid is None]


def _fits(key: Key, algorithm: object) -> bool:
    """Whether a key is for an algorithm (RFC 7517 sections 4.1 and 4.4, RFC 7518 section 3.1)."""
    kind, curves = _KINDS.get(str(algorithm), ("", frozenset()))
    if key.key_type != kind or getattr(key, "curve_name", None) not in curves:
        return False
    return key.alg is None or key.alg == algorithm or {key.alg, algorithm} == _SAME


def sign_jwt(header: Mapping[str, Any], claims: Mapping[str, Any], key: Key) -> str:
    """A signed JWT in compact form."""
    from joserfc import jws

    payload = msgspec.json.encode(claims)
    return jws.serialize_compact(dict(header), payload, key, [header["alg"]], _registry())


def read_public_keys(jwks: object) -> list[Key]:
    """The keys for signatures of a JWK set (RFC 7517), none where one of them is private,
    symmetric, weak or malformed: its author does not know what they publish. Those for encryption
    and of unknown kinds are skipped (section 5)."""
    members = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        return []
    keys: list[Key] = []
    for member in members:
        if not isinstance(member, Mapping) or not _SECRET_MEMBERS.isdisjoint(member):
            return []
        if member.get("use", "sig") != "sig" or member.get("kty") not in _PUBLIC_KINDS:
            continue
        key = read_public_key(member)
        if key is None:
            return []
        keys.append(key)
    return keys


def read_usable_keys(jwks: object) -> list[Key]:
    """Return the usable keys of another party's JWK set; others are skipped, since a set may
    hold kinds of keys that are not for us (RFC 7517 section 5)."""
    members = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(members, list):
        return []
    keys = [read_public_key(_as_for_signatures(member)) for member in members[:MAX_KEYS]]
    return [key for key in keys if key is not None]


def _as_for_signatures(member: object) -> object:
    """Read `use` of the keys in a SPIFFE bundle (SPIFFE Trust Domain and Bundle section 4.2.2)."""
    if isinstance(member, Mapping) and member.get("use") == "jwt-svid":
        return {**member, "use": "sig"}
    return member


def read_public_key(member: object) -> Key | None:
    """A public EC, OKP or RSA key for signatures, None for anything else."""
    if not isinstance(member, dict) or member.get("use", "sig") != "sig":
        return None
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    from joserfc.errors import SecurityWarning
    from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)
            key = JWKRegistry.import_key(member)
            is_usable = isinstance(key, ECKey | OKPKey | RSAKey) and not key.is_private
            if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS:
                return None
            _ = key.raw_value
    except jose_errors():
        return None
    return key if is_usable else None


def _decode_claims(payload: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.DecodeError:
        raise JwtError("malformed") from None
