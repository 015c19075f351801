"""Processes of runs that start at once: a server with torch imported is forked for each of them.

The server (``python -m bench.launch.worker --serve``) never touches CUDA and starts no thread. It dies with its parent,
and each run's process dies with the server. If a platform cannot fork safely, each run starts a Python of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench.launch.worker import start_server, start_worker


class RunProcess(Protocol):
    """What a session needs of ``subprocess.Popen``."""

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class ForkServer:
    """Starts the processes of runs, one at a time. pass_fds: descriptors that they all keep open."""

    def __init__(self, pass_fds: Sequence[int] = ()) -> None:
        self._pass_fds = tuple(pass_fds)
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self, folder: Path, *, quiet: bool) -> RunProcess:
        """Start the run of a folder that has its ``spec.json``. Raises OSError."""
        if sys.platform != "linux":  # macOS: frameworks that torch loads do not survive a fork
            return start_worker(folder, quiet=quiet, pass_fds=self._pass_fds)
        if self._server is None or self._server.poll() is not None:
            self.close()
            self._channel, theirs = socket.socketpair()
            with theirs:
                self._server = start_server(theirs.fileno(), self._pass_fds)
        assert self._channel is not None
        request = {"folder": str(folder.resolve()), "quiet": quiet}
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        return _Forked(self._server, self._channel)

    def close(self) -> None:
        """End the server, which no run is waited for; nobody holds the descriptors afterwards."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._server is not None:
            self._server.wait()
            self._server = None


class _Forked:
    """A process that the server forked, as the server tells of it: first its number, then its exit code."""

    def __init__(self, server: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._server, self._channel = server, channel
        self._heard = b""
        self._pid: int | None = None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        while self.returncode is None and select.select([self._channel], [], [], 0)[0]:
            self._listen()
        return self.returncode

    def wait(self) -> int:
        while self.returncode is None:
            self._listen()
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, signum: signal.Signals) -> None:
        if self.poll() is not None:
            return
        if self._pid is None:  # the server still imports, and forks nothing any more
            self._server.send_signal(signum)
        else:
            os.kill(self._pid, signum)

    def _listen(self) -> None:
        try:
            heard = self._channel.recv(4096)
        except ConnectionResetError:
            heard = b""
        if not heard:  # the server was killed, and with it the run
            self.returncode = self._server.wait()
            return
        *lines, self._heard = (self._heard + heard).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self._pid = said.get("pid", self._pid)
            self.returncode = said.get("code")
