# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback openmined.pygrid.progress: what a person wants to see while a playbook runs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Show where a run is and whom it waits for
version_added: 0.1.0
author: OpenMined and contributors (@OpenMined)
description:
  - Shows one line for each play (and each batch of it), for each step that changed something and for each that took
    long. Whatever fails, texts for people and differences (C(--diff)) are shown in full.
  - At a terminal a last line tells all the time which playbook, play, batch and step runs, for how long, which hosts
    are waited for and, where they say so, what they are at. Elsewhere a plain line tells that every now and then.
  - With C(-v) and more it is the default output.
  - It also lets the record of changes tell which task failed on which host, and how many results changed something; see
    M(openmined.pygrid.lease).
  - It is used when C(ansible.cfg) names it, or C(ANSIBLE_STDOUT_CALLBACK=openmined.pygrid.progress) does.
extends_documentation_fragment:
  - ansible.builtin.default_callback
  - ansible.builtin.result_format_callback
options:
  report_seconds:
    description:
      - After how many seconds of waiting, and then again after as many, a line tells what is waited for. At a terminal
        the last line tells it all the time.
    type: int
    default: 30
    ini:
      - section: callback_progress
        key: report_seconds
    env:
      - name: PYGRID_PROGRESS_SECONDS
"""

EXAMPLES = r"""
# ansible.cfg
# [defaults]
# stdout_callback = openmined.pygrid.progress
"""

import atexit
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.plugins.callback.default import CallbackModule as DefaultCallback

from ansible_collections.openmined.pygrid.plugins.module_utils.record import FAILED, Record, open_runs
from ansible_collections.openmined.pygrid.plugins.plugin_utils import controller_process, run_state
from ansible_collections.openmined.pygrid.plugins.plugin_utils.live_line import LiveLine, is_terminal
from ansible_collections.openmined.pygrid.plugins.plugin_utils.progress import Progress, names

# A step that took longer is told of even though it changed nothing.
LONG_SECONDS = 10
PROMPTING = ("ansible.builtin.pause", "ansible.legacy.pause", "pause")
SAYING = ("ansible.builtin.debug", "ansible.legacy.debug", "debug")
# What a failed result may hold beside its message when the message says it all.
UNREMARKABLE = {"msg", "changed", "failed", "unreachable", "exception", "invocation", "held_by", "record_file"}


class CallbackModule(DefaultCallback):
    """The default output, thinned out as long as nobody asks for more."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "openmined.pygrid.progress"

    def __init__(self) -> None:
        super().__init__()
        self._progress = Progress()
        self._live: LiveLine | None = None
        self._prompting = False
        self._told_seconds = 0.0
        self._plays_seen: list[str] = []
        self._batch = 0
        self._failures: dict[str, str] = {}
        self._record_file = ""

    @property
    def _is_terse(self) -> bool:
        return self._display.verbosity == 0

    # -- playbook, plays, tasks --------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook: Any) -> None:
        super().v2_playbook_on_start(playbook)
        self._progress.start(Path(playbook._file_name).stem, len(playbook.get_plays()))
        run_state.STATE.changed = 0
        if not self._is_terse:
            return
        run_state.STATE.folder = Path(tempfile.mkdtemp(prefix="progress-", dir=constants.DEFAULT_LOCAL_TMP))
        self._live = LiveLine(self._display, self._tick)
        self._live.start()
        atexit.register(self._live.stop)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if not self._is_terse:
            super().v2_playbook_on_play_start(play)
            return
        self._end_step()
        self._play = play
        if play._uuid in self._plays_seen[-1:]:
            self._batch += 1
        else:
            self._plays_seen.append(play._uuid)
            self._batch = 1
        hosts = [host.get_name() for host in play.get_variable_manager()._inventory.get_hosts(play.hosts)]
        batch = _batch_title(self._batch, list(play.serial or []))
        self._progress.start_play(len(self._plays_seen), play.get_name().strip(), batch)
        self._say(f"{self._progress.heading()}: {names(hosts)}")

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if not self._is_terse:
            super().v2_playbook_on_no_hosts_matched()

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        if not self._is_terse:
            super()._task_start(task, prefix)
            return
        self._task_type_cache[task._uuid] = prefix or "TASK"
        self._last_task_name = task.get_name().strip()
        self._end_step()
        self._progress.start_step(_title(task))
        self._prompting = task.action in PROMPTING

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        super().v2_runner_on_start(host, task)
        self._progress.await_host(host.get_name())

    # -- results -----------------------------------------------------------------------------------------

    def v2_runner_on_ok(self, result: Any) -> None:
        task, host, answer = _parts(result)
        self._note(host, answer)
        if not self._is_terse:
            super().v2_runner_on_ok(result)
            return
        self._warn(result)
        if task.action in SAYING and isinstance(answer.get("msg"), str):
            self._display.display(f"\n{answer['msg']}\n")
        elif task.action in SAYING:
            super().v2_runner_on_ok(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        _task, host, answer = _parts(result)
        self._note(host, answer)
        if not self._is_terse:
            super().v2_runner_on_skipped(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        task, host, answer = _parts(result)
        self._note(host, {})
        if not ignore_errors:
            self._failures[host] = f"{_title(task)} on {host}: {_first_line(answer.get('msg'))}"
        if self._is_terse and _says_it_all(answer):
            self._fail(host, task, "FAILED", answer["msg"])
            return
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        task, host, answer = _parts(result)
        self._note(host, {})
        if not task.ignore_unreachable:
            self._failures[host] = f"{_title(task)} on {host}: it cannot be reached"
        if self._is_terse and _says_it_all(answer):
            self._fail(host, task, "CANNOT BE REACHED", answer["msg"])
            return
        super().v2_runner_on_unreachable(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._is_terse:
            self._warn(result)
        else:
            super().v2_runner_item_on_ok(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._is_terse:
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._live is not None:
            self._end_step()
            self._live.stop()
        results = {host: stats.summarize(host) for host in sorted(stats.processed)}
        lost = [host for host, result in results.items() if result["failures"] or result["unreachable"]]
        self._complete_record([self._failures[host] for host in lost if host in self._failures])
        if not self._is_terse:
            super().v2_playbook_on_stats(stats)
            return
        changed = sum(result["changed"] for result in results.values())
        done = "would change (--check)" if context.CLIARGS["check"] else "changed"
        text = f"{len(results)} hosts, {changed or 'nothing'} {done}"
        if lost:
            self._say(f"{self._progress.verb} FAILED on {names(lost)}: {text}", constants.COLOR_ERROR)
        else:
            self._say(f"{self._progress.verb} is done: {text}", constants.COLOR_OK)

    # -- what is said ------------------------------------------------------------------------------------

    def _say(self, text: str, colour: str | None = None) -> None:
        self._display.display(f"{self._progress.elapsed:>7}  {text}", color=colour)

    def _fail(self, host: str, task: Any, how: str, message: str) -> None:
        lines = "\n".join(f"           {line}" for line in str(message).splitlines())
        self._say(f"{how} on {host}: {_title(task)}\n{lines}", constants.COLOR_ERROR)

    def _warn(self, result: Any) -> None:
        handle = getattr(self, "_handle_warnings_and_exception", None)  # ansible-core 2.19
        if handle is not None:
            handle(result)
        else:
            self._handle_warnings(result._result)

    def _end_step(self) -> None:
        """Tell of a step what it changed, or that it took long."""
        progress, changed = self._progress, self._progress.changed
        took = f" ({progress.step_seconds:.0f} s)" if progress.step_seconds >= 1 else ""
        if changed:
            self._say(f"  {progress.step}: {names(changed)} changed{took}", constants.COLOR_CHANGED)
        elif progress.step and progress.step_seconds >= LONG_SECONDS:
            self._say(f"  {progress.step}{took}")
        self._told_seconds = 0.0

    def _note(self, host: str, answer: dict[str, Any]) -> None:
        """A result has come."""
        changed = bool(answer.get("changed"))
        self._progress.is_done(host, changed)
        run_state.forget(host)
        run_state.STATE.changed = (run_state.STATE.changed or 0) + changed
        self._record_file = answer.get("record_file") or self._record_file

    def _tick(self) -> None:
        """Once a second, in a thread of its own."""
        if self._prompting:
            return
        if is_terminal() and self._live is not None:
            self._live.show(self._progress.line(run_state.reported))
            return
        seconds = self._progress.step_seconds
        if self._progress.awaited and seconds - self._told_seconds >= self.get_option("report_seconds"):
            self._told_seconds = seconds
            waiting = self._progress.waiting(run_state.reported)
            self._say(f"  {self._progress.step}: {seconds:.0f} s, waiting for {waiting}")

    def _complete_record(self, failures: list[str]) -> None:
        """A run that failed did not come to where it notes its end."""
        if not failures or not self._record_file:
            return
        record = Record(Path(self._record_file))
        own = controller_process.own_name(os.getpid())
        try:
            for run, verb in open_runs(record.entries()):
                if run == own:
                    record.end(run, verb, FAILED, "; ".join(failures), changed=run_state.STATE.changed)
        except OSError as error:
            self._display.warning(f"The record of changes on the controller is not complete: {error}")


def _parts(result: Any) -> tuple[Any, str, dict[str, Any]]:
    """Task, name of the host and answer; ansible-core before 2.19 has other names for them."""
    if hasattr(result, "task"):
        return result.task, result.host.get_name(), result.result
    return result._task, result._host.get_name(), result._result


def _title(task: Any) -> str:
    """The name of a task; that of its role is for those who look for the task."""
    return task.get_name().strip().rpartition(" : ")[2]


def _first_line(message: Any) -> str:
    return next(iter(str(message or "").splitlines()), "failed")


def _says_it_all(answer: dict[str, Any]) -> bool:
    known = {key for key in answer if not key.startswith("_ansible")}
    return isinstance(answer.get("msg"), str) and known <= UNREMARKABLE and "Traceback" not in answer["msg"]


def _batch_title(number: int, serial: list[Any]) -> str:
    """``batch 2 of 5`` when each batch has its own number of hosts; empty without batches."""
    if not serial:
        return ""
    return f"batch {number} of {len(serial)}" if number <= len(serial) > 1 else f"batch {number}"
