"""Many tasks with one refitter, in this process or in others, through joblib.

Every process gets the refitter as bytes, compiles once and keeps it. The process of the caller
works on such a copy too, so that results do not depend on the number of processes, to the last bit.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cloudpickle
from joblib import Parallel, delayed
from rich.progress import Progress as RichProgress

from pymc_saem.refit.refitter import Refit, Refitter
from pymc_saem.saem.run.bars import Bars
from pymc_saem.saem.run.processes import leave_with_parent

#: The refitter of this process: hash of its bytes -> unpickled copy. Only the last one is kept.
_KEPT: dict[str, Refitter] = {}
#: Serializes refits, including under joblib's threading backend.
_ALONE = threading.Lock()

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Done:
    """What became of a task: a result, or the reason why there is none."""

    number: int
    result: Any = None
    failure: str = ""


def run_tasks(
    refitter: Refitter,
    work: Callable,
    tasks: Sequence,
    *,
    n_jobs: int = 1,
    progressbar: bool = True,
    title: str = "",
) -> list[Done]:
    """``work(refitter, task)`` for every task, in their order.

    Parameters
    ----------
    refitter : Refitter
    work : callable
        A function of a module, which other processes import.
    tasks : sequence
        Anything that can be pickled. What a task does must depend on nothing but itself.
    n_jobs : int
        Processes, as joblib counts them (-1: all cores); a backend of joblib that is active is
        used.
    progressbar : bool
        Shown in terminals and notebooks only.
    title : str
        Title of the bar.

    Returns
    -------
    list of Done
        One for each task. A task that fails loses no other; after Ctrl-C, those that were not done
        say "interrupted".

    Raises
    ------
    ValueError
        When there are several jobs and the model cannot be sent to other processes.
    """
    payload, key = _packed(refitter, n_jobs)
    calls = (
        delayed(_work)(payload, key, work, number, task, os.getpid())
        for number, task in enumerate(tasks)
    )
    done: dict[int, Done] = {}
    trouble = INTERRUPTED
    with Bars(*RichProgress.get_default_columns(), show=progressbar) as bars:
        shown = bars.progress.add_task(title, total=len(tasks))
        results = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(calls)
        try:
            for one in results:
                done[one.number] = one
                bars.update(shown, advance=1)
                if one.failure == INTERRUPTED:
                    break
        except KeyboardInterrupt:
            pass
        except Exception as error:  # noqa: BLE001 - a process that died must not lose what the others found
            trouble = f"{type(error).__name__}: {error}"
        finally:
            results.close()
    return [done.get(number, Done(number, failure=trouble)) for number in range(len(tasks))]


def fit_once(refitter: Refitter, arguments: Mapping[str, Any]) -> Refit:
    """The usual work: one fit, with these arguments of :meth:`Refitter.fit`."""
    return refitter.fit(**arguments)


def describe_failures(failures: Mapping[int, str], n: int, what: str) -> str:
    """One sentence about tasks that were lost; empty if none was."""
    if not failures:
        return ""
    number, reason = next(iter(failures.items()))
    return f"{len(failures)} of {n} {what} were lost; the first, number {number}: {reason}"


def _packed(refitter: Refitter, n_jobs: int) -> tuple[bytes, str]:
    """The refitter as bytes, and their hash; nothing of a model that stays in this process."""
    try:
        payload = cloudpickle.dumps(refitter)
        return payload, hashlib.sha256(payload).hexdigest()
    except Exception as error:
        if n_jobs != 1:
            raise ValueError(
                f"The model cannot be sent to other processes ({type(error).__name__}: {error}). Use n_jobs=1."
            ) from error
    _KEPT.clear()
    key = f"this process: {id(refitter)}"
    _KEPT[key] = refitter
    return b"", key


def _work(payload: bytes, key: str, work: Callable, number: int, task: Any, caller: int) -> Done:
    if os.getppid() == caller:
        _leave_with_caller()
    try:
        with _ALONE:
            return Done(number, work(_refitter(payload, key), task))
    except KeyboardInterrupt:
        return Done(number, failure=INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason of this task alone
        return Done(number, failure=f"{type(error).__name__}: {error}")


@cache
def _leave_with_caller() -> None:
    """Once in a process of joblib: when the caller is killed, nobody takes what it would find."""
    leave_with_parent()


def _refitter(payload: bytes, key: str) -> Refitter:
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = cloudpickle.loads(payload)
    return _KEPT[key]
