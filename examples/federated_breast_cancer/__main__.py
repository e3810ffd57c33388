# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the demo: python -m federated_breast_cancer --help (in the folder `examples`)."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from urllib.parse import urlsplit

from .story import DemoError, Story


def arguments() -> argparse.Namespace:
    """Reads the command line. Passwords are never on it: they are read from the identity files."""
    parser = argparse.ArgumentParser(prog="federated_breast_cancer", description=__doc__)
    parser.add_argument("--network", nargs=2, metavar=("NAME", "URL"), default=("net", "http://127.0.0.1:7000"))
    parser.add_argument(
        "--domain",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "URL", "IDENTITY_FILE"),
        help="a Domain and the identity.json with its owner's account; give it once for each Domain",
    )
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER", help="for the plot and results.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--job-timeout-seconds", type=float, default=120)
    parser.add_argument("--tolerance-points", type=float, default=2, help="percentage points from the central model")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    return given


def urls_of(given: argparse.Namespace) -> list[str]:
    """Returns the URLs of all nodes."""
    return [given.network[1], *(url for _name, url, _identity in given.domain)]


def play(given: argparse.Namespace, story: Story) -> None:
    """Imports what needs the prepared surroundings, and runs the demo."""
    missing = [name for name in ("syft", "sklearn", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"{sys.executable} has no {', '.join(missing)}: the release needs `pygrid_worker_packages: [scikit-learn]`"
        )
    story.tell("A breast cancer model from patients of two owners, who show them to nobody (loading syft ...)")
    from .demo import Demo, Plan
    from .nodes import DomainAddress

    plan = Plan(
        network_name=given.network[0],
        network_url=given.network[1],
        domains=[DomainAddress(name, url, Path(file).resolve()) for name, url, file in given.domain],
        results=given.results,
        rounds=given.rounds,
        job_timeout_seconds=given.job_timeout_seconds,
        tolerance_points=given.tolerance_points,
    )
    Demo(plan, story).play()


def main() -> int:
    """Returns the exit code: 0, or 1 after one line that says why."""
    given = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # approvals are taken back then, too
    given.results = given.results.resolve()
    given.results.mkdir(parents=True, exist_ok=True)
    story = Story(sys.stdout)
    log = given.results / "syft-client.log"
    with tempfile.TemporaryDirectory(prefix="pygrid-demo-") as scratch, log.open("w") as chatter:
        # The syft client and matplotlib write caches to wherever these point.
        for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR"):
            os.environ[variable] = scratch
        for variable in ("NO_PROXY", "no_proxy"):  # the nodes are near, whatever leads to the world
            os.environ[variable] = ",".join(urlsplit(url).hostname or "" for url in urls_of(given))
        tempfile.tempdir = scratch
        with contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
            try:
                play(given, story)
                return 0
            except DemoError as error:
                reason = str(error)
            except KeyboardInterrupt:
                reason = "interrupted"
            except Exception as error:
                traceback.print_exc()
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else 'no message'}"
                reason += f" (details in {log})"
    print(f"demo failed: {reason}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
