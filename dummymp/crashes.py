# SPDX-License-Identifier: MIT
"""What faulthandler writes when a worker crashes, without the calls through which a task is run.

    Current thread 0x00007f02 (most recent call first):
      File "model.py", line 3 in fit
      File ".../dummymp/worker.py", line 236 in _outcome      <- from here on it says nothing to the user
"""

from __future__ import annotations

import os

__all__ = ["Crashes"]

_THREADS = ("Thread 0x", "Current thread 0x")
_FRAME = '  File "'
_OURS = f"{_FRAME}{os.path.dirname(__file__)}{os.sep}"
# What Python was started with: the last line of the calls that are ours.
_COMMAND = f'{_FRAME}<string>", line 1 in <module>'


class Crashes:
    """Takes the text of one worker, whole lines, and gives it without what is ours in lists of calls.

    Left out are our calls around the user's, and a thread in which there are only ours. What crashed in a call of ours
    is shown as it is.
    """

    def __init__(self) -> None:
        self._header = ""  # of a thread of which the first call has not come yet
        # Where we are in the list of a thread: "" (in none), "first", "theirs", "ours", "all" or "none".
        self._at = ""

    def filter(self, text: str) -> str:
        """Take lines; give those to show."""
        if not self._at and "hread 0x" not in text:
            return text
        return "".join([self._line(line) for line in text.splitlines(keepends=True)])

    def rest(self) -> str:
        """Give what is held back, since nothing more will come."""
        header, self._header, self._at = self._header, "", ""
        return header

    def _line(self, line: str) -> str:
        if line.startswith(_THREADS):
            before, self._header, self._at = self._header, line, "first"
            return before
        ours = line.startswith(_OURS)
        if self._at == "first":
            return self._first(line, ours)
        if not line.startswith(_FRAME):  # The end of the list: an empty line.
            hidden, self._at = self._at == "none" and not line.strip(), ""
            return "" if hidden else line
        if self._at == "none":
            return ""
        if self._at == "ours" and line.startswith(_COMMAND):
            return ""
        if self._at != "all" and self._at:
            self._at = "ours" if ours else "theirs"
            return "" if ours else line
        return line

    def _first(self, line: str, ours: bool) -> str:
        """Take the first call of a thread: the innermost."""
        header, self._header = self._header, ""
        if ours and header.startswith("Thread"):
            self._at = "none"
            return ""
        self._at = "" if not line.startswith(_FRAME) else "all" if ours else "theirs"
        return header + line
