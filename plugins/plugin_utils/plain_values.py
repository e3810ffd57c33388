# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values from elsewhere as variables that are never taken for templates."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ansible.utils.unsafe_proxy import wrap_var

try:
    from ansible.template import trust_as_template  # ansible-core 2.19 and later
except ImportError:
    trust_as_template = None


def plain(value: Any) -> Any:
    """The value with no string in it that would be evaluated.

    Without a brace (or a header that changes what stands for one) a string is the same as a template and as itself.
    ansible-core 2.19 has to be told so, or ansible-inventory writes ``{"__ansible_unsafe": "alice"}`` for it. Any other
    string is left untrusted there, and before 2.19 marked as what must not be evaluated.
    """
    if isinstance(value, str):
        return _plain_text(value)
    if isinstance(value, Mapping):
        return {plain(name): plain(item) for name, item in value.items()}
    return value


@lru_cache(maxsize=10_000)  # of thousands of machines most regions, types and names of tags are the same
def _plain_text(text: str) -> str:
    if "{" in text or "#" in text:
        return wrap_var(text)
    return trust_as_template(text) if trust_as_template else text
