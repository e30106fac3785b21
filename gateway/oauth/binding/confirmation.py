"""Binds new tokens to the key or the certificate that the token request proves to hold.

RFC 9449 section 5, RFC 8705 section 3. The outcome is the token's `cnf` claim (RFC 7800).
"""

from __future__ import annotations

from gateway.http.fields import RawHeaders, header_values
from gateway.oauth.authentication import AuthenticatedClient
from gateway.oauth.binding.certificates import certificate_thumbprint
from gateway.oauth.binding.dpop import USED_PROOF, DpopError, DpopProofs
from gateway.oauth.errors import InvalidDpopProofError, InvalidRequestError, UseDpopNonceError
from gateway.oauth.models import Record, RecordStore, client_owner
from gateway.oauth.policy import ProviderPolicy


class TokenBinder:
    """Binds the tokens of a token endpoint."""

    def __init__(self, records: RecordStore, proofs: DpopProofs, policy: ProviderPolicy) -> None:
        self._records = records
        self._proofs = proofs
        self._policy = policy

    async def confirm(
        self, client: AuthenticatedClient, headers: RawHeaders, certificate: bytes | None
    ) -> dict[str, str]:
        """The `cnf` claim for a token of this client, empty where it is bound to nothing.

        Raises `InvalidDpopProofError`, `UseDpopNonceError`, `InvalidRequestError` and
        `StoreUnavailableError`.
        """
        confirmation: dict[str, str] = {}
        if header_values(headers, b"dpop"):
            confirmation["jkt"] = await self._prove_key(client, headers)
        elif client.metadata.dpop_bound_access_tokens:
            raise InvalidDpopProofError("The tokens of this client need a DPoP proof.")
        if client.metadata.tls_client_certificate_bound_access_tokens:
            if certificate is None:
                raise InvalidRequestError("The tokens of this client need its certificate.")
            confirmation["x5t#S256"] = certificate_thumbprint(certificate)
        return confirmation

    async def _prove_key(self, client: AuthenticatedClient, headers: RawHeaders) -> str:
        try:
            proof = self._proofs.verify(
                headers,
                method="POST",
                origins=(self._policy.origin,),
                path=self._policy.token_path,
            )
        except DpopError as error:
            if error.nonce:
                raise UseDpopNonceError(error.nonce) from None
            raise InvalidDpopProofError(error.description) from None
        is_first = await self._records.add_record(
            Record(
                kind=USED_PROOF,
                key=proof.identity,
                owner=client_owner(client.client.client_id),
                value=b"",
                expires_at=proof.ends_at,
            )
        )
        if not is_first:
            raise InvalidDpopProofError("The proof was used before.")
        return proof.key
