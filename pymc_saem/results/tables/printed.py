"""Tables that print whole, with lines of text above or below."""

from __future__ import annotations

import html
from textwrap import wrap

import pandas as pd

#: Longest line of a printed table, as far as the names in it allow.
WIDTH = 100


class PrintedTable(pd.DataFrame):
    """A table with lines below it. What is selected from it is an ordinary DataFrame."""

    _width = WIDTH

    @property
    def _constructor(self):
        return pd.DataFrame

    def _as_text(self) -> str:
        raise NotImplementedError

    def _as_html(self) -> str:
        raise NotImplementedError

    def _lines(self) -> list[str]:
        """What stands below; long lines are broken in text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join([self._as_text(), *(part for line in self._lines() for part in wrap(line, self._width))])

    def _repr_html_(self) -> str:
        return self._as_html() + "".join(f"<p>{html.escape(line)}</p>" for line in self._lines())


class HeadedTable:
    """A result with a ``table``, which prints below lines that say what it is."""

    table: pd.DataFrame

    def _heading(self) -> list[str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join([*self._heading(), self.table.to_string(float_format=_four_digits)])

    def _repr_html_(self) -> str:
        heading = "".join(f"<p>{html.escape(line)}</p>" for line in self._heading())
        return heading + self.table.to_html(float_format=_four_digits)


def _four_digits(x: float) -> str:
    return f"{x:.4g}"


def shortened(text: str, most: int) -> str:
    """The beginning of a text that is too long for its column."""
    return text if len(text) <= most else text[: most - 2] + ".."
