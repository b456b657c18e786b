"""Run a command and write its exit status, memory (KiB) and processor time (seconds) to a file.

In a small process of its own: what a process had at the time of fork counts as its child's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    process = subprocess.Popen(sys.argv[2:])
    _, status, usage = os.wait4(process.pid, 0)
    figures = [os.waitstatus_to_exitcode(status), usage.ru_maxrss]
    Path(sys.argv[1]).write_text(json.dumps([*figures, usage.ru_utime + usage.ru_stime]))
