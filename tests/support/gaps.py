# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a node answers nobody: asks each URL again and again, and prints the longest pause between two answers.

python gaps.py CA_FILE STOP_FILE URL...

Every request is a new connection and is not repeated. Prints "ready", and when STOP_FILE is there one line of JSON:
URL -> answers, failed (texts) and longest_gap_seconds.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

PAUSE_SECONDS = 0.05
TIMEOUT_SECONDS = 600


class Asker(threading.Thread):
    """Asks one URL."""

    def __init__(self, url: str, context: ssl.SSLContext, stop: Path) -> None:
        super().__init__()
        # threading.Thread has a _stop of its own.
        self.url, self._context, self._stop_file = url, context, stop
        self.answers: list[float] = []
        self.failed: list[str] = []

    def run(self) -> None:
        while not self._stop_file.exists():
            try:
                with urllib.request.urlopen(  # noqa: S310 - the URL of our own test
                    f"{self.url}/api/v2/metadata", timeout=TIMEOUT_SECONDS, context=self._context
                ) as answer:
                    answer.read()
                self.answers.append(time.monotonic())
            except OSError as error:
                self.failed.append(str(error)[:200])
            time.sleep(PAUSE_SECONDS)

    def report(self) -> dict[str, object]:
        gap = max((later - earlier for earlier, later in pairwise(self.answers)), default=0.0)
        return {"answers": len(self.answers), "failed": self.failed, "longest_gap_seconds": round(gap, 2)}


def main() -> None:
    """Ask until told to stop."""
    authority, stop, *urls = sys.argv[1:]
    context = ssl.create_default_context(cafile=authority)
    askers = [Asker(url, context, Path(stop)) for url in urls]
    for asker in askers:
        asker.start()
    print("ready", flush=True)
    for asker in askers:
        asker.join()
    print(json.dumps({asker.url: asker.report() for asker in askers}))


if __name__ == "__main__":
    main()
