# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The byte-compiler that runs in a new environment."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.util import cache_from_source
from pathlib import Path

import pytest

BYTECODE = Path(__file__).resolve().parents[2] / "roles" / "node" / "files" / "staging" / "bytecode.py"


@pytest.mark.parametrize("processes", [1, 3])
def test_what_is_listed_is_compiled_and_nothing_else(tmp_path: Path, processes: int) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    folder = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    names = [f"module_{number}.py" for number in range(40)]
    for name in [*names, "unlisted.py"]:
        (folder / name).write_text("answer = 42\n")
    (folder / "broken.py").write_text("def\n")
    wanted = "\n".join([*names, "broken.py", "missing.py"]) + "\n"
    subprocess.run([python, "-I", BYTECODE, str(processes)], input=wanted, text=True, check=True)
    version = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
    compiled = sorted(path.name for path in (folder / "__pycache__").iterdir())
    assert compiled == sorted(f"{Path(name).stem}.{version}.pyc" for name in names)
    assert Path(cache_from_source(str(folder / names[0]))).exists()
