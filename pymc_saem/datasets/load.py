"""Loaders of the CSV files in this folder; each call reads its file again, so the frame may be modified freely."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import pandas as pd


def load_theophylline() -> pd.DataFrame:
    """Load the theophylline concentrations of 12 subjects after one oral dose.

    Returns
    -------
    pandas.DataFrame
        One row per observation, 132 rows (12 subjects x 11 times), subjects in the order of the
        file, times ascending.

        ======== ======= ====================================================================
        column   unit    content
        ======== ======= ====================================================================
        subject          1 to 12
        time     h       since the dose
        conc     mg/L    theophylline in serum
        weight   kg      body weight
        dose     mg      the oral dose at time 0, the same in every row of a subject
        ======== ======= ====================================================================

        The units are also in ``attrs["units"]``.

    See Also
    --------
    pymc_saem.datasets.load_orange : Five trees, for a curve of growth.
    pymc_saem.plot_data : Draws the data.

    Notes
    -----
    The source gives the dose in mg/kg, rounded to two decimals; ``dose`` here is that number times
    the body weight. It is about 320 mg in every subject but the ninth, whose record says 267.84 mg.
    Subject 1, among others, has a positive concentration at time 0.

    References
    ----------
    R package ``datasets``, object ``Theoph``.

    Boeckmann, Sheiner and Beal (1994), *NONMEM Users Guide: Part V*, NONMEM Project Group,
    University of California, San Francisco.

    Pinheiro and Bates (2000), *Mixed-Effects Models in S and S-PLUS*, Springer.

    Examples
    --------
    >>> from pymc_saem.datasets import load_theophylline
    >>> data = load_theophylline()
    >>> data.shape
    (132, 5)
    >>> data.groupby("subject")["dose"].first().round(1).to_list()
    [320.0, 318.6, 319.4, 319.9, 320.0, 320.0, 319.8, 319.4, 267.8, 320.1, 319.8, 320.6]
    """
    raw = _read("theoph.csv")
    return _with_units(
        {
            "subject": (raw["Subject"], ""),
            "time": (raw["Time"], "h"),
            "conc": (raw["conc"], "mg/L"),
            "weight": (raw["Wt"], "kg"),
            "dose": (raw["Wt"] * raw["Dose"], "mg"),
        }
    )


def load_orange() -> pd.DataFrame:
    """Load the trunk circumferences of five orange trees, measured at seven ages.

    Returns
    -------
    pandas.DataFrame
        One row per observation, 35 rows (5 trees x 7 ages), trees in the order of the file, ages
        ascending.

        ============= ====== ======================
        column        unit   content
        ============= ====== ======================
        tree                 1 to 5
        age           days   age of the tree
        circumference mm     of the trunk
        ============= ====== ======================

        The units are also in ``attrs["units"]``.

    See Also
    --------
    pymc_saem.datasets.load_theophylline : Twelve subjects, for pharmacokinetics.
    pymc_saem.plot_data : Draws the data.

    References
    ----------
    R package ``datasets``, object ``Orange``.

    Draper and Smith (1998), *Applied Regression Analysis*, 3rd edition, Wiley, exercise 24.N.

    Examples
    --------
    >>> from pymc_saem.datasets import load_orange
    >>> load_orange().groupby("tree")["circumference"].max().to_list()
    [145, 203, 140, 214, 177]
    """
    raw = _read("orange.csv")
    return _with_units(
        {
            "tree": (raw["Tree"], ""),
            "age": (raw["age"], "days"),
            "circumference": (raw["circumference"], "mm"),
        }
    )


def _read(file_name: str) -> pd.DataFrame:
    with files("pymc_saem.datasets").joinpath(file_name).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def _with_units(columns: Mapping[str, tuple[pd.Series, str]]) -> pd.DataFrame:
    """A frame from ``{name: (values, unit)}``; a column without a unit has an empty one."""
    frame = pd.DataFrame({name: values for name, (values, _) in columns.items()})
    frame.attrs["units"] = {name: unit for name, (_, unit) in columns.items()}
    return frame
