"""Tables of events and covariates in a line, as Python prints them, and as a small table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["as_html", "as_text", "contents"]


def as_text(name: str, entries: Mapping[str, Any]) -> str:
    """``Name(key=value, ...)``."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in entries.items())})"


def as_html(name: str, entries: Mapping[str, Any]) -> str:
    """A table with one row per entry."""
    rows = "".join(
        f"<tr><th>{key}</th><td>{escape(_words(value))}</td></tr>" for key, value in entries.items()
    )
    return f"<p>{name}</p><table>{rows}</table>"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {entry}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def contents(table: pd.DataFrame) -> dict[str, Any]:
    """What a table of doses holds, as far as it can be counted without a system; nothing is refused here."""
    columns = {str(column).lower(): table.iloc[:, k] for k, column in enumerate(table.columns)}
    amt, rate, dur, addl, ss = (
        _numbers(columns.get(name), table) for name in ("amt", "rate", "dur", "addl", "ss")
    )
    evid = _numbers(columns.get("evid"), table, missing=float("nan"))
    evid = evid.fillna(((amt != 0) | ((ss != 0) & (rate != 0))).astype(float))
    is_dose = evid.isin((1, 4))
    subject = columns.get("subject", columns.get("id"))
    found = {
        "rows": len(table),
        "subjects": None if subject is None else subject.astype(str).nunique(),
        "doses": int(is_dose.sum()),
        "additional": int(addl[is_dose].sum()),
        "infusions": int((is_dose & ((rate != 0) | (dur > 0))).sum()),
        "steady_states": int((is_dose & (ss != 0)).sum()),
        "resets": int(evid.isin((3, 4)).sum()),
        "compartments": columns["cmt"][is_dose].dropna().unique().tolist()
        if "cmt" in columns
        else None,
    }
    return {key: value for key, value in found.items() if value or key in ("rows", "doses")}


def _numbers(column: pd.Series | None, table: pd.DataFrame, missing: float = 0.0) -> pd.Series:
    """A column as numbers; ``missing`` where it has none, or where there is no column."""
    if column is None:
        return pd.Series(missing, index=table.index)
    if not pd.api.types.is_numeric_dtype(column.dtype):
        column = pd.to_numeric(column.astype(str), errors="coerce")
    return column.astype(float).replace([np.inf, -np.inf], np.nan).fillna(missing)
