"""The bottleneck sentence of a run that is being watched, refreshed in the background."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

from headrace.common.errors import UsageError
from headrace.observe import endpoints, trouble
from headrace.observe.bottleneck import judge
from headrace.observe.scrape import Scrape, scrape


class Watch:
    """Asks all roles of a run every ``every_s`` seconds, in a thread, so that a role that hangs does not hold up the
    one who watches; there is never more than one round under way."""

    def __init__(self, run_dir: Path, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._run_dir, self._every_s, self._clock = run_dir, every_s, clock
        self._due_s = clock() + every_s
        self._before: Sequence[Scrape] = ()
        self._sentence, self._unknown = "", False
        self._round: Thread | None = None

    def sentence(self) -> str:
        """The latest verdict in words, "" before the first. Returns at once."""
        if self._clock() >= self._due_s and (self._round is None or not self._round.is_alive()):
            self._due_s = self._clock() + self._every_s
            self._round = Thread(target=self._ask, name="watch", daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread begins while the interpreter ends
                self._round.start()
        return self._sentence

    def _ask(self) -> None:
        try:
            after = scrape(endpoints.read(self._run_dir))
        except UsageError as error:
            self._sentence = str(error)
            return
        verdict = judge(after, self._before, trouble.last_words(self._run_dir))
        # At the start and at the end nobody has to know why nothing is known.
        unknown = verdict.name == "unknown"
        self._sentence = "" if unknown and not self._unknown else verdict.sentence
        self._unknown, self._before = unknown, after
