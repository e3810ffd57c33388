# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a Python environment inside the checkout from a lock file; at once if it is there already.

    python3 requirements/environment.py FOLDER LOCK

Needs nothing but the standard library, and parses on old Pythons so that they get an answer they can act on.
The first environment is filled by pip, later ones by the uv that it contains, which takes seconds instead of a minute.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 10)
CHECKOUT = Path(__file__).resolve().parent.parent
UV = CHECKOUT / ".tools" / "deploy" / "bin" / "uv"
CACHE = CHECKOUT / ".cache" / "uv"


def main() -> None:
    """Check this Python, then make the environment unless a complete one is there."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    # Not resolved: a link that the user reaches the checkout by may stay in the path.
    folder, lock = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()
    # The scripts of an environment hold its path, so a checkout that was moved needs a new one.
    stamp = hashlib.sha256(bytes(folder) + b"\0" + lock.read_bytes()).hexdigest()
    if is_complete(folder, stamp):
        return
    check_python()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock_held:
        fcntl.flock(lock_held, fcntl.LOCK_EX)  # two makes at the same time: the second one waits and finds it made
        if not is_complete(folder, stamp):
            print(f"Making {sys.argv[1]} from {sys.argv[2]} (once)", file=sys.stderr, flush=True)
            make(folder, lock)
            (folder / "complete").write_text(stamp)


def is_complete(folder: Path, stamp: str) -> bool:
    """Tell whether the last step of `make` was reached with this lock, and the Python it was made with still exists."""
    try:
        return (folder / "bin" / "python").exists() and (folder / "complete").read_text() == stamp
    except OSError:
        return False


def check_python() -> None:
    """End with one line that says what to do if this Python cannot make the environment."""
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(str(part) for part in sys.version_info[:3])
        oldest = ".".join(str(part) for part in OLDEST_PYTHON)
        sys.exit(
            f"Python {oldest} or newer is needed, {sys.executable} is {version}. "
            f"Install a newer one and name it: make PYTHON=python{oldest} ..."
        )
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        sys.exit(
            f"{sys.executable} cannot make virtual environments: its venv or ensurepip module is missing. "
            "On Debian and Ubuntu: apt install python3-venv"
        )


def make(folder: Path, lock: Path) -> None:
    """Fill a new environment; whatever an interrupted run left there is removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    with_uv = UV.exists() and not UV.is_relative_to(folder)
    run([sys.executable, "-m", "venv", *(["--without-pip"] if with_uv else []), folder])
    if with_uv:
        command = [UV, "pip", "install", "--quiet", "--cache-dir", CACHE, "--compile-bytecode", "--python", folder]
    else:
        command = [folder / "bin" / "pip", "install", "--quiet", "--no-input", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--no-warn-script-location"]
    run([*command, "--require-hashes", "-r", lock])


def run(command: "list[str | Path]") -> None:
    """Run a command and leave with its exit status if it fails; it has said why."""
    # An activated environment or a PYTHONPATH of the user must not leak into the one being made.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    status = subprocess.run([str(part) for part in command], env=environment, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
