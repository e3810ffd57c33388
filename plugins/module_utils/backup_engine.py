# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""restic, the engine of backups: encrypted, de-duplicated snapshots in a folder, by SFTP or in S3."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from ansible_collections.openmined.pygrid.plugins.module_utils.backup_folder import BackupFolder, Plan
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import locked
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home

# What restic says in the words of all its versions (its exit codes tell more from 0.17 on only).
MISSING = re.compile(r"no such file or directory|does not exist|file does not exist|NoSuchBucket|NoSuchKey")
WRONG_PASSWORD = "wrong password or no key found"  # noqa: S105 - a message
# Each call takes half a second for the key alone: a small backup, or one with many new files, is read back as a whole.
SMALL_BYTES, MANY_FILES = 100_000_000, 20
BLOCK_BYTES = 1 << 20
CALL_SECONDS = 86_400


class RepositoryMissing(PygridError):
    """There is no repository at its place."""


def find_restic(home: Home) -> Path:
    """The program: installed on the host, or in scope user fetched from the distribution into the home.

    Raises:
        PygridError: there is none; with the remedy.
    """
    found = shutil.which("restic")
    if found:
        return Path(found)
    if home.scope == "system":
        raise PygridError("restic is not installed on this host; playbooks/backup.yml installs it")
    present = sorted(home.tools.glob("restic-*/usr/bin/restic"))
    return present[-1] if present else _fetch(home)


def _fetch(home: Home) -> Path:
    """Unpack the distribution's package, which holds one program; needs no root."""
    remedy = "install restic on this host (apt install restic), or put the program into PATH"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise PygridError(f"restic is not installed on this host; {remedy}")
    with locked(home.locks / "restic.lock"):
        present = sorted(home.tools.glob("restic-*/usr/bin/restic"))
        if present:
            return present[-1]
        draft = home.tools / ".restic.part"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        try:
            _call(["apt-get", "download", "restic"], draft, remedy)
            package = next(draft.glob("restic_*.deb"))
            _call(["dpkg-deb", "-x", str(package), str(draft)], draft, remedy)
            target = home.tools / f"restic-{package.name.split('_')[1]}"
            package.unlink()
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target / "usr/bin/restic"


def _call(command: list[str], folder: Path, remedy: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())[-300:]
        raise PygridError(f"restic is not installed on this host and could not be fetched ({reason}); {remedy}")


class Restic:
    """One repository.

    Args:
        home: of the grid.
        folder: password and keys.
        plan: where the repository is.
    """

    def __init__(self, home: Home, folder: BackupFolder, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._program = str(find_restic(home))
        self._cache = folder.node.backup_cache

    def _command(self, words: Iterable[str]) -> list[str]:
        command = [self._program, "--cache-dir", str(self._cache), "--cleanup-cache"]
        if self._plan.is_sftp:
            command += ["-o", f"sftp.command={self._folder.ssh_command(self._plan)}"]
        return [*command, *words]

    def _environment(self) -> dict[str, str]:
        environment = {
            "PATH": os.defpath,
            "HOME": str(self._folder.root),
            "RESTIC_REPOSITORY": self._plan.repository,
            "RESTIC_PASSWORD_FILE": str(self._folder.password),
        }
        if self._plan.proxy:
            environment.update(HTTPS_PROXY=self._plan.proxy, HTTP_PROXY=self._plan.proxy, NO_PROXY=self._plan.no_proxy)
        if self._folder.s3.exists():
            environment["AWS_SHARED_CREDENTIALS_FILE"] = str(self._folder.s3)
        if self._plan.region:
            environment["AWS_DEFAULT_REGION"] = self._plan.region
        return environment

    def run(self, *words: str) -> str:
        """Run a command to its end; returns what it printed."""
        with self.stream(*words) as output:
            return output.read().decode(errors="replace")

    @contextlib.contextmanager
    def stream(self, *words: str, folder: int | None = None) -> Iterator[IO[bytes]]:
        """A command's output while it runs; it is an error when the command fails, or is not read to its end.

        folder: descriptor of the folder to work in, which nobody can exchange for another one.
        """
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with subprocess.Popen(
            self._command(words),
            env=self._environment(),
            cwd=None if folder is None else f"/proc/self/fd/{folder}",
            pass_fds=() if folder is None else (folder,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            output, said = cast("IO[bytes]", process.stdout), _Collected(cast("IO[bytes]", process.stderr))
            try:
                yield output
            except BaseException:
                process.kill()
                raise
            output.close()
            code = process.wait(CALL_SECONDS)
        if code != 0:
            raise self._failure(words[0], said.text(), code)

    def _failure(self, verb: str, said: str, code: int) -> PygridError:
        place = self._plan.repository
        if WRONG_PASSWORD in said:
            return PygridError(
                f"the repository {place} was made with another password; pygrid_backup_password, or the file"
                " pygrid_backup_password_file on the controller, must be the one of the first backup"
            )
        if "Permission denied" in said and self._plan.is_sftp and "publickey" in said:
            return PygridError(
                f"the SFTP server of {place} does not let this host in; add this line to ~/.ssh/authorized_keys of that"
                f" account there: {self._folder.public_key()}"
            )
        if "Host key verification failed" in said:
            return PygridError(
                f"the SFTP server of {place} is not known; put its line of ssh-keyscan, once you have compared it with"
                " what its administrator says, into pygrid_backup_known_hosts"
            )
        if "already locked" in said:
            return PygridError(f"the repository {place} is in use: {_one_line(said)}")
        if "unable to open config file" in said and MISSING.search(said):
            return RepositoryMissing(f"there is no repository at {place}")
        return PygridError(f"restic {verb}, {place}: {_one_line(said) or f'it ended with {code}'}")

    def version(self) -> tuple[int, ...]:
        match = re.search(r"restic (\d+)\.(\d+)", self.run("version"))
        return (int(match[1]), int(match[2])) if match else (0, 0)

    def repository_id(self) -> str | None:
        """The repository's own id, None when there is none at its place."""
        try:
            return json.loads(self.run("cat", "config", "--no-lock", "--quiet"))["id"]
        except RepositoryMissing:
            return None

    def create(self) -> str:
        """Make the repository; returns its id."""
        local = self._plan.local_folder
        if local is not None:
            for parent in (local.parent, local):
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.run("init")
        return self.repository_id() or ""

    def unlock(self) -> None:
        """Take away the locks of runs that were killed here; those of living ones stay."""
        self.run("unlock")

    def own(self) -> None:
        """Take away the locks of the host that is lost, too."""
        self.run("unlock", "--remove-all")

    def backup(self, folder: int) -> tuple[dict[str, Any], list[str]]:
        """Save everything in a folder (a descriptor).

        Blobs are never changed in place, but a link more or less of one changes its ctime.

        Returns:
            restic's summary, and the paths of the files that were not in the former backup as they are now.
        """
        unchanged = "--ignore-ctime" if self.version() >= (0, 12) else "--ignore-inode"
        words = ("backup", "--json", "--verbose=2", "--host", self._plan.node, unchanged, ".")
        summary: dict[str, Any] = {}
        changed = []
        with self.stream(*words, folder=folder) as output:
            for line in output:
                message = _parsed(line)
                if message.get("message_type") == "summary":
                    summary = message
                elif message.get("action") in ("new", "modified") and not message["item"].endswith("/"):
                    changed.append(message["item"].lstrip("/"))
        if not summary:
            raise PygridError(f"restic did not say how the backup to {self._plan.repository} ended")
        return summary, changed

    def read_back(self, snapshot: str, digests: dict[str, str], size: int) -> None:
        """Read files from the repository and compare them with what was saved.

        Args:
            digests: path in the snapshot -> SHA-256 (hex).
            size: of the whole snapshot in bytes.
        """
        if len(digests) > MANY_FILES or size < SMALL_BYTES:
            with self.stream("dump", "--no-lock", snapshot, "/") as output:
                found = _digests_in_tar(output, digests)
        else:
            found = {}
            for path in digests:
                with self.stream("dump", "--no-lock", snapshot, f"/{path}") as output:
                    found[path] = digest_of(output)
        wrong = [path for path, digest in digests.items() if found.get(path) != digest]
        if wrong:
            raise PygridError(
                f"the backup {snapshot} in {self._plan.repository} does not give back what was saved: {wrong[0]}"
            )

    def snapshots(self) -> list[dict[str, Any]]:
        """The backups of this node, the oldest first."""
        listed = json.loads(self.run("snapshots", "--json", "--no-lock", "--host", self._plan.node)) or []
        return sorted(listed, key=lambda entry: entry["time"])

    def file(self, snapshot: str, path: str) -> bytes:
        """The content of one small file."""
        with self.stream("dump", "--no-lock", snapshot, f"/{path}") as output:
            return output.read()

    def names(self, snapshot: str, folder: str) -> list[str]:
        """The names in one folder."""
        listed = [_parsed(line) for line in self.run("ls", "--json", "--no-lock", snapshot, f"/{folder}").splitlines()]
        return [entry["name"] for entry in listed if entry.get("type") == "file"]

    def check(self) -> None:
        """See that all that the snapshots name is there; a thirtieth of the data is read, another one each day."""
        part = f"{_day() % 30 + 1}/30"
        self.run("check", "--with-cache", f"--read-data-subset={part}")

    def forget(self, keep: dict[str, int]) -> None:
        """Keep so many of the last, of one each day and so on, and give back the room of all others."""
        words = [f"--keep-{what}={number}" for what, number in sorted(keep.items()) if number]
        if words:
            self.run("forget", "--host", self._plan.node, "--group-by", "host", "--prune", *words)


class _Collected:
    """What a program says on its second output, read while it runs so that it never waits for a reader."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._parts.append(line)
            del self._parts[:-50]

    def text(self) -> str:
        self._thread.join(10)
        return b"".join(self._parts).decode(errors="replace")


def digest_of(stream: IO[bytes]) -> str:
    """SHA-256 (hex) of everything that is left to read."""
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(BLOCK_BYTES), b""):
        digest.update(block)
    return digest.hexdigest()


def _digests_in_tar(stream: IO[bytes], wanted: Iterable[str]) -> dict[str, str]:
    """Digests of some of the files in a tar archive, which is read to its very end."""
    names, found = set(wanted), {}
    # Where it breaks off, restic says why when it ends; if it does not, something is missing here.
    with contextlib.suppress(tarfile.ReadError), tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.lstrip("/")
            content = archive.extractfile(member) if name in names else None
            if content is not None:
                found[name] = digest_of(content)
    while stream.read(BLOCK_BYTES):
        pass
    return found


def _parsed(line: bytes | str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _one_line(said: str) -> str:
    return " ".join(said.split())[-500:]


def _day() -> int:
    return int(time.time() // 86_400)
