# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the project's checks, all of them even when one fails, and say at the end how each went.

`make test` runs everything, `make lint` (unit, sanity, clouds, e2e) one part, `make scenario S=name` one molecule
scenario. Everything is three lanes side by side, because none alone keeps a whole processor busy: the short checks, the
promises to users, the molecule scenarios. What a step prints is shown when it ends, so that they do not mix.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

from lab import machine
from lab.prepare import images, install_servers, prepare

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = CHECKOUT / ".cache"
TOOLS = CHECKOUT / ".tools" / "test" / "bin"
HOME = CACHE / "home"
PRISM = "@stoplight/prism-cli@5"
SYFT_LOCK = "roles/node/files/locks/syft-0.9.5.txt"
#: A molecule scenario with this file in its folder is only run by name; the file says why.
BY_HAND = "by-hand.txt"


@dataclass
class Result:
    """How one step went."""

    title: str
    seconds: float
    passed: bool
    #: Why it was not run, if it was not.
    left_out: str = ""

    @property
    def outcome(self) -> str:
        return "left out" if self.left_out else "passed" if self.passed else "FAILED"


@dataclass
class Runner:
    """Runs steps, one after another, and remembers how each went."""

    environment: dict[str, str]
    #: Whether steps run side by side: then the output of each waits until it ends.
    side_by_side: bool = False
    results: list[Result] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _terminal: Lock = field(default_factory=Lock)

    def step(self, title: str, *command: str | Path, folder: Path = CHECKOUT) -> bool:
        """Run one command under a heading. Returns whether it passed."""
        words = [str(word) for word in command]
        heading = f"\n=== {title}: {shlex.join([Path(words[0]).name, *words[1:]])}"
        started = time.monotonic()
        with TemporaryFile("w+", errors="replace") as kept:
            print(f"\n... {title} begins" if self.side_by_side else heading, flush=True)
            output = kept if self.side_by_side else None
            try:
                streams = {"stdout": output, "stderr": output}
                code = subprocess.run(words, cwd=folder, env=self.environment, check=False, **streams).returncode
                passed = code == 0
            except OSError as error:
                print(f"cannot run {words[0]}: {error}", file=output, flush=True)
                passed = False
            result = Result(title, time.monotonic() - started, passed)
            with self._terminal:
                if self.side_by_side:
                    print(heading)
                    kept.seek(0)
                    shutil.copyfileobj(kept, sys.stdout)
                print(f"--- {title}: {'passed' if passed else 'FAILED'} in {result.seconds:.1f} s", flush=True)
                self.results.append(result)
        return passed

    def leave_out(self, title: str, reason: str) -> None:
        """Remember a step that this machine cannot run."""
        print(f"\n=== {title}: left out, {reason}", flush=True)
        self.results.append(Result(title, 0, passed=False, left_out=reason))

    def summary(self) -> bool:
        """Print one line for each step and a last one for all. Returns whether everything that was run passed."""
        print("\n=== summary")
        for result in self.results:
            because = f": {result.left_out}" if result.left_out else ""
            print(f"  {result.outcome:8}  {result.seconds:7.1f} s  {result.title}{because}")
        titles = {
            outcome: [result.title for result in self.results if result.outcome == outcome]
            for outcome in ("passed", "FAILED", "left out")
        }
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        verdict = f"FAILED: {', '.join(titles['FAILED'])}" if titles["FAILED"] else "all passed"
        if titles["left out"]:
            verdict += f", LEFT OUT on this machine: {', '.join(titles['left out'])}"
        print(f"{len(self.results)} checks in {minutes} min {seconds} s: {verdict}", flush=True)
        return bool(titles["passed"]) and not titles["FAILED"]


def lint(run: Runner) -> None:
    """Style and correctness of every file, without running any of it."""
    run.step("ruff check", "ruff", "check")
    run.step("ruff format", "ruff", "format", "--check")
    run.step("yamllint", "yamllint", "--strict", ".")
    run.step("ansible-lint", "ansible-lint", "--offline", "--strict", "--profile", "production")
    run.step("collection docs", "antsibull-docs", "lint-collection-docs", "--plugin-docs", ".")
    run.step("changelog", "antsibull-changelog", "lint")


def unit(run: Runner) -> None:
    """Functions by themselves."""
    install_servers(run.step)
    run.step("unit", sys.executable, "-m", "pytest", "tests/unit")


def sanity(run: Runner) -> None:
    """Ansible's own checks, on the collection as a user installs it."""
    installed = CACHE / "sanity"
    shutil.rmtree(installed, ignore_errors=True)
    build = ("ansible-galaxy", "collection", "build", "--force", "--output-path", installed)
    if not run.step("collection build", *build):
        return
    archive = next(installed.glob("*.tar.gz"))
    # By force, because it is found as installed already: as the checkout.
    install = ("ansible-galaxy", "collection", "install", archive, "--no-deps", "--force", "-p", installed)
    if not run.step("collection install", *install):
        return
    provide_pip(HOME)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = installed / "ansible_collections" / "openmined" / "pygrid"
    # ansible-test asks the nearest repository which files there are; the checkout's would say none, all are ignored.
    if run.step("repository", "git", "init", "--quiet", folder):
        (folder / ".git" / "info" / "exclude").write_text("/tests/output/\n")
    run.step("sanity", "ansible-test", "sanity", "--venv", "--python", python, "--color", "no", folder=folder)


def provide_pip(home: Path) -> None:
    """Let ansible-test fill its virtual environments from wherever pip gets its packages on this machine.

    It would fetch a script from a server of its own, and hides pip's settings in the environment from pip. It looks for
    the script in its cache first, under the version of pip that it wants.
    """
    import ansible_test._internal.python_requirements as requirements

    source = Path(requirements.__file__).read_text()
    wanted = re.findall(r"\bpip='([0-9.]+)'", source)
    if not wanted:
        sys.exit(f"{requirements.__file__} does not say which pip it wants any more: adapt tests/run.py")
    script = """
import subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip"])
words = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--upgrade", *words]))
"""
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in wanted:
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(script)
    settings = home / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.unlink(missing_ok=True)
    settings.touch(mode=0o600)  # an index may be reached with a password
    options = {"quiet": "1", **pip_settings()}
    settings.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))


def pip_settings() -> dict[str, str]:
    """Read what pip uses on this machine, from its files and its environment variables (which win)."""
    deploy_pip = CHECKOUT / ".tools" / "deploy" / "bin" / "pip"
    listed = subprocess.run([deploy_pip, "config", "list"], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, value = line.split("=", 1)
        section, option = name.rsplit(".", 1)
        if section in ("global", "install", ":env:"):
            found[option] = value.strip("'\"").replace("\\n", "\n    ")
    return found


def e2e(run: Runner) -> None:
    """What the user was promised, with real nodes and real clients."""
    install_servers(run.step)
    if syft_environment(run):
        run.step("e2e", sys.executable, "-m", "pytest", "tests/e2e")


def clouds(run: Runner) -> None:
    """Inventories against API servers of clouds on this machine."""
    # Checks requests and answers with the description of a cloud's API.
    if shutil.which("npm"):
        folder = CACHE / "prism"
        if run.step("prism", "npm", "install", "--silent", "--no-audit", "--prefix", folder, PRISM):
            run.environment["PYGRID_TEST_PRISM"] = str(folder / "node_modules" / ".bin" / "prism")
    else:
        run.leave_out("prism", "npm is not there")
    # A Docker daemon that is nobody else's, and is not installed.
    if machine.can_install():
        folder = CACHE / "dockerd"
        if run.step("dockerd", sys.executable, "-m", "tests.support.dockerd", folder):
            run.environment["PYGRID_TEST_DOCKERD"] = str(folder)
    run.step("clouds", sys.executable, "-m", "pytest", "tests/clouds")


def syft_environment(run: Runner) -> bool:
    """Have a Python with syft, for clients; tests find it as PYGRID_TEST_PYTHON."""
    environment = CACHE / "syft-env"
    run.environment["PYGRID_TEST_PYTHON"] = str(environment / "bin" / "python")
    maker = CHECKOUT / "requirements" / "environment.py"
    return run.step("syft environment", sys.executable, maker, environment, SYFT_LOCK)


def molecule(run: Runner, scenario: str | None = None) -> None:
    """Whole deploys, one promise for each scenario. Where no lab can be, those on its hosts are left out."""
    names = [scenario] if scenario else list(scenarios())
    needed = {name: images(CHECKOUT / "molecule" / name) for name in names}
    wanted = set().union(*needed.values())
    obstacle = prepare(run.step, wanted) if wanted else None
    if wanted and not obstacle:
        syft_environment(run)
    for name in names:
        if needed[name] and obstacle:
            run.leave_out(f"molecule {name}", f"no lab here: {obstacle}")
        else:
            run.step(f"molecule {name}", "molecule", "test", "--scenario-name", name)


def scenarios() -> Iterator[str]:
    """Name the scenarios that are run without being asked for."""
    for file in sorted((CHECKOUT / "molecule").glob("*/molecule.yml")):
        if not (file.parent / BY_HAND).exists():
            yield file.parent.name


PARTS: dict[str, Callable[[Runner], None]] = {
    "lint": lint,
    "unit": unit,
    "sanity": sanity,
    "e2e": e2e,
    "clouds": clouds,
    "molecule": molecule,
}


#: Side by side, when everything is run.
LANES = ((lint, unit, sanity, clouds), (e2e,), (molecule,))


def environment() -> dict[str, str]:
    """Describe the surroundings of every check: our tools come first, and nothing is written outside the checkout."""
    variables = dict(os.environ)
    variables.pop("PYTHONPATH", None)
    # Settings of this machine (a package index, a proxy) stay readable though HOME is another one.
    variables.setdefault("XDG_CONFIG_HOME", str(Path.home() / ".config"))
    variables |= {
        "PATH": f"{TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(HOME),
        "XDG_CACHE_HOME": str(CACHE / "xdg"),
        "XDG_DATA_HOME": str(HOME / ".local" / "share"),
        "UV_CACHE_DIR": str(CACHE / "uv"),
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C.UTF-8",
    }
    if not sys.stdout.isatty():
        variables["NO_COLOR"] = variables["ANSIBLE_NOCOLOR"] = "1"
    return variables


def main() -> None:
    """Run the parts that were asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all if none is named")
    parser.add_argument("--scenario", help="the one molecule scenario to run")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    HOME.mkdir(parents=True, exist_ok=True)
    run = Runner(environment())
    for part in arguments.parts:
        if part == "molecule":
            molecule(run, arguments.scenario)
        else:
            PARTS[part](run)
    if not arguments.parts:
        everything(run)
    sys.exit(0 if run.summary() else 1)


def everything(run: Runner) -> None:
    """Run all parts in lanes, after what they need was installed; without what other tests stand for."""
    run.environment["PYTEST_ADDOPTS"] = '-m "not thorough"'
    install_servers(run.step)
    prepare(run.step, set().union(*(images(CHECKOUT / "molecule" / name) for name in scenarios())))
    syft_environment(run)
    run.side_by_side = True
    with ThreadPoolExecutor(len(LANES)) as pool:
        list(pool.map(lambda lane: [part(run) for part in lane], LANES))


if __name__ == "__main__":
    main()
