"""The Prometheus operator's kinds, by the models that cloudcoil makes of its CRDs."""

from __future__ import annotations

from typing import Any

from support.deploy_tools import Object


def check_operator_object(one: Object) -> None:
    """Fails where the object has a wrong or an unknown key."""
    # Slow to import, and few tests need it.
    from cloudcoil.models.prometheus_operator import v1  # noqa: PLC0415

    model = getattr(v1, one["kind"])
    parsed = model.model_validate(one)
    # The models ignore what they don't know: it is missing in what they give back.
    back = parsed.model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert _without_none(back) == _without_none(one)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
