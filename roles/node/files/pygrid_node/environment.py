# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process a node runs in: what syft reads from the environment, and who may stop it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import NodeError
from .identity import Identity
from .settings import Settings

SUPPORTED_FROM, SUPPORTED_BELOW = (0, 9, 2), (0, 10)
_SECRETS = ("SERVER_PRIVATE_KEY", "DEFAULT_ROOT_EMAIL", "DEFAULT_ROOT_PASSWORD")
# Leftovers of another installation would silently change what the node is (S/server/env.py, S/util/util.py).
# PG is libpq's: PGSSLMODE, PGSERVICE, PGOPTIONS, ... of whoever started this would change how the node connects.
_FOREIGN_PREFIXES = ("SYFT_", "SERVER_", "DEFAULT_ROOT_", "DEFAULT_WORKER_POOL_", "REVERSE_TUNNEL_", "SMTP_", "PG")
_FOREIGN = (
    "CONTAINER_HOST", "DEV_MODE", "N_CONSUMERS", "CREATE_PRODUCER", "INMEMORY_WORKERS", "K8S_POD_NAME",
    "IGNORE_TLS_ERRORS",
)  # fmt: skip
# What each kind of client library takes the authorities from: requests, OpenSSL itself, curl, libpq.
_TRUST = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "PGSSLROOTCERT")


def syft_version() -> str:
    """The version of the installed syft, without importing it.

    Raises:
        NodeError: syft is missing, or its version is not one this runtime was made for.
    """
    try:
        installed = version("syft")
    except PackageNotFoundError:
        raise NodeError(f"syft is not installed in {sys.prefix}") from None
    numbers = version_numbers(installed)
    if not SUPPORTED_FROM <= numbers < SUPPORTED_BELOW:
        raise NodeError(f"syft {installed} is not supported: it must be at least 0.9.2 and below 0.10")
    return installed


def run_from_release() -> None:
    """Start again under the real path of the environment, if this process came here through a link.

    A node is started through `current`, and what it imports later, a job's packages for instance, would come from
    another release once an upgrade has turned that link.
    """
    real = Path(sys.prefix).resolve()
    if real != Path(sys.prefix):
        python = str(real / "bin" / "python")
        os.execv(python, [python, "-m", "pygrid_node", *sys.argv[1:]])  # noqa: S606 - a shell is not wanted


def _borrow_font_list(settings: Settings) -> None:
    """Give matplotlib, which syft imports, the font list that staging left beside the environment: 0.7 s a first start.

    A copy, because matplotlib wants to write there, and a release is not the node's to write.
    """
    own = settings.tmp_directory / "matplotlib"
    staged = Path(sys.prefix).parent / "matplotlib"
    if staged.is_dir() and not own.exists():
        shutil.copytree(staged, own, dirs_exist_ok=True)
    os.environ["MPLCONFIGDIR"] = str(own)


def version_numbers(text: str) -> tuple[int, ...]:
    """(0, 9, 5) for "0.9.5" and "0.9.5-beta.1"."""
    numbers = []
    for part in text.split(".")[:3]:
        digits = ""
        for character in part:
            if not character.isdigit():
                break
            digits += character
        numbers.append(int(digits or 0))
    return tuple(numbers)


def prepare(settings: Settings, identity: Identity) -> None:
    """Make the node's folders and the environment; must run before syft is imported, which reads it on import.

    Raises:
        NodeError: a folder cannot be made.
    """
    for directory in (settings.data_directory, settings.run_directory, settings.tmp_directory):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NodeError(f"cannot make {directory}: {error.strerror}") from None
    for key in list(os.environ):
        if key in _FOREIGN or key.startswith(_FOREIGN_PREFIXES):
            del os.environ[key]
    tmp = str(settings.tmp_directory)
    os.environ.update(
        HOME=tmp,
        TMPDIR=tmp,
        SYFT_TEMP_ROOT=str(settings.tmp_directory / "syft"),
        SERVER_NAME=settings.name,
        SERVER_UID=settings.domain.uid if settings.domain else identity.uid,
    )
    os.environ.update(tls_environment(settings))
    _borrow_font_list(settings)
    if identity.private_key and identity.root_email and identity.root_password:
        os.environ.update(
            SERVER_PRIVATE_KEY=identity.private_key,
            DEFAULT_ROOT_EMAIL=identity.root_email,
            DEFAULT_ROOT_PASSWORD=identity.root_password,
        )


def tls_environment(settings: Settings) -> dict[str, str]:
    """Whom the node trusts as a client, and whether its connections to PostgreSQL are encrypted and verified."""
    variables = {"PGAPPNAME": f"pygrid-{settings.name}"}  # what pg_stat_activity shows
    if settings.trust_file is not None:
        if not os.access(settings.trust_file, os.R_OK):
            raise NodeError(f"trust_file {settings.trust_file}: missing, or not readable for this account")
        variables.update(dict.fromkeys(_TRUST, str(settings.trust_file)))
    if settings.database_tls is not None:
        variables["PGSSLMODE"] = "verify-full" if settings.database_tls else "disable"
    return variables


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Import syft without garbage collection: 3.4 instead of 4.7 s of CPU, for nothing of it is garbage.

    What exists afterwards is never looked at by the collector again, which also keeps forked children's memory shared.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def forget_secrets() -> None:
    """Take the secrets out of the environment, so that no child process and no user code inherits them."""
    for key in _SECRETS:
        os.environ.pop(key, None)


def stop_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent (the supervisor) dies; Linux only, elsewhere without effect."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    pr_set_pdeathsig = 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(pr_set_pdeathsig, int(signal.SIGTERM), 0, 0, 0) != 0:
        raise NodeError(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the kernel knew our wish
        os.kill(os.getpid(), signal.SIGTERM)
