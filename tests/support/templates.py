"""Compiles each template once in the process of the tests.

A gateway compiles those that it renders, once; tests start a gateway each, and most of what one
of the console or of a sign-in cost was to compile the same pages again.
"""

from __future__ import annotations

import functools
from types import CodeType

from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket

from gateway.web import templating


class CompiledTemplates(BytecodeCache):
    """Keeps code in memory, by the template and its source."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key, bucket.checksum] = bucket.code


def compile_templates_once() -> None:
    """Have all gateways that are started from now on share the code of their templates."""
    vars(templating)["Environment"] = functools.partial(
        Environment, bytecode_cache=CompiledTemplates()
    )
