"""Signals at named points of ``bench``: when a module is first imported, in the parent or in a run's process.

``arm(folder, role, module, action)`` writes a ``sitecustomize.py`` into a folder for PYTHONPATH. role: "parent" or
"child". action: Python lines that run there, once; ``os``, ``signal``, ``time`` and ``MARK`` (a path beside it that
does not exist) are at hand.
"""

from __future__ import annotations

import os
from pathlib import Path

_HOOK = """\
import os, signal, sys, time
MARK = {mark!r}
role = "child" if "bench.launch.worker" in sys.orig_argv else "parent"
def _strike(event, arguments, done=[]):
    if event == "import" and arguments[0] == {module!r} and not done:
        done.append(1)
        with open({log!r}, "a") as log:
            log.write(f"{{os.getpid()}}\\n")
{action}
if role == {role!r} and "bench" in " ".join(sys.orig_argv):
    sys.addaudithook(_strike)
"""

#: Ctrl-C, once: this process.
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
#: Ctrl-C as a terminal sends it: everyone in the foreground.
INTERRUPT_ALL = "os.killpg(0, signal.SIGINT)"
#: The parent is killed; if this process is still there when it has a new one, it leaves a mark.
KILL_PARENT = """\
parent = os.getppid()
os.kill(parent, signal.SIGKILL)
while os.getppid() == parent:
    time.sleep(0.01)
open(MARK, "w").close()"""


def on_path(folder: Path) -> dict[str, str]:
    """The environment with the folder first, and the tree that is tested behind it."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def arm(folder: Path, role: str, module: str, action: str) -> dict[str, str]:
    """The environment for it. Each hit is a line of ``folder/hits``."""
    lines = "\n".join(" " * 8 + line for line in action.splitlines())
    hook = _HOOK.format(module=module, role=role, action=lines, mark=str(folder / "mark"), log=str(folder / "hits"))
    (folder / "sitecustomize.py").write_text(hook)
    return on_path(folder)


def hits(folder: Path) -> int:
    """How often the point was reached."""
    path = folder / "hits"
    return len(path.read_text().splitlines()) if path.exists() else 0
