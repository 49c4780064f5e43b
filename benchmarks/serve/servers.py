"""Servers in processes of their own: started, waited for, weighed, ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from benchmarks.processes import threads_environment
from benchmarks.serve.clients import answer

PORT = "{port}"
QUIET = {"CONJURE_HISTORY": "off", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


class NotThere(Exception):
    """A program that cannot be started here."""


@dataclass(frozen=True)
class Program:
    """How a server is started ("{port}" stands for the port), and the name it knows the model by."""

    name: str
    command: Sequence[str]
    model: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    program: Program
    port: int
    pid: int

    @property
    def memory(self) -> int:
        """Bytes that lie in memory, of the process and its children."""
        return sum(resident(pid) for pid in family(self.pid))


def beside(name: str) -> str | None:
    """A command of the environment this runs in."""
    return shutil.which(name, path=str(Path(sys.executable).parent))


def conjure(folders: Sequence[Path], model: str) -> Program:
    command = [beside("conjure") or "conjure", "serve", "--port", PORT, "--no-history"]
    return Program("conjure", [*command, *(word for each in folders for word in ("--model", str(each)))], model)


def transformers(folder: Path, *, batching: bool) -> Program:
    """`transformers serve` in float32, with and without its continuous batching."""
    command = beside("transformers")
    if command is None:
        raise NotThere("transformers serve: pip install 'transformers[serving]'")
    words = [command, "serve", str(folder), "--port", PORT, "--device", "cpu", "--dtype", "float32"]
    more = ["--continuous-batching", "--cb-max-memory-percent", "0.1"] if batching else []  # else it takes nearly all
    return Program(f"transformers{' batching' if batching else ''}", [*words, *more], str(folder))


def found(binary: str) -> str:
    """Where llama.cpp's server lies."""
    path = shutil.which(binary)
    if path is None:
        raise NotThere(f"llama.cpp's server: there is no {binary}; --llama names it")
    return path


def llama(binary: str, file: Path, *, slots: int, tokens: int, threads: int) -> Program:
    """llama.cpp's own server; it shares one context between its slots."""
    words = [binary, "-m", str(file), "--host", "127.0.0.1", "--port", PORT, "-t", str(threads), "-tb", str(threads)]
    return Program(f"llama.cpp {file.stem}", [*words, "-np", str(slots), "-c", str(slots * tokens)], file.stem)


@contextmanager
def running(program: Program, threads: int, patience: float = 600.0) -> Iterator[Running]:
    """The server once it is up; `NotThere` with what it wrote where it ends before that."""
    port = free_port()
    command = [word.replace(PORT, str(port)) for word in program.command]
    environment = {**os.environ, **threads_environment(threads), **QUIET, **program.environment}
    with TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
        try:
            until = time.monotonic() + patience
            while not _healthy(port):
                if process.poll() is not None or time.monotonic() > until:
                    said.seek(0)
                    raise NotThere(f"{program.name} did not start: {said.read()[-600:].decode(errors='replace')}")
                time.sleep(0.2)
            yield Running(program, port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _healthy(port: int) -> bool:
    try:
        return asyncio.run(answer(port, "/health"))[0] == 200
    except (OSError, asyncio.IncompleteReadError):
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def resident(pid: int) -> int:
    """Bytes of a process that lie in memory; 0 of one that has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except FileNotFoundError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for each in found:
        for tasks in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, tasks.read_text().split())
            except FileNotFoundError:  # a thread that has just ended
                continue
    return found
