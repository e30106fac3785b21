"""How client secrets are hashed and verified."""

from __future__ import annotations

import argon2
import pytest

from gateway.oauth.credentials import SecretHasher


class Watched(SecretHasher):
    """Keeps what secrets are compared with."""

    def _verify(self, secret: str, secret_hash: str) -> bool:
        self.compared_with = secret_hash
        return super()._verify(secret, secret_hash)


@pytest.mark.usefixtures("real_hashes")
async def test_secret_costs_the_work_that_owasp_recommends_at_least() -> None:
    hasher = SecretHasher()
    parameters = argon2.extract_parameters(await hasher.hash("any secret"))
    await hasher.close()
    assert parameters.type is argon2.Type.ID
    assert parameters.memory_cost >= 19 * 1024
    assert parameters.time_cost >= 2


async def test_unknown_client_costs_the_work_of_a_known_one_and_nothing_to_prepare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:

        def fail(*arguments: object) -> str:
            raise AssertionError("a hash takes 40 ms of the event loop")

        patch.setattr(argon2.PasswordHasher, "hash", fail)
        hashers = [Watched() for _ in range(2)]
    dummies = []
    for hasher in hashers:
        assert not await hasher.verify("any secret", None)
        dummies.append(hasher.compared_with)
        real = await hasher.hash("any secret")
        assert argon2.extract_parameters(hasher.compared_with) == argon2.extract_parameters(real)
        assert len(hasher.compared_with) == len(real)
        assert await hasher.verify("any secret", real)
        await hasher.close()
    assert dummies[0] != dummies[1]
