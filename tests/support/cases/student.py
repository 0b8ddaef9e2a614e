"""Student-t distributions with 4 degrees of freedom, of a random effect and of the errors; the trapezoid on a line."""

from functools import cache, partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy.special import gammaln

from .case import Case
from .quadrature import log_normal_density, modes, sum_rows, trapezoid

NU, N_SUBJECTS, VOLUME, DOSE = 4, 40, 10.0, 100.0
TRUTH = {
    "student_effect": {"location": 2.0, "scale": 0.7, "sigma": 0.5},
    "student_effect_pk": {"location": 1.0, "scale": 0.3, "sigma": 0.3},
    "student_errors": {"location": 2.0, "scale": 0.7, "sigma": 0.3},
}


@cache
def data(kind):
    """Rows (y, time, subject), five per subject."""
    rng = np.random.default_rng(41)
    subject, t = np.repeat(np.arange(N_SUBJECTS), 5), np.tile([0.5, 1.0, 2.0, 4.0, 8.0], N_SUBJECTS)
    v = TRUTH[kind]
    if kind == "student_errors":
        b, noise = rng.normal(size=N_SUBJECTS), rng.standard_t(NU, subject.size)
    else:
        b, noise = rng.standard_t(NU, N_SUBJECTS), rng.normal(size=subject.size)
    b = v["location"] + v["scale"] * b
    return predict(kind, b[subject], t, np.exp) + v["sigma"] * noise, t, subject


def predict(kind, b, t, exp):
    """The effect itself; or an intravenous bolus whose log clearance it is."""
    return DOSE / VOLUME * exp(-exp(b) / VOLUME * t) if kind == "student_effect_pk" else b


def build(kind):
    y, t, subject = data(kind)
    with pm.Model(coords={"subject": np.arange(N_SUBJECTS)}) as model:
        location = pm.Flat("location")
        scale = pm.HalfFlat("scale", initval=1.0)
        sigma = pm.HalfFlat("sigma", initval=1.0)
        if kind == "student_errors":
            b = pm.Normal("b", location, scale, dims="subject")
            pm.StudentT("y", nu=NU, mu=b[subject], sigma=sigma, observed=y)
        else:
            b = pm.StudentT("b", nu=NU, mu=location, sigma=scale, dims="subject")
            pm.Normal("y", predict(kind, b[subject], t, pt.exp), sigma, observed=y)
    return model


def log_student_density(x, location, scale):
    z = (x - location) / scale
    constant = gammaln((NU + 1) / 2) - gammaln(NU / 2) - 0.5 * np.log(NU * np.pi)
    return constant - np.log(scale) - 0.5 * (NU + 1) * np.log1p(z * z / NU)


def joint(kind, v, phi):
    y, t, subject = data(kind)
    b = phi[..., 0]
    law, errors = log_student_density, log_normal_density
    if kind == "student_errors":
        law, errors = errors, law
    rows = errors(y, predict(kind, b[..., subject], t, np.exp), v["sigma"])
    return law(b, v["location"], v["scale"]) + sum_rows(rows, subject)


def marginal(kind, v, n_nodes: int = 501):
    """Errors: over the normal distribution of the effect. Effect: around the mode, since five rows leave no tails."""

    def log_joint(phi):
        with np.errstate(all="ignore"):
            return joint(kind, v, phi)

    center = np.full(N_SUBJECTS, v["location"])
    if kind == "student_errors":
        return trapezoid(log_joint, center, np.full(N_SUBJECTS, 9 * v["scale"]), n_nodes).sum()
    y, _, subject = data(kind)
    if kind == "student_effect":
        center = sum_rows(y, subject) / 5
    mode, covariance = modes(log_joint, center[:, None])
    return trapezoid(log_joint, mode[:, 0], 15 * np.sqrt(covariance[:, 0, 0]), n_nodes).sum()


CASES = tuple(
    Case(
        kind,
        partial(build, kind),
        partial(marginal, kind),
        (truth,),
        {"scale": "positive", "sigma": "positive"},
        joint=partial(joint, kind),
    )
    for kind, truth in TRUTH.items()
)
