# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage releases and the tools beside them. Standard library only, Python 3.8+."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator

from ansible_collections.openmined.pygrid.plugins.module_utils import pythons
from ansible_collections.openmined.pygrid.plugins.module_utils import release_files as files
from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_index import find_python, find_release
from ansible_collections.openmined.pygrid.plugins.module_utils.bundle_store import UnpackedBundle
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.releases import (
    SCHEMA,
    release_digest,
    release_name,
    releases_folder,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.reports import communicate, say

# Debian and its relatives, RHEL and its relatives.
TRUST_STORES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
_PACKAGE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==")


class Stager:
    """Puts a release, uv and the supervisor into a grid folder; the caller holds the lock.

    With a bundle everything comes from it, and nothing from anywhere else.
    """

    def __init__(
        self, home: Path, cache: Path, python: dict, lock: files.Lock, bundle: UnpackedBundle | None = None
    ) -> None:
        self.home = home
        self.cache = cache
        self.python = python
        self.lock = lock
        self.bundle = bundle
        self.uv = Path()
        self.steps: list = []

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record how long a step took."""
        started = time.monotonic()
        say(f"stages: {name}")
        yield
        self.steps.append({"name": name, "seconds": round(time.monotonic() - started, 2)})

    def put_uv(self, source: Path, version: str) -> None:
        """Keep the uv that the controller sent as <home>/tools/uv-<version>/uv."""
        with self.step("uv"):
            staging = files.staging_folder(self.home / "tools")
            shutil.copyfile(source, staging / "uv")
            (staging / "uv").chmod(0o755)
            found = self._call([str(staging / "uv"), "--version"], "uv from the controller does not run on this host")
            if version not in found.split():
                raise PygridError(f"the controller sent '{found.strip()}' as uv {version}")
            files.finish(staging, {"schema": SCHEMA, "version": version}, uv_folder(self.home, version))

    def bring_python(self) -> None:
        """Let uv bring the CPython that the host lacks; it lies beside the releases, which link to it."""
        version = _minor(self.python)
        folder = pythons.managed_folder(self.home)
        with self.step("python"):
            command = [str(self.uv), "python", "install", "--quiet", "--no-bin", "--install-dir", str(folder)]
            command += [f"cpython-{version}-{files.platform_tag()}-gnu"]
            variables = files.child_environment(**self._python_source(), UV_PYTHON_DOWNLOADS="manual")
            self._call(command, f"cannot bring CPython {version} to this host", env=variables)
            (folder / ".lock").chmod(0o644)  # uv's lets any account hold up the next run
            for program in folder.glob(f"cpython-{version}.*/bin/python{version}"):
                child = self._start([str(program), "--version"])
                if child.wait() != 0:
                    reason = _last_line(child.stderr.read())
                    raise PygridError(f"the CPython that uv brought to {folder} does not run on this host: {reason}")
            self.python = pythons.managed(folder, version).as_data()

    def _python_source(self) -> dict:
        """Variables by which uv takes the CPython of the bundle; none without one."""
        if self.bundle is None:
            return {}
        entry = find_python(self.bundle.index, self.python["tag"], files.platform_tag())
        if entry is None:
            raise PygridError(f"the bundle has no CPython {_minor(self.python)} for {files.platform_tag()}")
        archive = self.bundle.checked(entry["path"])
        system, machine = files.platform_tag().split("-")
        major, minor, patch = map(int, entry["version"].split("."))
        download = {
            "name": "cpython",
            "arch": {"family": machine, "variant": None},
            "os": system,
            "libc": "gnu",
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "url": archive.as_uri(),
            "sha256": self.bundle.checksum(entry["path"]),
            "variant": None,
            "build": None,
        }
        catalogue = self.bundle.folder / "downloads.json"
        name = f"cpython-{entry['version']}-{files.platform_tag()}-gnu"
        files.write_durably(catalogue, json.dumps({name: download}))
        return {"UV_PYTHON_DOWNLOADS_JSON_URL": str(catalogue)}

    def stage_release(self, archive: Path, source: dict, packages: list, compile_what: str) -> str:
        """Build, verify and name a release; returns its folder name."""
        ingredients = (source["version"], source["lock_sha256"], source["runtime_sha256"], packages, self.python["tag"])
        name = release_name(*ingredients)
        staging = files.staging_folder(releases_folder(self.home))
        with self.step("unpack"):
            parts = staging / "parts"
            files.unpack(archive, parts)
            lock = parts / "lock.txt"
            if hashlib.sha256(lock.read_bytes()).hexdigest() != source["lock_sha256"]:
                raise PygridError("the lock file that arrived is not the one the controller meant; run again")
        environment = self._make_environment(staging / "env")
        with self.step("packages"):
            requirements = staging / "requirements.txt"
            if self.bundle is None:
                text = lock.read_text(encoding="utf-8")
                text += self._resolve(packages, lock, environment) if packages else ""
            else:
                text = self._resolved_in_bundle(source, packages)
            requirements.write_text(text, encoding="utf-8")
        with self.step("install"):
            self._install(environment, requirements)
            site_packages = environment / "lib" / f"python{_minor(self.python)}" / "site-packages"
            shutil.copytree(parts / "pygrid_node", site_packages / "pygrid_node")
        with self.step("compile and verify"):
            self._compile_and_verify(environment, parts, source["version"], staging)
        if compile_what == "all":
            with self.step("compile the rest"):
                self._compile(environment, parts, sorted(_sources(site_packages)))
        shutil.rmtree(parts)
        manifest = {
            "schema": SCHEMA,
            "name": name,
            "version": source["version"],
            "digest": release_digest(*ingredients),
            "python": self.python,
            "packages": packages,
            "lock_sha256": source["lock_sha256"],
            "runtime_sha256": source["runtime_sha256"],
            "uv": str(self.uv.parent.name),
            "staged_at": time.time(),
            "steps": self.steps,
        }
        with self.step("finish"):
            files.finish(staging, manifest, releases_folder(self.home) / name)
        return name

    def stage_supervisor(self, archive: Path, version: str) -> None:
        """Install the supervisor into an environment of its own, so that upgrading nodes never touches it."""
        with self.step("supervisor"):
            staging = files.staging_folder(self.home / "tools")
            files.unpack(archive, staging / "parts")
            environment = self._make_environment(staging / "env")
            requirements = staging / "parts" / "supervisor.txt"
            if self.bundle is not None:
                requirements = self.bundle.checked(self.bundle.index["supervisor"]["requirements"])
            self._install(environment, requirements, "--compile-bytecode")
            shutil.rmtree(staging / "parts")
            # The tool's folder is the environment itself: nobody needs to know of a level in between.
            for entry in environment.iterdir():
                entry.rename(staging / entry.name)
            environment.rmdir()
            files.finish(staging, {"schema": SCHEMA, "version": version}, supervisor_folder(self.home, version))

    def _make_environment(self, folder: Path) -> Path:
        command = [str(self.uv), "venv", "--quiet", "--relocatable", "--python", self.python["path"], str(folder)]
        self._call(command, f"cannot make an environment with {self.python['path']}")
        return folder

    def _install(self, environment: Path, requirements: Path, *options: str) -> None:
        python = str(environment / "bin" / "python")
        command = [str(self.uv), "pip", "install", "--quiet", "--python", python, "--require-hashes", "--no-deps"]
        command += ["--link-mode", "hardlink", *options, "-r", str(requirements)]
        tick = Installing(environment, requirements, self.cache).tell
        if self.bundle is not None:
            command += ["--offline", "--no-index", "--no-config", "--find-links", str(self.bundle.folder / "wheels")]
            self._call(command, "cannot install what the bundle holds", tick)
            return
        # With everything in the cache this takes half a second; asking the index about each package takes three.
        offline = self._start([*command, "--offline"])
        communicate(offline, tick)
        if offline.returncode != 0:
            self._call(command, "cannot install what the lock file names", tick)

    def _resolved_in_bundle(self, source: dict, packages: list) -> str:
        """Return the requirements that were resolved when the bundle was made."""
        need = {"version": source["version"], "lock_sha256": source["lock_sha256"], "packages": packages}
        need.update(tag=self.python["tag"], platform=files.platform_tag())
        entry = find_release(self.bundle.index, need)
        if entry is None:
            raise PygridError("the bundle on this host is not for this release; run again")
        return self.bundle.checked(entry["requirements"]).read_text(encoding="utf-8")

    def _resolve(self, packages: list, lock: Path, environment: Path) -> str:
        """Return the lines, with hashes, that `packages` need beyond the lock."""
        wanted = lock.with_name("packages.in")
        wanted.write_text("".join(f"{package}\n" for package in packages), encoding="utf-8")
        command = [str(self.uv), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--python", str(environment / "bin" / "python"), "--constraints", str(lock), str(wanted)]
        resolved = self._call(command, f"the packages {', '.join(packages)} do not go with the lock file")
        return only_new(resolved, lock.read_text(encoding="utf-8"))

    def _compile_and_verify(self, environment: Path, parts: Path, version: str, staging: Path) -> None:
        """Import what a node imports, while the other processors compile the same files from the end of the list."""
        python = str(environment / "bin" / "python")
        scratch = staging / "scratch"
        scratch.mkdir()
        variables = child_variables(scratch, staging / "matplotlib")
        command = [python, "-I", "-Wignore", str(parts / "verify.py"), version]
        verify = self._start(command, env=variables, cwd=str(scratch))
        imports = (parts / "imports.txt").read_text(encoding="utf-8").splitlines()
        try:
            self._compile(environment, parts, imports, processes=processors() - 1)
            _answer, problem = verify.communicate()
        finally:
            verify.kill()
        if verify.returncode != 0:
            raise PygridError(f"the new environment does not work: {_last_line(problem)}")
        shutil.rmtree(scratch)

    def _compile(self, environment: Path, parts: Path, names: list, processes: int | None = None) -> None:
        count = processors() if processes is None else processes
        if count < 1:
            return
        command = [str(environment / "bin" / "python"), "-I", "-Wignore", str(parts / "bytecode.py"), str(count)]
        child = self._start(command, stdin=subprocess.PIPE)
        _answer, problem = child.communicate("".join(f"{name}\n" for name in names))
        if child.returncode != 0:
            raise PygridError(f"cannot byte-compile the new environment: {_last_line(problem)}")

    def _start(self, command: list, **options: object) -> subprocess.Popen:
        variables = options.pop("env", None) or files.child_environment()
        variables = {**trust(), "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1", **variables}
        variables["UV_CACHE_DIR"] = str(self.cache)
        options.setdefault("stdin", subprocess.DEVNULL)
        return self.lock.run(
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def _call(self, command: list, complaint: str, tick: Callable[[], None] = lambda: None, **options: object) -> str:
        try:
            child = self._start(command, **options)
        except OSError as error:
            raise PygridError(f"{complaint}: {error.strerror or error}") from error
        answer, problem = communicate(child, tick)
        if child.returncode != 0:
            said = _explain(problem or answer)
            raise PygridError(f"{complaint}: {said}{_remedy(said)}")
        return answer


class Installing:
    """How far uv is: it downloads all packages, and then links them all into the environment."""

    def __init__(self, environment: Path, requirements: Path, cache: Path) -> None:
        self._environment, self._cache = environment, cache
        lines = requirements.read_text(encoding="utf-8").splitlines()
        self._packages = sum(bool(_PACKAGE.match(line)) for line in lines)
        self._used = self._used_bytes()

    def tell(self) -> None:
        """Report it."""
        installed = sum(1 for _entry in self._environment.glob("lib/python*/site-packages/*.dist-info"))
        megabytes = max(0, self._used_bytes() - self._used) // 1_000_000
        say(f"{installed} of {self._packages} packages installed, {megabytes} MB written")

    def _used_bytes(self) -> int:
        """What is used on the disk that uv writes to; to look at each file would take longer than to write it."""
        folder = self._cache if self._cache.is_dir() else self._environment
        return shutil.disk_usage(folder).used


def uv_folder(home: Path, version: str) -> Path:
    """Return the folder of a uv that was sent to the host."""
    return home / "tools" / f"uv-{version}"


def newest_uv(home: Path) -> str:
    """Return the version of the uv that came to the host last, or an empty text."""
    found = [(path.stat().st_mtime, path.parent.name[len("uv-") :]) for path in home.glob("tools/uv-*/manifest.json")]
    return max(found)[1] if found else ""


def supervisor_folder(home: Path, version: str) -> Path:
    """Return the environment of the supervisor."""
    return home / "tools" / f"supervisor-{version}"


def trust() -> dict:
    """Return where the host keeps its authorities: uv has a list of its own, which lacks those of a company's proxy."""
    store = next((path for path in TRUST_STORES if path.exists()), None)
    return {"SSL_CERT_FILE": str(store)} if store else {}


def processors() -> int:
    """Return the number of processors this process may use (a container often has fewer than the machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def child_variables(scratch: Path, font_cache: Path) -> dict:
    """Return the environment of the verification: whatever an import writes lands in the scratch folder.

    But matplotlib's list of fonts stays with the release: to make it costs every new node most of a second.
    """
    return files.child_environment(HOME=str(scratch), TMPDIR=str(scratch), MPLCONFIGDIR=str(font_cache))


def only_new(resolved: str, lock: str) -> str:
    """Return the blocks of a resolved requirements text whose packages the lock does not name."""
    known = {_canonical(found.group(1)) for found in map(_PACKAGE.match, lock.splitlines()) if found}
    kept = []
    keep = False
    for line in resolved.splitlines():
        found = _PACKAGE.match(line)
        if found:
            keep = _canonical(found.group(1)) not in known
        elif not line.startswith((" ", "#")):
            raise PygridError(f"cannot check '{line.strip()}' by a hash; name packages as name==version")
        if keep:
            kept.append(f"{line}\n")
    return "".join(kept)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _minor(python: dict) -> str:
    return ".".join(python["version"].split(".")[:2])


def _sources(site_packages: Path) -> Iterator[str]:
    """All files that somebody may import. A quarter of site-packages are tests of the packages, which nobody does."""
    for folder, folders, names in os.walk(site_packages):
        folders[:] = [name for name in folders if name != "tests"]
        for name in names:
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(folder, name), site_packages)  # noqa: PTH118


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _remedy(said: str) -> str:
    if "Hash mismatch" in said:
        return "; the lock file does not match its packages: restore it, or make it anew with --generate-hashes"
    if "No solution found" in said:
        return "; correct pygrid_worker_packages"
    if "os error 28" in said or "No space left" in said:
        return "; free some space, or set pygrid_home to a larger file system"
    if "etch" in said or "download" in said or "request" in said:
        return "; is the package index reachable from this host (pygrid_proxy, pygrid_package_index, or pygrid_bundle)?"
    return ""


def _explain(text: str) -> str:
    """Return what uv says about a failure on one line, without its decoration."""
    lines = [re.sub(r"^[\s\u00d7\u2500-\u257f\u25b6]+", "", line).strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line)[:2000]
