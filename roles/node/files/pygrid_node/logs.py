# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log lines of a node: one line per record, with time, node and level, and without secrets (fault 8 of stock servers).

The journal keeps time, node and level by itself: there a line begins with the level as `<N>` (sd-daemon(3)).

Upstream logs the database URL at start and per job (S/server/server.py, S/store/db/db.py), the whole form of a failed
registration (S/server/routes.py), reset tokens, and the arguments of every API call, passwords included.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

_MASK = "***"
_SHORTEST_SECRET = 6
_PATTERNS = (
    # user:password@ of any URL
    (re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+@", re.IGNORECASE), r"\g<head>***@"),
    # password='…', "signing_key": "…", reset_token=… in reprs and JSON
    (
        re.compile(
            r"(?P<head>(?:password(?:_verify)?|hashed_password|salt|signing_key|private_key|secret_key|reset_token)"
            r"[\"']?\s*[:=]\s*)(?P<quote>[\"']?)[^\s\"',}\])]+(?P=quote)",
            re.IGNORECASE,
        ),
        r"\g<head>***",
    ),
)
# Records of upstream that carry a caller's data: everything from the marker on is left out.
_CUT = (
    ("syft.server.routes", "Register Error", " (the form is not logged)"),
    ("syft.server.routes", "Reset Password Error", " (the token is not logged)"),
    ("syft.server.routes", "Forgot Password Error", ""),
)
# Records of upstream that say nothing an operator needs, and leak: arguments of calls, a hash of the private key.
_DROP = (("syft.server.server", "API Call:"), ("syft.server.server", "Hash of the signing key"))
# Libraries that speak at INFO about every request.
_QUIET = ("httpx", "httpcore", "urllib3", "asyncio", "multipart", "matplotlib")


class Redactor:
    """Masks the given secrets, and whatever looks like a password, in a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        longest_first = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(_MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


def database_secrets(url: str) -> list[str]:
    """The password of a database URL as written, decoded, and as SQLAlchemy writes it; nothing for SQLite."""
    password = urlsplit(url).password
    if not password:
        return []
    decoded = unquote(password)
    return list(dict.fromkeys((password, decoded, quote(decoded, safe=" +"))))


class UpstreamFilter(logging.Filter):
    """Drops or cuts the records of upstream that carry what a caller sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.msg if isinstance(record.msg, str) else ""
        if any(record.name == name and message.startswith(start) for name, start in _DROP):
            return False
        for name, start, instead in _CUT:
            if record.name == name and message.startswith(start):
                record.msg, record.args, record.exc_info, record.exc_text = start + instead, (), None, None
        return True


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z alice INFO syft.server: text`, on one line and redacted."""

    converter = time.gmtime

    def __init__(self, node: str, redact: Redactor, layout: str = "") -> None:
        full = f"%(asctime)s.%(msecs)03dZ {node} %(levelname)s %(name)s: %(message)s"
        super().__init__(layout or full, "%Y-%m-%dT%H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        # A line of carets under the source of a traceback says nothing once it is folded.
        lines = [line for line in super().format(record).splitlines() if line.strip(" ^~")]
        return self._redact(" | ".join(lines))


class JournalFormatter(LineFormatter):
    """`<6>syft.server: text`: what the journal does not know yet."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__("", redact, "%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_priority(record.levelno)}>{super().format(record)}"


def _priority(level: int) -> int:
    """The syslog priority of a record's level."""
    for limit, priority in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= limit:
            return priority
    return 7


def is_journal(descriptor: int) -> bool:
    """Whether a file descriptor is the journal's, as JOURNAL_STREAM says it (systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _PrintedLines(io.TextIOBase):
    """Turns what upstream prints into log records, so that it gets a time, a level and the redaction."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger, self._level, self._part = logger, level, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            if line.strip():
                self._logger.log(self._level, "%s", line.rstrip())
        return len(text)


def configure(node: str, level: str, secrets: Iterable[str]) -> None:
    """Send every record and everything printed, as redacted lines, to what was standard output at the start.

    Call it before syft is imported, and `own_handlers` after.
    """
    handler = logging.StreamHandler(sys.__stdout__)
    redact = Redactor(secrets)
    handler.setFormatter(JournalFormatter(redact) if is_journal(1) else LineFormatter(node, redact))
    handler.addFilter(UpstreamFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.stdout = _PrintedLines(logging.getLogger("print"), logging.INFO)
    sys.stderr = _PrintedLines(logging.getLogger("print"), logging.WARNING)


def own_handlers() -> None:
    """Remove the handlers that libraries installed while they were imported: they would print without redaction."""
    root = logging.getLogger()
    mine = [handler for handler in root.handlers if isinstance(handler.formatter, LineFormatter)]
    root.handlers[:] = mine
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if logger.handlers:
            logger.handlers[:] = []
            logger.propagate = True
    # Upstream silences uvicorn altogether (S/server/server.py, set_log_level), errors of requests included.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def flush() -> None:
    """Write out what is buffered; needed before os._exit, which runs no handler."""
    for handler in logging.getLogger().handlers:
        handler.flush()
