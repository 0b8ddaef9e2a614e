"""Progress bars: by rich in terminals and notebooks, as plain text in notebooks that have no ipywidgets."""

from __future__ import annotations

import io
from importlib.util import find_spec
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import ProgressColumn, TaskID

#: Seconds between repaints; a repaint costs as much as a few solves.
EVERY = 0.25
#: Characters of a line of plain text.
_WIDTH = 100


class Bars:
    """Bars of several tasks; nothing is drawn outside of terminals and notebooks, or without ``show``.

    Attributes
    ----------
    progress : rich.progress.Progress
        Holds the tasks.
    is_visible : bool
    """

    def __init__(self, *columns: ProgressColumn, show: bool):
        console = Console()
        self.is_visible = bool(show) and (console.is_terminal or console.is_jupyter)
        # rich warns in notebooks that it needs ipywidgets, and draws nothing
        self._is_plain = self.is_visible and console.is_jupyter and find_spec("ipywidgets") is None
        self.progress = RichProgress(
            *columns,
            console=console,
            refresh_per_second=1.0 / EVERY,
            disable=not self.is_visible or self._is_plain,
        )
        self._output: Any = None  # of IPython, once something was painted
        self._painted = 0.0

    def __enter__(self) -> Bars:
        self.progress.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.paint()
        self.progress.__exit__(*exception)

    def update(self, task: TaskID, **what: Any) -> None:
        """As ``rich.progress.Progress.update``."""
        self.progress.update(task, **what)
        if self._is_plain and perf_counter() - self._painted > EVERY:
            self.paint()

    def paint(self) -> None:
        """Draw the tasks as they are now."""
        if not self._is_plain:
            self.progress.refresh()
            return
        from IPython.display import display

        self._painted = perf_counter()
        text = io.StringIO()
        lines = Console(file=text, width=_WIDTH, force_terminal=False, force_jupyter=False)
        lines.print(self.progress.get_renderable())
        content = {"text/plain": text.getvalue().rstrip()}
        if self._output is None:
            self._output = display(content, raw=True, display_id=True)
        else:
            self._output.update(content, raw=True)
