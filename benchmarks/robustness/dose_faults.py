"""Tables of doses with one thing in them that is wrong, or written as nobody expects."""

import numpy as np
import pandas as pd

from robustness.judge import Input


def _set(column, value, **others):
    """A fault: the first dose has this value, and whatever else makes it count."""

    def change(table, study):
        changed = table.astype(object)
        row = int(np.flatnonzero(table["evid"].isin([1, 4]) & (table["amt"] > 0))[0])
        for name, x in {column: value, **others}.items():
            changed.iloc[row, changed.columns.get_loc(name)] = (
                x(table.iloc[row], study) if callable(x) else x
            )
        return changed

    return change


_BOLUS = {"rate": 0.0, "dur": 0.0, "addl": 0, "ii": 0.0, "ss": 0}
# What is wrong, how it gets there, and words that tell the user.
FAULTS = [
    ("negative amount", _set("amt", -5.0), ("amt",)),
    ("amount that is missing", _set("amt", np.nan), ("amt",)),
    ("amount NA", _set("amt", pd.NA), ("amt",)),
    ("dose of nothing", _set("amt", 0.0, **_BOLUS), ("amt",)),
    ("infinite amount", _set("amt", np.inf), ("amt",)),
    ("amount as words", _set("amt", "much"), ("amt",)),
    ("amount is a list", _set("amt", (1.0, 2.0)), ("amt",)),
    ("rate -3", _set("rate", -3.0, dur=0.0), ("rate",)),
    ("rate and duration", _set("rate", 5.0, dur=2.0), ("rate", "dur")),
    ("rate -1 without a parameter", _set("cmt", "gut", **(_BOLUS | {"rate": -1.0})), ("rate",)),
    ("rate NaN and infinite duration", _set("dur", np.inf, rate=np.nan), ("dur",)),
    ("steady state without interval", _set("ss", 1, **{k: v for k, v in _BOLUS.items() if k != "ss"}), ("ii",)),
    ("more doses without interval", _set("addl", 2, ii=0.0), ("ii",)),
    ("one and a half more doses", _set("addl", 1.5, ii=8.0), ("addl",)),
    ("fewer doses", _set("addl", -1, ii=8.0), ("addl",)),
    ("negative interval", _set("ii", -12.0, addl=1), ("ii",)),
    ("ss 3", _set("ss", 3, ii=12.0), ("ss",)),
    ("evid 5", _set("evid", 5), ("evid",)),
    ("evid -1", _set("evid", -1), ("evid",)),
    ("evid 1.5", _set("evid", 1.5), ("evid",)),
    ("a third compartment of two", _set("cmt", 3, **_BOLUS), ("cmt",)),
    ("compartment 0", _set("cmt", 0, **_BOLUS), ("cmt",)),
    ("compartment -1 turns it off", _set("cmt", -1, **_BOLUS), ("cmt",)),
    ("compartment misspelled", _set("cmt", "blod", **_BOLUS), ("cmt",)),
    ("compartment 1.5", _set("cmt", 1.5, **_BOLUS), ("cmt",)),
    ("compartment missing", _set("cmt", np.nan, **_BOLUS), ("cmt",)),
    ("compartment None", _set("cmt", None, **_BOLUS), ("cmt",)),
    ("time missing", _set("time", np.nan), ("time",)),
    ("time NaT", _set("time", pd.NaT), ("time",)),
    ("infinite time", _set("time", np.inf), ("time",)),
    ("time before the start", _set("time", -1.0), ("time", "t0")),
    ("time of day", _set("time", "08:30"), ("time",)),
    ("timestamp", _set("time", pd.Timestamp("2024-01-01")), ("time",)),
    ("timestamp with a zone", _set("time", pd.Timestamp("2024-01-01", tz="UTC")), ("time",)),
    ("timedelta", _set("time", pd.Timedelta(hours=3)), ("time",)),
    ("one subject too many", _set("subject", lambda row, study: study.n), ("subject",)),
    ("subject -1", _set("subject", -1), ("subject",)),
    ("subject 0.5", _set("subject", 0.5), ("subject",)),
    ("subject missing", _set("subject", np.nan), ("subject",)),
    ("subject as text", _set("subject", "anna"), ("subject",)),
    ("no column of times", lambda t, s: t.drop(columns="time"), ("time",)),
    ("no amounts and no evid", lambda t, s: t.drop(columns=["amt", "evid"]), ("amt",)),
    ("no subjects", lambda t, s: t.drop(columns="subject"), ("subject",)),
    ("a column twice", lambda t, s: t.assign(AMT=1.0), ("AMT",)),
    ("one name for two columns", lambda t, s: pd.concat([t, t[["amt"]]], axis=1), ("amt",)),
    ("duration instead of dur", lambda t, s: t.drop(columns="dur").assign(duration=1.0), ("duration",)),
    ("a dictionary", lambda t, s: t.to_dict("list"), ("DataFrame",)),
    ("a column of timestamps", lambda t, s: t.assign(time=pd.Timestamp("2024-01-01") + pd.to_timedelta(t["time"], unit="h")), ("time",)),
    ("a column of times with a zone", lambda t, s: t.assign(time=pd.Timestamp("2024-01-01", tz="CET") + pd.to_timedelta(t["time"], unit="h")), ("time",)),
    ("a column of time spans", lambda t, s: t.assign(time=pd.to_timedelta(t["time"], unit="h")), ("time",)),
]  # fmt: skip


def _text(table, study):
    return table.assign(amt=table["amt"].astype(str), time=table["time"].astype(str))


def _nullable(table, study):
    kinds = {
        "subject": "Int64",
        "amt": "Float64",
        "evid": "Int64",
        "addl": "Int64",
        "ss": "Int64",
        "ii": "Float64",
    }
    return table.astype(kinds).assign(addl=lambda t: t["addl"].where(t["addl"] > 0, pd.NA))


def _many_index(table, study):
    return table.set_index(
        pd.MultiIndex.from_arrays([table["subject"], ["a"] * len(table)], names=["subject", "time"])
    )


def _ten_million(table, study):
    """Those after the last row are nobody's."""
    for row in study.rows:
        row["addl"] = 60 if row["addl"] else 0
        row["ii"] = max(row["ii"], 2.0)
    return table.assign(
        addl=np.where(table["addl"] > 0, 10_000_000, 0), ii=table["ii"].clip(lower=2.0)
    )


# The same doses, dressed otherwise: right, or refused with a word for what is meant.
DRESSES = [
    ("index that repeats", lambda t, s: t.set_index(pd.Index([5] * len(t)))),
    ("index of many levels, named as columns", _many_index),
    ("capital letters", lambda t, s: t.rename(columns=str.upper)),
    ("ID instead of subject", lambda t, s: t.rename(columns={"subject": "ID"})),
    ("objects", lambda t, s: t.astype(object)),
    ("nullable numbers with NA", _nullable),
    ("text that is numbers", _text),
    ("columns the other way round, and more of them", lambda t, s: t[t.columns[::-1]].assign(dv=np.nan, mdv=1, comment="x")),
    ("categories", lambda t, s: t.astype({"cmt": "category", "subject": "category", "evid": "category"})),
    ("float subjects", lambda t, s: t.astype({"subject": float})),
    ("small floats", lambda t, s: t.astype({"addl": np.float32, "evid": np.int8, "ss": np.uint8})),
    ("compartments by number", lambda t, s: t.assign(cmt=t["cmt"].map({"gut": 1, "blood": 2}))),
    ("compartments by numbers as text", lambda t, s: t.assign(cmt=t["cmt"].map({"gut": "1", "blood": "2"}))),
    ("compartments by floats", lambda t, s: t.assign(cmt=t["cmt"].map({"gut": 1.0, "blood": 2.0}))),
    ("last rows first", lambda t, s: t.iloc[np.argsort(-t["subject"].to_numpy(), kind="stable")]),
    ("columns that are not needed are missing", lambda t, s: t.drop(columns=[c for c in ("ss", "dur", "rate", "addl") if not t[c].any()])),
    ("ten million doses where some were meant", _ten_million),
    ("zeros written as missing", lambda t, s: t.assign(**{c: t[c].replace(0, np.nan) for c in ("rate", "dur", "addl", "ii", "ss")})),
]  # fmt: skip


def broken(study, number):
    """The study with the fault or dress of this number."""
    kind = number % (len(FAULTS) + len(DRESSES))
    if not any(r["evid"] in (1, 4) and r["amt"] for r in study.rows):
        study.rows.insert(
            1, {"subject": 0, "time": 0.0, "evid": 1, "amt": 10.0, "state": 1, **_BOLUS}
        )
    table = study.table()
    if kind < len(FAULTS):
        text, change, names = FAULTS[kind]
        changed = change(table, study)
        return Input(text, lambda: study.solve(changed), None, names)
    text, change = DRESSES[kind - len(FAULTS)]
    changed = change(table, study)
    return Input(
        text,
        lambda: study.solve(changed),
        study.wrong,
        ("subject", "amt", "time", "number", "addl"),
    )
