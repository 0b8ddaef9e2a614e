"""Tables that print whole, with lines of text above or below."""

from __future__ import annotations

import html
from collections.abc import Sequence
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

import pandas as pd

#: Longest line of a printed table where the terminal has room for it, and in terminals narrower
#: than that.
WIDEST, NARROWEST = 100, 60
#: Width where there is no terminal, such as in a file.
_DEFAULT = (80, 24)
#: Headers of printed tables that say more than the names of the columns.
HEADERS = {"rse": "rse %"}


def width() -> int:
    """Characters in a line of a printed table: those of the terminal, or of the environment variable COLUMNS."""
    return min(max(get_terminal_size(_DEFAULT).columns, NARROWEST), WIDEST)


def fitted(table: pd.DataFrame, droppable: Sequence[str] = (), **options: Any) -> str:
    """A table as text that fits the terminal: without columns in their order in ``droppable``, else in blocks of columns."""
    for n in range(len(droppable) + 1):
        text = table.drop(columns=list(droppable[:n]), errors="ignore").to_string(**options)
        if max(map(len, text.splitlines())) <= width():
            return text
    return table.drop(columns=list(droppable), errors="ignore").to_string(
        line_width=width(), **options
    )


class PrintedTable(pd.DataFrame):
    """A table with lines below it. What is selected from it is an ordinary DataFrame."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _as_text(self) -> str:
        raise NotImplementedError

    def _as_html(self) -> str:
        raise NotImplementedError

    def _lines(self) -> list[str]:
        """What stands below; long lines are broken in text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(
            [self._as_text(), *(part for line in self._lines() for part in wrap(line, width()))]
        )

    def _repr_html_(self) -> str:
        return self._as_html() + "".join(f"<p>{html.escape(line)}</p>" for line in self._lines())


class HeadedTable:
    """A result with a ``table``, which prints below lines that say what it is."""

    table: pd.DataFrame

    def _heading(self) -> list[str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(
            [*self._heading(), fitted(self.table.rename(columns=HEADERS), float_format=four_digits)]
        )

    def _repr_html_(self) -> str:
        heading = "".join(f"<p>{html.escape(line)}</p>" for line in self._heading())
        return heading + self.table.rename(columns=HEADERS).to_html(float_format=four_digits)


def four_digits(x: float) -> str:
    """The format of numbers in printed tables."""
    return f"{x:.4g}"


def shortened(text: str, most: int) -> str:
    """The beginning of a text that is too long for its column."""
    return text if len(text) <= most else text[: most - 2] + ".."
