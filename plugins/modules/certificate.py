#!/usr/bin/python
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module openmined.pygrid.certificate."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: Give a machine its certificates
version_added: 0.2.0
description:
  - With V(requested) the machine makes a private key for each certificate and returns a request to be signed elsewhere.
    The key waits beside the certificate's file and never leaves the machine.
  - With V(present) chains are put in place together with those keys (or with a key that is handed over), and the
    services that show them are told. Neither a service nor a killed run ever meets half a certificate.
  - With V(absent) the named certificates go, and with O(everything) all that the module ever made.
  - What changes and what does not is decided by M(openmined.pygrid.certificate_info); this module does what it is told.
extends_documentation_fragment:
  - openmined.pygrid.attributes
options:
  directory:
    description: The collection's folder on the machine.
    type: path
    default: /etc/pygrid
  state:
    description: Make keys and requests, put certificates in place, or remove them.
    type: str
    choices: [requested, present, absent]
    default: present
  certificates:
    description: The certificates, as for M(openmined.pygrid.certificate_info).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the certificate, unique on the machine.
        type: str
        required: true
      file:
        description: File of the certificate chain and, unless O(certificates[].key_file) is given, of the key.
        type: path
        required: true
      key_file:
        description: File of the private key.
        type: path
      names:
        description: DNS names and addresses that the request is for.
        type: list
        elements: str
        default: []
      usage:
        description: Whether a server or a client shows it.
        type: str
        choices: [server, client]
        default: server
      source:
        description: Who issues it.
        type: str
        choices: [grid_ca, files, acme]
        default: grid_ca
      group:
        description: Group that may read the private key. Without effect while the host has no such group.
        type: str
      reload:
        description: Systemd unit that is told of the new certificate if it runs.
        type: str
      chain:
        description: The certificate and what leads from it to its CA, for V(present).
        type: str
      key:
        description: A private key from elsewhere. Without it, the one that V(requested) made is used.
        type: str
  authorities:
    description: Grid CAs to trust, for V(present). When not given, the files that tell whom to trust stay as they are.
    type: str
  trusted:
    description: Further CA certificates that nodes of this machine trust.
    type: str
    default: ""
  everything:
    description: With V(absent), remove the folder of the certificates and whom to trust as well.
    type: bool
    default: false
author:
  - OpenMined and contributors (@OpenMined)
"""

EXAMPLES = r"""
- name: Create a key and a request for alice
  openmined.pygrid.certificate:
    state: requested
    certificates:
      - {name: alice, file: /etc/pygrid/tls/alice.pem, names: [alice.hospital.example]}
  register: requested
"""

RETURN = r"""
requests:
  description: For V(requested), a C(name) and a C(request) (PEM) for each certificate. Empty in check mode.
  returned: always
  type: list
  elements: dict
reloaded:
  description: Systemd units that were told of a new certificate.
  returned: always
  type: list
  elements: str
"""

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_files import (
    WANTED_ARGUMENTS,
    Folder,
    Wanted,
    draft,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.certificate_reading import (
    alternative_name,
    blocks,
    key_fits,
    openssl,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text, write_atomic

# Reads whose client certificates it takes from the grid CA's file.
INGRESS_UNIT = "pygrid-ingress.service"


class Machine:
    """Changes the certificates of the machine that the module runs on."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def make_folder(self) -> None:
        """PostgreSQL has to pass through the folder to its own key, so it is open; the files are not."""
        for folder in (self._folder.root, self._folder.tls):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            folder.chmod(0o755)  # whatever the umask is

    def request(self, wanted: Wanted) -> dict[str, str]:
        """Make a new key that waits for its certificate, and return a request for that.

        Raises:
            PygridError: openssl is missing, or says why it cannot.
        """
        self.make_folder()
        wanted.file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        key = _answer("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        write_atomic(wanted.pending_key, key, 0o600)
        names = [f"subjectAltName={','.join(map(alternative_name, wanted.names))}"] if wanted.names else []
        extensions = [*names, f"extendedKeyUsage={wanted.usage}Auth", "keyUsage=critical,digitalSignature"]
        added = [part for extension in extensions for part in ("-addext", extension)]
        subject = f"/CN={wanted.common_name}"
        text = _answer("req", "-new", "-sha256", "-key", str(wanted.pending_key), "-subj", subject, *added)
        return {"name": wanted.name, "request": text}

    def install(self, wanted: Wanted, chain: str, key: str | None) -> None:
        """Put a chain and its key in place.

        Raises:
            PygridError: no key is waiting, or it is not the one the chain was made for.
        """
        key = key or read_text(wanted.pending_key)
        if key is None:
            raise PygridError(f"{wanted.name}: no key is waiting in {wanted.pending_key}; run the playbook again")
        wanted.file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        chain = "\n".join(blocks(chain)) + "\n"
        if wanted.reload:
            self._remember(wanted.reload)
        with contextlib.ExitStack() as drafts:
            if wanted.key_file:
                secret = drafts.enter_context(draft(wanted.key_file, key, wanted.mode, wanted.group_id))
                public = drafts.enter_context(draft(wanted.file, chain, 0o644))
                fits = key_fits(public, secret)
            else:
                public = secret = drafts.enter_context(draft(wanted.file, chain + key, wanted.mode, wanted.group_id))
                fits = key_fits(public, None)
            if not fits:
                raise PygridError(f"{wanted.name}: the key does not fit the new certificate; run the playbook again")
            if wanted.key_file:
                secret.replace(wanted.key_file)
            public.replace(wanted.file)
        with contextlib.suppress(FileNotFoundError):
            wanted.pending_key.unlink()

    def trust(self, authorities: str, trusted: str) -> None:
        """Write whom this machine trusts."""
        self._remember(INGRESS_UNIT)
        for path, text in self._folder.trust_texts(authorities, trusted).items():
            write_atomic(path, text, 0o644)

    def _remember(self, unit: str) -> None:
        known = {*self._folder.pending_units(), unit}
        write_atomic(self._folder.pending_reload, "\n".join(sorted(known)) + "\n", 0o600)

    def reload(self) -> list[str]:
        """Tell the running services of what is new; those that do not run read it when they start.

        Raises:
            PygridError: a service refuses.
        """
        told = []
        for unit in self._folder.pending_units():
            if _systemctl("is-active", "--quiet", unit).returncode != 0:
                continue
            answer = _systemctl("reload", unit)
            if answer.returncode != 0:
                raise PygridError(f"{unit} did not take the new certificate: {answer.stderr.strip()[-300:]}")
            told.append(unit)
        with contextlib.suppress(FileNotFoundError):
            self._folder.pending_reload.unlink()
        return told

    def remove(self, wanted: Wanted) -> None:
        """Remove a certificate and its key."""
        for path in (wanted.file, wanted.key_file, wanted.pending_key):
            if path:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
        with contextlib.suppress(OSError):
            wanted.file.parent.rmdir()  # unless something else is in it

    def remove_everything(self) -> None:
        """Remove whom to trust, and the folder of the certificates if nobody else put something there."""
        for path in (self._folder.authority, self._folder.trust, self._folder.pending_reload):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        for directory in (self._folder.tls, self._folder.root):
            with contextlib.suppress(OSError):
                directory.rmdir()


def _answer(*arguments: str) -> str:
    answer = openssl(*arguments)
    if answer.returncode != 0:
        raise PygridError(f"openssl {arguments[0]} failed: {answer.stderr.strip()[-300:]}")
    return answer.stdout


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemctl") or "false"  # without systemd no service of ours runs
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)


def _present(machine: Machine, module: AnsibleModule, differs: bool) -> list[str]:
    machine.make_folder()
    if differs:
        machine.trust(module.params["authorities"], module.params["trusted"])
    for one in module.params["certificates"]:
        machine.install(Wanted.from_arguments(one), one["chain"] or "", one["key"])
    return machine.reload()


def _absent(machine: Machine, wanted: list[Wanted], everything: bool) -> None:
    for one in wanted:
        machine.remove(one)
    if everything:
        machine.remove_everything()


def _is_there(folder: Folder, wanted: list[Wanted], everything: bool) -> bool:
    shared = [folder.authority, folder.trust, folder.tls] if everything else []
    paths = [path for one in wanted for path in (one.file, one.key_file, one.pending_key)]
    return any(path is not None and path.exists() for path in [*shared, *paths])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/pygrid"},
            "state": {"type": "str", "choices": ["requested", "present", "absent"], "default": "present"},
            "certificates": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**WANTED_ARGUMENTS, "key": {"type": "str", "no_log": True}},
            },
            "authorities": {"type": "str"},
            "trusted": {"type": "str", "default": ""},
            "everything": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    folder = Folder(Path(given["directory"]))
    wanted = [Wanted.from_arguments(one) for one in given["certificates"]]
    machine = Machine(folder)
    differs = given["authorities"] is not None and folder.trust_differs(given["authorities"], given["trusted"])
    result: dict[str, Any] = {"changed": True, "requests": [], "reloaded": []}
    if given["state"] == "absent":
        result["changed"] = _is_there(folder, wanted, given["everything"])
    elif given["state"] == "present":
        result["changed"] = bool(wanted or differs or folder.pending_units())
    try:
        if module.check_mode:
            pass
        elif given["state"] == "requested":
            result["requests"] = [machine.request(one) for one in wanted]
        elif given["state"] == "present":
            result["reloaded"] = _present(machine, module, differs)
        else:
            _absent(machine, wanted, given["everything"])
    except PygridError as error:
        module.fail_json(msg=str(error))
    if module._diff and result["changed"] and given["state"] != "requested":
        before, after = ("", "a new certificate\n") if given["state"] == "present" else ("a certificate\n", "")
        result["diff"] = [{"before": before, "after": after, "after_header": str(one.file)} for one in wanted]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
