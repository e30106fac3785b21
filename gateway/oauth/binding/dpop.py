"""DPoP: a proof, with each request, that the sender holds a key (RFC 9449).

A proof is good for one request, for a short while. At the token endpoint, the store that all
processes share remembers those that were used. On proxied routes that costs a round trip for each
request, so it is done where the operator wants it; else each process remembers its own: what bounds
a replay at another process is how old a proof may be.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from gateway.clock import CLOCK_SKEW_S, is_within
from gateway.http.fields import RawHeaders, header_values
from gateway.oauth.errors import DPOP_ALGORITHMS, DpopChallengeError
from gateway.oauth.jose import Jwt, JwtError, read_jwt, read_public_key, verify_jwt
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.models import Clock, Record, RecordStore

USED_PROOF = "used-proof"
MAX_AGE_S = 60.0
"""How old a proof may be, and how far ahead of ours the client's clock."""
NONCE_TTL_S = 300.0
MAX_SEEN = 200_000
"""Proofs a process remembers; beyond that, the oldest are forgotten before their time."""
MAX_ID_CHARS = 256
_NONCE_TIME_BYTES = 8
_NONCE_MAC_BYTES = 16
_DEFAULT_PORTS = {"http": 80, "https": 443}
_DPOP = re.compile(rb"dpop +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)


class DpopError(Exception):
    """A proof that proves nothing."""

    def __init__(self, description: str, *, code: str = "invalid_dpop_proof", nonce: str = ""):
        super().__init__(description)
        self.code = code
        self.description = description
        self.nonce = nonce
        """The nonce that the next proof must hold, if any."""

    def challenge(self) -> DpopChallengeError:
        """The rejection of a request with a token (RFC 9449 section 7.1)."""
        return DpopChallengeError(self.code, self.description, nonce=self.nonce)


@dataclass(frozen=True, slots=True)
class DpopProof:
    """A proof that holds."""

    key: str
    """Thumbprint of the key (RFC 7638)."""
    identity: str = field(repr=False)
    """The same for every copy of this proof, and for no other."""
    ends_at: float
    """Unix time from which a copy would be too old by the clock of every replica."""


class DpopProofs:
    """Verifies proofs."""

    def __init__(
        self,
        seal: Seal,
        *,
        requires_nonce: bool = False,
        max_age_s: float = MAX_AGE_S,
        shared: RecordStore | None = None,
        wall_clock: Clock = time.time,
    ) -> None:
        """`shared` remembers the proofs of requests with a token for all processes."""
        self._seal = seal
        self._shared = shared
        self._max_age_s = max_age_s
        self._requires_nonce = requires_nonce
        self._wall_clock = wall_clock
        self._seen: OrderedDict[str, float] = OrderedDict()
        """When each proof was seen, oldest first."""

    def reconfigure(
        self, *, requires_nonce: bool, max_age_s: float, shared: RecordStore | None = None
    ) -> None:
        """Go by other rules from now on; proofs that were seen stay used up."""
        self._requires_nonce = requires_nonce
        self._max_age_s = max_age_s
        self._shared = shared

    @property
    def is_shared(self) -> bool:
        """Whether the proof of a request with a token must be used up in the store, too."""
        return self._shared is not None

    async def use_up(self, proof: DpopProof) -> None:
        """Use a proof up for all processes that share the store. Raises `DpopError` where one of
        them has seen it, and `StoreUnavailableError`."""
        if self._shared is None:  # no longer
            return
        used = Record(USED_PROOF, proof.identity, "", b"", proof.ends_at)
        if not await self._shared.add_record(used):
            raise DpopError("The proof was used before.")

    def verify(
        self,
        headers: RawHeaders,
        *,
        method: str,
        origins: Collection[str],
        path: str,
        access_token: bytes | None = None,
    ) -> DpopProof:
        """The proof of a request to `path` at one of `origins` (RFC 9449 section 4.3).

        Raises `DpopError`.
        """
        values = header_values(headers, b"dpop")
        if len(values) != 1:
            raise DpopError("One DPoP header is needed.")
        proof, key = _read_proof(values[0])
        try:
            proof_id, issued_at = proof.text("jti"), proof.time("iat")
        except JwtError as error:
            raise DpopError(f"The proof is not usable: {error}.") from None
        now = self._wall_clock()
        if proof_id is None or len(proof_id) > MAX_ID_CHARS or issued_at is None:
            raise DpopError("The proof lacks jti or iat.")
        if not is_within(issued_at, now, self._max_age_s, skew_s=self._max_age_s):
            raise DpopError("The proof is too old, or from the future.")
        if proof.text("htm") != method or not _is_for(proof.text("htu"), origins, path):
            raise DpopError("The proof is for another request.")
        if access_token is not None:
            expected = _encode(hashlib.sha256(access_token).digest())
            if not hmac.compare_digest((proof.text("ath") or "").encode(), expected):
                raise DpopError("The proof is for another token.")
        if self._requires_nonce and not self._is_fresh(proof.text("nonce"), now):
            raise DpopError(
                "A nonce is needed.", code="use_dpop_nonce", nonce=self._make_nonce(now)
            )
        identity = hashlib.sha256(f"{key}\0{proof_id}".encode()).hexdigest()
        return DpopProof(key, identity, issued_at + self._max_age_s + CLOCK_SKEW_S)

    def verify_with_token(
        self, headers: RawHeaders, *, method: str, origins: Collection[str], path: str, key: str
    ) -> DpopProof:
        """Check the proof of a request that shows a token bound to `key`, once in this process.

        Raises `DpopError`.
        """
        proof = self.verify(
            headers,
            method=method,
            origins=origins,
            path=path,
            access_token=read_dpop(header_values(headers, b"authorization")),
        )
        if not hmac.compare_digest(proof.key, key):
            raise DpopError("The proof is by another key.")
        if proof.identity in self._seen:
            raise DpopError("The proof was used before.")
        self._remember(proof.identity)
        return proof

    def _remember(self, identity: str) -> None:
        """Note that a proof is used up. At most two others are forgotten: those that are too old to
        be shown again may be very many."""
        now = self._wall_clock()
        self._seen[identity] = now
        for _ in range(2):
            oldest, seen_at = next(iter(self._seen.items()))
            if now - seen_at < 2 * self._max_age_s and len(self._seen) <= MAX_SEEN:
                return
            del self._seen[oldest]
            if not self._seen:
                return

    def fresh_nonce(self) -> str | None:
        """A nonce for the next proof, None where none are asked for."""
        return self._make_nonce(self._wall_clock()) if self._requires_nonce else None

    def _make_nonce(self, now: float) -> str:
        moment = int(now).to_bytes(_NONCE_TIME_BYTES)
        return _encode(moment + self._seal.mac(moment)[:_NONCE_MAC_BYTES]).decode("ascii")

    def _is_fresh(self, nonce: str | None, now: float) -> bool:
        # Nothing is kept: the nonce says when it was made, and its code that we made it.
        try:
            decoded = base64.urlsafe_b64decode((nonce or "") + "==")
        except (binascii.Error, ValueError):
            return False
        moment, code = decoded[:_NONCE_TIME_BYTES], decoded[_NONCE_TIME_BYTES:]
        expected = self._seal.mac(moment)[:_NONCE_MAC_BYTES]
        is_ours = len(moment) == _NONCE_TIME_BYTES and hmac.compare_digest(code, expected)
        # One from the future is that of a replica whose clock is ahead.
        made_at = int.from_bytes(moment)
        return is_ours and is_within(made_at, now, NONCE_TTL_S, skew_s=NONCE_TTL_S)


def read_dpop(authorization: Collection[bytes]) -> bytes | None:
    """The token in an Authorization header of the DPoP scheme, None where there is none."""
    for value in authorization:
        if len(authorization) == 1 and (match := _DPOP.fullmatch(value)):
            return match[1]
    return None


def _read_proof(value: bytes) -> tuple[Jwt, str]:
    try:
        token = value.decode("ascii")
        header: Mapping[str, object] = read_jwt(token).header
        key = read_public_key(header.get("jwk"))
        if header.get("typ") != "dpop+jwt" or key is None:
            raise DpopError("The proof is not of type dpop+jwt with a public key.")
        return verify_jwt(token, [key], DPOP_ALGORITHMS.split()), key.thumbprint()
    except (JwtError, UnicodeDecodeError):
        raise DpopError("The proof is not signed by the key that it holds.") from None


def _is_for(url: str | None, origins: Collection[str], path: str) -> bool:
    """Whether `htu` is this request's URL, query and fragment aside (RFC 9449 section 4.3)."""
    try:
        parts = urlsplit(url or "")
        if parts.username is not None or not parts.hostname:
            return False
        origin = _origin(parts.scheme, parts.hostname, parts.port)
        return origin in {_split_origin(known) for known in origins} and unquote(
            parts.path or "/"
        ) == unquote(path)
    except ValueError:
        return False


def _split_origin(origin: str) -> tuple[str, str, int | None]:
    parts = urlsplit(origin)
    return _origin(parts.scheme, parts.hostname or "", parts.port)


def _origin(scheme: str, host: str, port: int | None) -> tuple[str, str, int | None]:
    scheme = scheme.lower()
    return scheme, host.lower(), port or _DEFAULT_PORTS.get(scheme)


def _encode(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")
