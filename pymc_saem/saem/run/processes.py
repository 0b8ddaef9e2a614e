"""Chains in separate processes, which report to this one while they run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from time import perf_counter, sleep
from typing import Any

import cloudpickle
import numpy as np

from pymc_saem.saem.run.checkpoint import Checkpoint, Clock, Keep
from pymc_saem.saem.run.explain import explained
from pymc_saem.saem.run.snapshot import Snapshot
from pymc_saem.saem.run.stages import CtrlC

#: Seconds between two reports of a process on its progress.
_EVERY = 0.25
#: Seconds that a process may take to end when it has nothing more to do.
_PATIENCE = 10.0


class LostProcessError(RuntimeError):
    """A process ended without a result."""


def lost(number: int, reason: str) -> str:
    """What the user reads of a chain without a result."""
    return f"Chain {number} was lost ({reason}). The others are complete; resume= reruns it."


def run_in_processes(
    run_chain: Callable,
    payload: bytes,
    rngs: Sequence[np.random.Generator],
    cores: int,
    watch: Callable,
    keep: Keep | None,
    ctrl_c: CtrlC | None = None,
    announce: Callable | None = None,
) -> list:
    """``run_chain`` for each generator in at most ``cores`` processes; arguments as in ``chains.run_chains``.

    Ctrl-C is this process's affair: it asks the others to stop after their iteration, and takes
    what they have. While all of them compile, they have nothing, and are left at once. A process
    that is killed takes its own chain with it, and no other.
    """
    ctrl_c = ctrl_c or CtrlC()
    crew = _Crew(run_chain, payload, list(enumerate(rngs)), cores, watch, keep, announce)
    try:
        while crew.is_busy():
            try:
                for line in ctrl_c.during(partial(wait, list(crew.running), 0.2)):
                    crew.listen(line)
            except KeyboardInterrupt:
                if not crew.has_begun:
                    raise
                crew.stop()
    finally:
        crew.end()
    return crew.chains()


@dataclass
class _Crew:
    """The processes of some chains. Each has its own line to this one: of a shared one, a killed process may keep the lock."""

    run_chain: Callable
    payload: bytes
    waiting: list[tuple[int, np.random.Generator]]  # number of a chain, and its generator
    cores: int
    watch: Callable
    keep: Keep | None
    announce: Callable | None = None
    running: dict = field(default_factory=dict, init=False)  # line -> number and process
    done: dict = field(default_factory=dict, init=False)  # number -> chain
    # by number, of those that were lost
    errors: dict[int, BaseException] = field(default_factory=dict, init=False)
    has_begun: bool = field(default=False, init=False)

    def is_busy(self) -> bool:
        """Whether chains are running, after as many have been begun as there are cores for."""
        while self.waiting and len(self.running) < self.cores:
            self._begin(*self.waiting.pop(0))
        return bool(self.running)

    def _begin(self, number: int, rng: np.random.Generator) -> None:
        # spawn: a forked child would inherit the threads of the parent's solver, but not their
        # state
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        schedule = None if self.keep is None else self.keep.schedule
        arguments = (theirs, self.run_chain, self.payload, number, rng, schedule)
        process = context.Process(target=_work, args=arguments, daemon=True)
        self.running[ours] = number, process
        with _deaf_children():
            process.start()
        theirs.close()  # so that our end hears when the process is gone

    def listen(self, line: Any) -> None:
        """Take one report."""
        number, process = self.running[line]
        try:
            kind, *report = line.recv()
        except (EOFError, OSError):
            del self.running[line]
            process.join(_PATIENCE)
            self.errors[number] = LostProcessError(
                f"its process ended with {_ending(process.exitcode)}"
            )
            return
        self.has_begun = True
        if kind == "watch":
            self.watch(*report)
        elif kind == "announce" and self.announce is not None:
            self.announce(*report)
        elif kind == "keep" and self.keep is not None:
            self.keep(number, Snapshot.from_bytes(*report))
        elif kind in ("done", "failed"):
            del self.running[line]
            results = self.done if kind == "done" else self.errors
            results[number] = cloudpickle.loads(*report)

    def stop(self) -> None:
        """Ask for an end after the iteration."""
        self.waiting.clear()
        for line in self.running:
            try:
                line.send("stop")
            except OSError:  # it has gone, which its line will show
                continue

    def end(self) -> None:
        """Leave no process behind."""
        for _, process in self.running.values():
            if process.pid is not None:
                process.kill()
                process.join(_PATIENCE)

    def chains(self) -> list:
        """What was finished, with a word about what was lost."""
        # A chain that was asked to stop before its first iteration has nothing to give.
        chains = [chain for _, chain in sorted(self.done.items()) if chain is not None]
        if not chains and self.errors:
            raise self.errors[min(self.errors)]
        if not chains:
            raise KeyboardInterrupt
        for number, error in sorted(self.errors.items()):
            chains[0].trouble.append(
                lost(
                    number, str(error) if isinstance(error, LostProcessError) else explained(error)
                )
            )
        return chains


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that start here do not hear Ctrl-C, which a terminal sends to all, before they have arranged to ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    """How a process ended that gave no result."""
    if code is not None and code < 0:
        return f"signal {-code}" + (", possibly out of memory" if code == -9 else "")
    return f"exit code {code}; a script that uses cores= needs the line: if __name__ == '__main__':"


def leave_with_parent() -> None:
    """End this process when the one that started it is gone, because its result would be lost."""
    parent = multiprocessing.parent_process()
    sentinel = None if parent is None else parent.sentinel  # a process of joblib has none
    threading.Thread(target=_leave_with_parent, args=(os.getppid(), sentinel), daemon=True).start()


def _leave_with_parent(pid: int, sentinel: int | None) -> None:
    is_alone = False
    while not is_alone:
        if sentinel is None:
            sleep(0.2)
            is_alone = os.getppid() != pid
        else:
            is_alone = bool(wait([sentinel], 0.2))
    os._exit(1)  # from a thread, whatever the others are doing


class _NoIteration(BaseException):
    """The end was wanted before the first iteration was done."""


def _work(
    line: Connection,
    run_chain: Callable,
    payload: bytes,
    number: int,
    rng: np.random.Generator,
    schedule: Checkpoint | None,
) -> None:
    """One chain, in its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
    leave_with_parent()
    last = [0.0]

    def watch(chain: int, iteration: int, *seen: Any) -> None:
        if line.poll():
            line.recv()
            raise KeyboardInterrupt if iteration else _NoIteration
        if perf_counter() - last[0] > _EVERY:
            last[0] = perf_counter()
            line.send(("watch", chain, iteration, *seen))

    def announce(text: str) -> None:
        line.send(("announce", f"chain {number}: {text}"))

    keep = None if schedule is None else _Keep(schedule, line)
    try:
        report = (
            "done",
            cloudpickle.dumps(
                run_chain(cloudpickle.loads(payload), number, rng, watch, keep, None, announce)
            ),
        )
    except (KeyboardInterrupt, _NoIteration):
        report = "done", cloudpickle.dumps(None)
    except Exception as error:  # noqa: BLE001 - the other process decides what it means
        report = "failed", _as_bytes(error)
    line.send(report)


def _as_bytes(error: Exception) -> bytes:
    try:
        data = cloudpickle.dumps(error)
        cloudpickle.loads(data)
        return data
    except Exception:  # noqa: BLE001 - some errors cannot be sent; their text can
        return cloudpickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


class _Keep:
    """A checkpoint writer's stand-in here: snapshots go to the parent, which writes them."""

    def __init__(self, schedule: Checkpoint, line: Connection):
        self.schedule, self.clock, self.line = schedule, Clock(schedule), line

    def is_due(self, iteration: int) -> bool:
        return self.clock.is_due(iteration)

    def __call__(self, chain: int, snapshot: Snapshot) -> None:
        self.line.send(("keep", snapshot.to_bytes()))
