"""Threads that share the ranges of a job, and start on the next one within a microsecond.

A transition of the E-step solves for a tenth of a millisecond, some thousand times a second. Waking
a sleeping thread takes half as long as that, so an idle helper spins for about a millisecond before
it sleeps. The caller works too, and waits only for ranges that a helper has begun.

A job is claimed range by range from one 64-bit word: its number above, the next range below. All
else about the job is read between the reading of the word and the compare-and-swap that claims a
range. If that succeeds, the word did not change meanwhile, and neither did the job: a new job has a
new number, and its caller writes it only after every range of the last one is done.
"""

from __future__ import annotations

import os
import platform
import threading

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.context import BaseContext as TypingContext
from numba.extending import intrinsic

from pymc_saem.kept import keep_function
from pymc_saem.ode.runtime.native import Intrinsic, call_task, inner, longs, writing

__all__ = [
    "SWITCH",
    "memory_of_helpers",
    "prepare",
    "run_as_switched",
    "run_in_threads",
    "run_serially",
]

# Places in the memory of the pool, a cache line apart where several threads write.
_TASK, _TABLE, _N_TASKS, _N_RANGES, _LED, _WORD, _DONE, _SIZE = 0, 1, 2, 3, 4, 16, 32, 48
# Attempts to find a job before sleeping: about a millisecond.
_PATIENCE = 20_000
# Tasks that one thread takes at a time, at most: a solver may hold memory for each of them.
_MAX_RANGE = 256
_I64 = ir.IntType(64)


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def _read(typingctx: TypingContext, address: types.Type) -> Intrinsic:
    """Atomic load."""
    return types.int64(types.int64), writing(
        lambda b, address: b.load_atomic(_pointer(b, address), "acquire", 8)
    )


@intrinsic
def _write(typingctx: TypingContext, address: types.Type, value: types.Type) -> Intrinsic:
    """Atomic store."""

    def write(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
        builder.store_atomic(value, _pointer(builder, address), "release", 8)

    return types.void(types.int64, types.int64), writing(write)


@intrinsic
def _add(typingctx: TypingContext, address: types.Type, value: types.Type) -> Intrinsic:
    """Atomic increment."""

    def write(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> ir.Value:
        return builder.atomic_rmw("add", _pointer(builder, address), value, "acq_rel")

    return types.int64(types.int64, types.int64), writing(write)


@intrinsic
def _swap(
    typingctx: TypingContext, address: types.Type, expected: types.Type, value: types.Type
) -> Intrinsic:
    """Atomic compare and swap; whether ``expected`` was found and replaced."""

    def write(
        builder: ir.IRBuilder, address: ir.Value, expected: ir.Value, value: ir.Value
    ) -> ir.Value:
        pair = builder.cmpxchg(_pointer(builder, address), expected, value, "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), writing(write)


@intrinsic
def _pause(typingctx: TypingContext) -> Intrinsic:
    """A hint to x86 processors that this is a waiting loop; nothing elsewhere."""

    def write(builder: ir.IRBuilder) -> None:
        if platform.machine().lower() in ("x86_64", "amd64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=nothing), [])

    return types.void(), writing(write)


def _ranges(n_tasks: int, n_threads: int) -> int:
    """Equal ranges, as few as possible: a solver keeps its lanes full until a range ends."""
    rounds = -(-n_tasks // (_MAX_RANGE * n_threads))
    return min(n_tasks, n_threads * rounds)


@inner
def _run_range(task: int, table: int, n_tasks: int, n_ranges: int, k: int) -> None:
    call_task(task, k * n_tasks // n_ranges, (k + 1) * n_tasks // n_ranges, table)


def _serially(task: int, table: int, n_tasks: int, n_ranges: int) -> None:
    for k in range(n_ranges):
        _run_range(task, table, n_tasks, n_ranges, k)


def _help(memory: int, patience: int) -> None:
    """Work on jobs until none has come for a while."""
    job, word = longs(memory), memory + 8 * _WORD
    idle = 0
    while idle < patience:
        claim = _read(word)
        task, table, n_tasks, n_ranges = job[_TASK], job[_TABLE], job[_N_TASKS], job[_N_RANGES]
        k = claim & 0xFFFFFFFF
        if k < n_ranges and _swap(word, claim, claim + 1):
            _run_range(task, table, n_tasks, n_ranges, k)
            _add(memory + 8 * _DONE, 1)
            idle = 0
        elif k >= n_ranges:
            idle += 1
            _pause()


def _lead(memory: int, task: int, table: int, n_tasks: int, n_ranges: int) -> None:
    """Publish a job, work on it, and wait until all of it is done; serially if another thread leads a job now."""
    job, word, done = longs(memory), memory + 8 * _WORD, memory + 8 * _DONE
    if not _swap(memory + 8 * _LED, 0, 1):
        serially(task, table, n_tasks, n_ranges)
        return
    number = (_read(word) >> 32) + 1
    job[_TASK], job[_TABLE], job[_N_TASKS], job[_N_RANGES] = task, table, n_tasks, n_ranges
    _write(done, 0)
    _write(word, number << 32)
    while True:
        claim = _read(word)
        k = claim & 0xFFFFFFFF
        if k >= n_ranges:
            break
        if _swap(word, claim, claim + 1):
            _run_range(task, table, n_tasks, n_ranges, k)
            _add(done, 1)
    while _read(done) < n_ranges:
        _pause()
    _write(memory + 8 * _LED, 0)


# How compiled graphs solve: 0 through Python, 1 serially, n with the n - 1 helpers of the pool at
# the address.
SWITCH = np.zeros(2, np.int64)


def _run_as_switched(switch: int, task: int, table: int, n_tasks: int) -> None:
    n_threads, memory = longs(switch)[0], longs(switch)[1]
    n_ranges = ranges(n_tasks, n_threads)
    if n_threads > 1 and n_tasks > 1:
        lead(memory, task, table, n_tasks, n_ranges)
    else:
        serially(task, table, n_tasks, n_ranges)


# Compiled when first called, from Python or from compiled code.
serially, help_out, lead = (
    keep_function(function, nogil=True) for function in (_serially, _help, _lead)
)
ranges, run_as_switched = inner(_ranges), inner(_run_as_switched)


class _Pool:
    """The helpers of a process; they are daemons, so they do not keep it alive."""

    def __init__(self) -> None:
        self.memory = np.zeros(_SIZE, np.int64)
        self.address = self.memory.ctypes.data
        self.wanted: list[threading.Event] = []
        self.helpers = 0

    def wake(self, n_helpers: int) -> None:
        """Start or wake this many helpers."""
        while self.helpers < n_helpers:
            event = threading.Event()
            self.wanted.append(event)
            self.helpers += 1
            threading.Thread(
                target=self._serve, args=(event,), name="pymc_saem solver", daemon=True
            ).start()
        for event in self.wanted[:n_helpers]:
            if not event.is_set():
                event.set()

    def _serve(self, event: threading.Event) -> None:
        while True:
            event.wait()
            help_out(self.address, _PATIENCE)
            event.clear()


_pool = None


def prepare(parallel: bool) -> None:
    """Compile now, so that the first real call is timed fairly."""
    if not serially.overloads:
        serially(0, 0, 0, 0)
    if parallel and not lead.overloads:
        help_out(0, 0)
        lead(np.zeros(_SIZE, np.int64).ctypes.data, 0, 0, 0, 0)


def run_serially(task: int, table: int, n_tasks: int) -> None:
    """Call ``task(begin, end, table)`` for ranges that cover ``range(n_tasks)``, one after the other."""
    serially(task, table, n_tasks, _ranges(n_tasks, 1))


def run_in_threads(task: int, table: int, n_tasks: int, n_threads: int) -> None:
    """Run all tasks in this thread and ``n_threads - 1`` helpers; serially if another thread is using the helpers."""
    lead(memory_of_helpers(n_threads), task, table, n_tasks, _ranges(n_tasks, n_threads))


def memory_of_helpers(n_threads: int) -> int:
    """int: address of the memory of the pool, whose helpers are awake."""
    global _pool
    if _pool is None:
        _pool = _Pool()
    _pool.wake(n_threads - 1)
    return _pool.address


def _forget() -> None:
    """A forked child has none of the parent's threads, and perhaps a pool that was at work."""
    global _pool
    _pool = None
    SWITCH[:] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
