"""What holds while a run lasts: the folder is ours, the threads are set, Ctrl-C waits for the step's end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from conjure.core.errors import ConjureError
from conjure.core.files import folder_lock
from conjure.train import checkpoint
from conjure.train.distributed import World


@contextmanager
def claimed(folder: Path, world: World, resume: bool) -> Iterator[None]:
    """The folder, made and locked by the first process; unless resuming, it may hold no checkpoints."""
    if not world.first:
        world.wait()
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "choose another folder"
        raise ConjureError(f"{folder}: could not be made: {error.strerror}", hint=hint) from None
    with folder_lock(folder):
        checkpoint.clear(folder)
        if not resume and (place := checkpoint.latest(folder)):
            raise ConjureError(f"{folder} already holds a run, up to {place.name}", hint="--resume, or another folder")
        world.wait()
        yield


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets instead of breaking off in mid-step; the second one breaks off."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield pressed
        return
    before = signal.getsignal(signal.SIGINT)

    def remember(number: int, frame: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, remember)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
