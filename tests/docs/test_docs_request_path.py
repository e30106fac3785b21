"""docs/explanation/request-path.md has the stages of the pipeline, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from gateway.access_log import NoAccessLog
from gateway.metrics import Metrics
from gateway.oauth.endpoints.paths import ProviderPaths
from gateway.proxy import pipeline
from gateway.proxy.pipeline import build_pipeline
from gateway.proxy.request_log import RequestLog
from gateway.proxy.router import Router

TEXT = (Path(__file__).parents[2] / "docs" / "explanation" / "request-path.md").read_text()
NOTHING: Any = cast(Any, None)


def stages() -> list[str]:
    router = Router(())
    router.uses_mcp = router.uses_responders = True  # with all stages
    endpoints: Any = SimpleNamespace(known_paths=ProviderPaths({"/token"}))
    built = build_pipeline(
        router=router,
        validator=NOTHING,
        endpoints=endpoints,
        log=RequestLog(Metrics(), NoAccessLog()),
    )
    return [stage.__name__ for stage in built.stages]


def test_headings_are_the_stages_in_order() -> None:
    headings = re.findall(r"^## ([0-9]+)\. (\w+)$", TEXT, re.MULTILINE)
    assert [name for _, name in headings] == stages()
    assert [int(number) for number, _ in headings] == list(range(1, 11))


def test_page_of_the_pipeline_names_the_stages_in_order() -> None:
    page = pipeline.__doc__ or ""
    assert re.findall(r"^    (\w+)  ", page, re.MULTILINE) == stages()
