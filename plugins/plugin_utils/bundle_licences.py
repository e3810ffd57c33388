# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Under which licences the contents of a bundle stand, as they say themselves."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

UNKNOWN = "not stated"
# The long text of a licence in the field that is meant for its name.
LONGEST_NAME = 100


def of_wheel(wheel: Path) -> str:
    """Licence of a wheel from its metadata: the expression, else the classifiers, else the free text."""
    with zipfile.ZipFile(wheel) as content:
        name = next((name for name in content.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)), None)
        text = content.read(name).decode("utf-8", "replace") if name else ""
    metadata = HeaderParser().parsestr(text)
    if metadata["License-Expression"]:
        return metadata["License-Expression"]
    classifiers = [value for value in metadata.get_all("Classifier", []) if value.startswith("License ::")]
    named = [value.rpartition(" :: ")[2] for value in classifiers if value.count("::") > 1]
    free = (metadata["License"] or "").strip()
    if named:
        return ", ".join(named)
    return free if free and len(free) < LONGEST_NAME and "\n" not in free else UNKNOWN


def of_deb(deb: Path, name: str) -> tuple[str, str | None]:
    """Licences of a Debian package from its copyright file, or the package whose copyright file it shares."""
    place = f"./usr/share/doc/{name}"
    # dpkg-deb knows every compression; only as much is unpacked as lies before the file.
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as program:  # noqa: S607
        try:
            with tarfile.open(fileobj=program.stdout, mode="r|") as content:
                for member in content:
                    if member.issym() and member.name in (place, f"{place}/copyright"):
                        parts = PurePosixPath(member.linkname).parts
                        own = member.name == place
                        return UNKNOWN, parts[-1] if own else parts[-2] if len(parts) > 1 else None
                    if member.name == f"{place}/copyright" and member.isfile():
                        return names_in(content.extractfile(member).read().decode("utf-8", "replace")), None
        except tarfile.TarError:
            return UNKNOWN, None
        finally:
            program.kill()
    return UNKNOWN, None


def names_in(copyright_text: str) -> str:
    """Short names of the licences in a copyright file of Debian, machine-readable or not."""
    if re.match(r"(?i)format(-specification)?:", copyright_text.lstrip()):
        found = re.findall(r"^License:[ \t]*(\S.*)$", copyright_text, re.MULTILINE)
    else:
        found = re.findall(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])", copyright_text)
    names = sorted({name.strip() for name in found})
    return ", ".join(names) or "as its copyright file says"
