# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of disposable hosts with a real systemd, on one machine: `python3 -m tests.lab --help`.

A host is `systemd-nspawn --boot` on an overlay over a shared base root, in a network namespace and a control group of
its own. All hosts of a lab hang on one bridge inside the lab's namespace, which reaches the outside by slirp4netns.
Nothing of this machine's own network is touched, and everything a lab writes lies in the checkout's .cache/lab.
"""
