"""Whatever is done to a rotating family, in whatever order, what is promised of it holds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.provider import open_provider
from support.refreshing import allow, begin, is_good, refresh, refresh_token, register
from support.secrets_scan import SEEN

GRACE_S = 10.0
Result = TypeVar("Result")


class RefreshChain(RuleBasedStateMachine):
    """A model of one family: which of its tokens is live, and which is given once more."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.opened = open_provider(Path(self.directory.name))
        self.provider = self.run(self.opened.__aenter__())
        allow(self.provider, reuse_grace_s=GRACE_S)
        self.run(register(self.provider))
        issued = self.run(begin(self.provider.server))
        self.tokens = [refresh_token(issued)]
        """All there ever were, oldest first."""
        self.access_tokens = [issued.access_token]
        self.rotated_at = float("-inf")
        self.has_ended = False

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for something."""
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        """Close the store."""
        self.run(self.opened.__aexit__(None, None, None))
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        leaks = [*SEEN.find_below(Path(self.directory.name))]
        self.directory.cleanup()
        assert not leaks

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0, 60.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.provider.clock.now += seconds

    @rule(back=st.integers(0, 3), at_once=st.integers(1, 3))
    def use(self, back: int, at_once: int) -> None:
        """Somebody uses one of the tokens, maybe several times at once."""
        at = max(0, len(self.tokens) - 1 - back)
        value, is_current = self.tokens[at], at == len(self.tokens) - 1
        in_grace = self.provider.clock.now - self.rotated_at < GRACE_S
        is_repeated = at == len(self.tokens) - 2 and in_grace
        replies = [self.run(self.use_together(value)) for _ in range(at_once)]
        if self.has_ended or not (is_current or is_repeated):
            self.has_ended = True
            assert {reply.error for reply in replies} == {(400, "invalid_grant")}
            return
        assert {reply.status for reply in replies} == {200}
        (successor,) = {reply.json["refresh_token"] for reply in replies}
        self.access_tokens += [reply.json["access_token"] for reply in replies]
        if is_current:
            assert successor not in self.tokens
            self.tokens.append(successor)
            self.rotated_at = self.provider.clock.now
        else:
            assert successor == self.tokens[-1]

    async def use_together(self, value: str) -> Any:
        """One use."""
        return await refresh(self.provider, value)

    @precondition(lambda self: not self.has_ended)
    @rule(at=st.integers(0, 5))
    def revoke(self, at: int) -> None:
        """The client revokes one of its tokens."""
        everything = [*self.tokens, *self.access_tokens[-15:]]
        assert self.run(self.provider.server.revoke_token(everything[at % len(everything)]))
        self.has_ended = True

    @invariant()
    def at_most_one_refresh_token_lives(self) -> None:
        """And it is the newest one; after reuse none lives."""
        inspect = self.provider.server.refresh_tokens.inspect
        live = [value for value in self.tokens if self.run(inspect(value)) is not None]
        assert live == ([] if self.has_ended else self.tokens[-1:])

    @invariant()
    def access_tokens_end_with_the_family(self) -> None:
        """Within the process at once."""
        recent = self.access_tokens[-5:]
        states = {self.run(is_good(self.provider, token)) for token in recent}
        assert states == {not self.has_ended}


def test_chain_of_refresh_tokens_keeps_its_promises() -> None:
    run_state_machine_as_test(
        RefreshChain,
        settings=settings(
            deadline=None,
            max_examples=25,
            stateful_step_count=15,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
