"""Reloads the configuration: one attempt after the other, each accounted for.

An attempt reads everything and builds everything before anything is changed. Where one part
of it fails, none of it is done.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from gateway.app.build.checks import find_unusable_files
from gateway.app.generation import requests_first
from gateway.app.reloading.changes import (
    Named,
    describe_changed_files,
    describe_changes,
    describe_config,
    find_restarts,
)
from gateway.app.reloading.watching import FileWatch, find_special_files, read_digest
from gateway.config import Config, ConfigError, LoadedConfig, config_hash, load, named_files
from gateway.metrics import Metrics
from gateway.reloads import Change, Reload, ReloadLog, Trigger

MAX_LOGGED_CHANGES = 50

_log = logging.getLogger(__name__)


class ReloadError(Exception):
    """A configuration cannot be activated. The text says why."""


class Reloader:
    """The configuration that serves, and the way to the next one."""

    def __init__(
        self,
        loaded: LoadedConfig,
        *,
        apply: Callable[[Config], Awaitable[None]],
        metrics: Metrics,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`apply` puts a configuration to use, wholly or not at all; it raises `OSError` or
        `ReloadError` where it can't."""
        self._loaded = loaded
        self._path = Path(loaded.file)
        self._apply = apply
        self._metrics = metrics
        self._environ = environ
        self._clock = clock
        self._wall_clock = wall_clock
        self._named = _read_named(loaded.config)
        self._seen = _seen(loaded.files, self._named)
        """What the files held at the last attempt, whatever became of it."""
        self._special = find_special_files(self._seen)
        """Pipes and the like: what is read from them is gone, and the next read may never end."""
        for path in self._special:
            _log.warning("%s is no regular file: the configuration can't be reloaded", path)
        self._one_at_a_time = asyncio.Lock()
        self._log = ReloadLog()
        self._waiting: set[asyncio.Task[object]] = set()
        self._watch = FileWatch(
            expected=lambda: self._watched() if self.config.reload.watch else {},
            on_change=lambda: self.reload("file"),
            interval_s=lambda: self.config.reload.interval,
            debounce_s=lambda: self.config.reload.debounce,
        )
        metrics.process.config_reload_succeeded.set(1)
        metrics.process.config_reload_time.set(wall_clock())

    @property
    def config(self) -> Config:
        """The configuration that serves."""
        return self._loaded.config

    def recent(self) -> Sequence[Reload]:
        """The last attempts, the newest first."""
        return self._log.recent()

    def configuration(self) -> Sequence[tuple[str, str]]:
        """Each key in effect with its value, secrets masked."""
        return describe_config(self._loaded)

    def start(self) -> None:
        """Watch the files."""
        self._keep(self._watch.run())

    async def stop(self) -> None:
        """Watch the files no more, and begin no other attempt."""
        tasks = tuple(self._waiting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def request(self, trigger: Trigger) -> None:
        """Have an attempt made, without waiting for it."""
        self._keep(self.reload(trigger))

    def _keep(self, work: Awaitable[object]) -> None:
        task: asyncio.Task[object] = asyncio.ensure_future(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def reload(self, trigger: Trigger) -> Reload:
        """Load the file and put it to use. What became of it; raises nothing."""
        async with self._one_at_a_time:
            started = self._clock()
            problems: tuple[str, ...] = ()
            changes: tuple[Change, ...] = ()
            try:
                with requests_first():
                    changes = await self._attempt()
            except ConfigError as error:
                problems = tuple(map(str, error.problems))
            except (OSError, ReloadError) as error:
                problems = (f"{self._path}: {error}",)
            except Exception as error:
                _log.exception("a reload failed")
                problems = (f"{self._path}: the gateway failed: {type(error).__name__}",)
            reload = Reload(
                at=self._wall_clock(),
                trigger=trigger,
                result="error" if problems else "ok",
                duration_s=self._clock() - started,
                problems=problems,
                changes=changes,
                config_hash=await asyncio.to_thread(config_hash, self.config),
            )
            self._account_for(reload)
            return reload

    def _watched(self) -> dict[Path, bytes | None]:
        return {path: seen for path, seen in self._seen.items() if path not in self._special}

    async def _attempt(self) -> tuple[Change, ...]:
        for path in self._special:
            raise ReloadError(f"{path} is no regular file and can't be read again: restart")
        # In a thread: requests go on while a long file is read.
        try:
            loaded = await asyncio.to_thread(load, self._path, environ=self._environ)
        except ConfigError as error:
            self._seen = {**self._look_again(), **error.files}
            raise
        named = await asyncio.to_thread(_read_named, loaded.config)
        self._seen = _seen(loaded.files, named)
        if problems := await asyncio.to_thread(find_restarts, self.config, loaded):
            raise ConfigError(problems)
        if problems := await asyncio.to_thread(find_unusable_files, loaded):
            raise ConfigError(problems)
        changes = await asyncio.to_thread(self._describe, loaded, named)
        await self._apply(loaded.config)
        before, self._loaded, self._named = self._loaded, loaded, named
        # Very many objects go with each of them: with the generation in the next turn of the loop,
        # with what was loaded in the one after it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del before
        await asyncio.sleep(0)
        return changes

    def _describe(self, loaded: LoadedConfig, named: Named) -> tuple[Change, ...]:
        return (
            *describe_changes(self._loaded, loaded),
            *describe_changed_files(self._named, named),
        )

    def _look_again(self) -> dict[Path, bytes | None]:
        """Return the digests of the files of the last attempt: a change in one of them may be what
        is wrong, and a change back what mends it."""
        return {path: read_digest(path) for path in self._seen}

    def _account_for(self, reload: Reload) -> None:
        self._log.add(reload)
        metrics = self._metrics
        metrics.process.config_reloads[reload.result] += 1
        metrics.process.config_reload_succeeded.set(reload.result == "ok")
        if reload.result == "error":
            _log.error(
                "reload (%s): rejected; keeping the previous configuration: %s",
                reload.trigger,
                "; ".join(reload.problems),
            )
            return
        metrics.process.config_reload_time.set(reload.at)
        metrics.process.config_hash.info({"hash": reload.config_hash})
        shown = [str(change) for change in reload.changes[:MAX_LOGGED_CHANGES]]
        if len(reload.changes) > MAX_LOGGED_CHANGES:
            shown.append(f"and {len(reload.changes) - MAX_LOGGED_CHANGES} more")
        _log.info(
            "reload (%s): ok in %.0f ms, %s",
            reload.trigger,
            reload.duration_s * 1000,
            "; ".join(shown) or "nothing has changed",
        )


def _read_named(config: Config) -> Named:
    return {place: (path, read_digest(path)) for place, path in named_files(config)}


def _seen(files: Mapping[Path, bytes | None], named: Named) -> dict[Path, bytes | None]:
    return {**dict(named.values()), **files}
