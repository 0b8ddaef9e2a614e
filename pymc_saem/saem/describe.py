"""How SAEM reads a model, before any iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import pymc as pm

from pymc_saem.arguments import check_types
from pymc_saem.model.density.priors import Prior
from pymc_saem.model.mixed_model import MixedModel, RandomEffect
from pymc_saem.model.read import read_model
from pymc_saem.results.tables.printed import fitted
from pymc_saem.saem.mstep.recognize import recognize, refuse_collinear
from pymc_saem.saem.mstep.rules import Rules


@dataclass(frozen=True, repr=False)
class ModelSummary:
    """A model as SAEM sees it.

    Attributes
    ----------
    parameters : pandas.DataFrame
        One row per parameter: shape, prior, m_step.
    random_effects : pandas.DataFrame
        One row per random effect: size per subject, scale, parameters of its mean and covariance.
    data : pandas.DataFrame
        One row per outcome: rows, subjects, fewest and most rows of a subject.
    """

    parameters: pd.DataFrame
    random_effects: pd.DataFrame
    data: pd.DataFrame
    subject_dim: str
    n_subjects: int

    def __repr__(self) -> str:
        parts = [self._of_whom()]
        for title, table in (
            ("Random effects", self.random_effects),
            ("Parameters", self.parameters),
            ("Data", self.data),
        ):
            parts += ["", title, fitted(table, max_colwidth=48)]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        tables = (
            ("Random effects", self.random_effects),
            ("Parameters", self.parameters),
            ("Data", self.data),
        )
        body = "".join(f"<h4>{title}</h4>{table.to_html()}" for title, table in tables)
        return f"<p>{escape(self._of_whom(), quote=False)}</p>{body}"

    def _of_whom(self) -> str:
        return f"{self.n_subjects} subject{'s' if self.n_subjects != 1 else ''} (dim '{self.subject_dim}')"


def summarize(
    model: pm.Model | None = None, *, random_effects: Sequence[str] | None = None
) -> ModelSummary:
    """Report how SAEM reads a model: random effects, M-step of each parameter, data.

    It runs no iterations.

    Parameters
    ----------
    model : pymc.Model, optional
        The model in context by default.
    random_effects : sequence of str, optional
        As in :func:`fit_saem`.

    Returns
    -------
    ModelSummary
        Prints as three tables; its attributes are DataFrames.

    Raises
    ------
    UnsupportedModelError
        When the model is not one that SAEM can estimate.

    See Also
    --------
    pymc_saem.fit_saem : Estimates the model.
    pymc_saem.plot_data : The data themselves.

    Examples
    --------
    >>> read = ps.summarize(model)
    >>> read.data
             rows  subjects  fewest  most
    outcome
    conc      132        12      11    11
    >>> read.random_effects.loc["ka", "mean"]
    'log_ka'
    """
    check_types("summarize", locals())
    mixed = read_model(pm.modelcontext(model), random_effects)
    rules = recognize(mixed)
    refuse_collinear(rules.mean)
    return ModelSummary(
        _parameter_table(mixed, rules),
        _effect_table(mixed, rules),
        _data_table(mixed),
        mixed.subject_dim,
        mixed.n_subjects,
    )


def _parameter_table(mixed: MixedModel, rules: Rules) -> pd.DataFrame:
    m_steps, roles = rules.m_step_of(), rules.role_of()
    rows = []
    for p in mixed.parameters:
        prior = Prior(mixed, p)
        m_step = m_steps[p.name]
        if (
            m_step == "closed form"
            and not prior.is_flat()
            and not (p in rules.mean.parameters and prior.quadratic() is not None)
        ):
            m_step = "closed form + Newton (prior)"
        rows.append(
            {"shape": p.natural_shape, "prior": prior.name, "role": roles[p.name], "m_step": m_step}
        )
    return pd.DataFrame(rows, index=pd.Index([p.name for p in mixed.parameters], name="parameter"))


def _effect_table(mixed: MixedModel, rules: Rules) -> pd.DataFrame:
    rows = []
    for effect in mixed.random_effects:
        block = np.arange(effect.columns.start, effect.columns.stop)
        omega = [
            f"{r.parameter.name} ({r.kind})"
            for r in rules.omegas
            if np.intersect1d(r.columns, block).size
        ]
        omega += [f"{r.parameter.name} ({r.kind})" for r in rules.scores if effect in r.effects]
        omega += [
            f"{r.parameter.name} (closed form)" for r in rules.effect_scales if effect in r.effects
        ]
        used = np.abs(rules.mean.design[:, block]).max(axis=(0, 1), initial=0.0) > 0
        columns = rules.mean.columns[used]
        mean = [
            p.name
            for p in rules.mean.parameters
            if np.any((columns >= p.columns.start) & (columns < p.columns.stop))
        ]
        rows.append(
            {
                "size": effect.size,
                "distribution": f"normal on {effect.link} scale"
                if effect.is_gaussian
                else _family(mixed, effect),
                "mean": ", ".join(mean) or "constant",
                "omega": ", ".join(omega) or "fixed",
            }
        )
    return pd.DataFrame(
        rows, index=pd.Index([e.name for e in mixed.random_effects], name="random effect")
    )


def _family(mixed: MixedModel, effect: RandomEffect) -> str:
    return type(mixed.model[effect.name].owner.op).__name__.removesuffix("RV")


def _data_table(mixed: MixedModel) -> pd.DataFrame:
    rows = []
    for outcome in mixed.outcomes:
        counts = np.bincount(outcome.row_subject, minlength=mixed.n_subjects)
        rows.append(
            {
                "rows": outcome.n_rows,
                "subjects": int((counts > 0).sum()),
                "fewest": counts.min(),
                "most": counts.max(),
            }
        )
    return pd.DataFrame(rows, index=pd.Index([o.name for o in mixed.outcomes], name="outcome"))
