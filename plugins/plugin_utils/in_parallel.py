# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking many places at once, each again after a failure that passes, none longer than the limit."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

Place = TypeVar("Place")
Answer = TypeVar("Answer")

# The pause after the first failure; each further one is twice as long.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0


class PassingError(PygridError):
    """What may be well a moment later: a time-out, too many requests, a server that has a bad moment."""


@dataclass
class Limits:
    """``seconds``: until every place has answered, with all tries; ``threads``: how many are asked at once."""

    seconds: float
    threads: int


@dataclass
class Answers(Generic[Place, Answer]):
    """What came back: from each place either an answer, or why there is none."""

    good: dict[Place, Answer]
    failed: dict[Place, str]


def ask_all(
    places: Iterable[Place],
    ask: Callable[[Place], Answer],
    limits: Limits,
    tell: Callable[[str], None] = lambda _sentence: None,
) -> Answers[Place, Answer]:
    """Ask all places at once and wait for them.

    Args:
        ask: returns a place's answer or raises PygridError; after a PassingError it is called again.
        tell: is called, in a thread of its own, with a sentence about each try that failed.
    """
    places = list(places)
    until = time.monotonic() + limits.seconds
    waiting: queue.SimpleQueue[Place] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Place, Answer | None, str | BaseException | None]] = queue.SimpleQueue()
    for place in places:
        waiting.put(place)
    last: dict[Place, str] = {}

    def note(place: Place, error: PassingError, rest_seconds: float) -> None:
        last[place] = str(error)
        tell(f"{place}: {error}; asking again in {rest_seconds:.1f} s")

    def work() -> None:
        while True:
            try:
                place = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((place, _ask_again(place, ask, until, note), None))
            except PygridError as error:
                done.put((place, None, str(error)))
            except BaseException as error:  # a defect of ours: it is raised again where it is seen
                done.put((place, None, error))

    # Daemons: a connection that does not come to an end must not keep the command from ending.
    for _number in range(min(limits.threads, len(places))):
        threading.Thread(target=work, daemon=True).start()
    answers: Answers[Place, Answer] = Answers({}, {})
    missing = dict.fromkeys(places)
    while missing:
        try:
            place, answer, problem = done.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        del missing[place]
        if isinstance(problem, BaseException):
            raise problem
        if problem is None:
            answers.good[place] = answer  # type: ignore[assignment]
        else:
            answers.failed[place] = problem
    for place in missing:
        said = f"; the last try: {last[place]}" if place in last else ""
        answers.failed[place] = f"no whole answer within {limits.seconds:g} s (option limit_seconds){said}"
    answers.good = {place: answers.good[place] for place in places if place in answers.good}
    return answers


def _ask_again(
    place: Place, ask: Callable[[Place], Answer], until: float, note: Callable[[Place, PassingError, float], None]
) -> Answer:
    pause, tries = FIRST_PAUSE_SECONDS, 1
    while True:
        try:
            return ask(place)
        except PassingError as error:
            # Spread, so that many places that were refused together do not come back together.
            rest = pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
            if time.monotonic() + rest > until:
                raise PygridError(f"{error} (tried {tries} times)") from error
            note(place, error, rest)
            time.sleep(rest)
            pause, tries = min(2 * pause, LONGEST_PAUSE_SECONDS), tries + 1
