"""The watch on the files of a configuration, where the process has nothing left to read them by."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from pathlib import Path

import pytest
from support.deadlines import until
from support.descriptors import no_descriptor_left

from gateway.app.reloading.watching import Files, FileWatch


def test_file_that_cannot_be_opened_for_now_is_read_later(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("store: none\n")
    files = Files()
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        files.digests([file])
    assert files.digests([file]) == {file: sha256(file.read_bytes()).digest()}


async def test_lack_of_descriptors_is_no_change_of_the_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("store: none\n")
    expected = {file: sha256(file.read_bytes()).digest()}
    reloads: list[float] = []

    async def reload() -> None:
        reloads.append(time.monotonic())

    watch = FileWatch(
        expected=lambda: expected, on_change=reload, interval_s=lambda: 0.01,
        debounce_s=lambda: 0.0,
    )  # fmt: skip
    watching = asyncio.create_task(watch.run())
    with no_descriptor_left() as take_what_was_closed:

        def is_logged() -> bool:
            take_what_was_closed()
            return "watch on the files of the configuration" in caplog.text

        await until(is_logged)
    assert reloads == []
    assert "Too many open files" in caplog.text
    assert "Traceback" not in caplog.text
    file.write_text("store: sqlite:///./other.db\n")
    await until(lambda: bool(reloads))
    watching.cancel()
