"""What an input ended in, judged by an answer that is not the package's own."""

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymc_saem

RIGHT, REFUSED, WARNED = "right", "refused", "warned"
NEEDLESS, WRONG, LOST, CRASH = "refused though valid", "silent wrong", "lost", "crash"
#: In the order of the table; the last ones must not occur.
VERDICTS = (RIGHT, REFUSED, WARNED, NEEDLESS, WRONG, LOST, CRASH)
BAD = (NEEDLESS, WRONG, LOST, CRASH)

_PACKAGE = Path(pymc_saem.__file__).parent
#: An AttributeError that is raised, and not met, says of y.d that there is no state d.
_CLEAR = (ValueError, TypeError, OSError, NotImplementedError, ImportError, AttributeError)


class Lost(Exception):
    """Raised by a call whose iterations are over and whose result is not there."""


@dataclass
class Input:
    """Something that a user may do, and how to tell whether it went well.

    Attributes
    ----------
    text : str
        What is special about it.
    call : callable
        Does it; building a model belongs to ``make``, so that errors of PyMC are not taken for the
        package's.
    check : callable or None
        Of what ``call`` returned: what is wrong with it, or None. No check: nothing but a refusal
        or a warning is right.
    names : tuple of str
        One of them is in the text of any refusal or warning that counts, in small or capital
        letters.
    valid : bool
        Whether it must be answered, so that a refusal is a fault as well.
    foreign : bool
        Whether errors that other packages raise, without ours on the stack, are faults of ours.
    """

    text: str
    call: Callable[[], Any]
    check: Callable[[Any], str | None] | None = None
    names: tuple[str, ...] = ()
    valid: bool = False
    foreign: bool = False


def judge(item: Input) -> tuple[str, str]:
    """Verdict, and what happened."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = item.call()
        except Lost as error:
            return LOST, str(error)
        except BaseException as error:  # KeyboardInterrupt, too, belongs to nobody here
            return _of_error(item, error)
        wrong = item.check(found) if item.check else "something that has no right answer was taken"
    raw = [
        w
        for w in caught
        if issubclass(w.category, RuntimeWarning) and not issubclass(w.category, UserWarning)
    ]
    if raw:
        return (
            CRASH,
            f"raw warning: {raw[0].message} ({Path(raw[0].filename).name}:{raw[0].lineno})",
        )
    if wrong is None:
        return RIGHT, ""
    said = [
        str(w.message)
        for w in caught
        if issubclass(w.category, UserWarning) and _names(item, str(w.message))
    ]
    return (WARNED, said[0]) if said else (WRONG, wrong)


def _of_error(item: Input, error: BaseException) -> tuple[str, str]:
    stack = traceback.extract_tb(error.__traceback__)
    frames = [Path(f.filename) for f in stack]
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if not item.foreign and not any(_PACKAGE in f.parents for f in frames):
        return REFUSED, f"before the package: {text}"
    # and not by the interpreter
    is_ours = _PACKAGE in frames[-1].parents and (stack[-1].line or "").startswith("raise")
    is_told = type(error) is KeyError and " " in str(error)  # a sentence, not a key
    if not (is_ours and str(error) and (is_told or _is_clear(type(error)))):
        return CRASH, f"{text} ({frames[-1].name})"
    if not _names(item, str(error)):
        return CRASH, f"names none of {', '.join(item.names)}: {text}"
    return (NEEDLESS if item.valid else REFUSED), text


def _is_clear(kind: type) -> bool:
    """A LinAlgError is a ValueError, and a KeyError a LookupError: kinds count as they are, but for files and those of the package."""
    if kind.__module__.startswith("pymc_saem"):
        return issubclass(kind, _CLEAR)
    return kind in _CLEAR or issubclass(kind, OSError)


def _names(item: Input, text: str) -> bool:
    return not item.names or any(name.lower() in text.lower() for name in item.names)
