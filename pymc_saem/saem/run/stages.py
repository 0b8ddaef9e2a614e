"""Work that comes after iterations: whatever fails there becomes a note of the fit, and Ctrl-C ends a piece of work, never the fit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pymc_saem.saem.run.explain import explained


class CtrlC:
    """Where Ctrl-C raises KeyboardInterrupt: before the first call of :meth:`during`, then in these calls, and nowhere between them.

    So it cannot come between an iteration and the place where its result is kept. What comes
    between two calls waits for the next. A context manager; it does nothing in other threads, where
    Python raises no KeyboardInterrupt, or where somebody else handles the signal.
    """

    def __init__(self) -> None:
        self._raises, self.is_waiting, self._is_installed = True, False, False

    def __enter__(self) -> CtrlC:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._hear)
            self._is_installed = True
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _hear(self, number: int, frame: Any) -> None:
        if self._raises:
            raise KeyboardInterrupt
        self.is_waiting = True

    def during(self, work: Callable[[], Any]) -> Any:
        """Do some work, in which Ctrl-C raises."""
        try:
            self._raises = True
            if self.is_waiting:
                self.is_waiting = False
                raise KeyboardInterrupt
            return work()
        finally:
            self._raises = False


_INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Note:
    """A piece of work that has no result, and why."""

    stage: str
    reason: str

    @property
    def was_interrupted(self) -> bool:
        return self.reason == _INTERRUPTED

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}; the estimate is complete."


class Stages:
    """Pieces of work, each of which may fail on its own.

    Parameters
    ----------
    ctrl_c : CtrlC, optional
    announce : callable, optional
        ``announce(stage)`` before each long piece of work.

    Attributes
    ----------
    notes : list of Note
        Of what failed so far.
    """

    def __init__(self, ctrl_c: CtrlC | None = None, announce: Callable[[str], Any] | None = None):
        self.ctrl_c, self.announce = ctrl_c or CtrlC(), announce
        self.notes: list[Note] = []

    def attempt(
        self, stage: str, work: Callable[[], Any], otherwise: Any = None, *, is_long: bool = False
    ) -> Any:
        """What ``work`` returns, or ``otherwise``, with a note, when it raises.

        Parameters
        ----------
        stage : str
            What is being done, as the note calls it.
        is_long : bool
            Whether Ctrl-C ends it. Short work runs to its end.
        """
        if is_long and self.announce is not None:
            self.announce(stage)
        try:
            return self.ctrl_c.during(work) if is_long else work()
        except KeyboardInterrupt:
            self.notes.append(Note(stage, _INTERRUPTED))
        except Exception as error:  # noqa: BLE001 - the estimate must survive any failure after it
            self.notes.append(Note(stage, f"failed ({_text_of(error)})"))
        return otherwise


def _text_of(error: Exception) -> str:
    """What an error means, in one line; errors of compiled graphs have pages."""
    try:
        text = " ".join(explained(error).split())
    except Exception:  # noqa: BLE001 - an error without a text is still one
        text = f"{type(error).__name__}: no text"
    return f"{text[:500]}{'...' if len(text) > 500 else ''}"


def texts_of(notes: list[Note]) -> list[str]:
    """Sentences about notes; those with the same reason are joined."""
    of_reason: dict[str, list[str]] = {}
    for note in notes:
        of_reason.setdefault(note.reason, []).append(note.stage)
    return [
        str(Note(", ".join(dict.fromkeys(stages)), reason)) for reason, stages in of_reason.items()
    ]
