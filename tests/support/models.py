"""Small models with exact answers, shared by the tests of SAEM."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt

import pymc_saem as ps
from pymc_saem.demo import neural_rates, theophylline_model


def random_intercept_data():
    """12 subjects x 3 rows, DESIGN section 10: exact ML a .0275, omega_sd .80081, sigma .3, loglik -26.386860."""
    i = np.arange(1, 13)
    eta = np.where(i % 2 == 1, -1.1, 1.1) * (0.4 + 0.6 * i / 12)
    y = eta[:, None] + np.array([-0.3, 0.0, 0.3])
    return y.ravel(), np.repeat(np.arange(12), 3)


def random_intercept(shift=0.0):
    """DESIGN section 10; ``shift`` is added to all data."""
    y, subject = random_intercept_data()
    with pm.Model(coords={"subject": np.arange(1, 13)}) as model:
        a = pm.Flat("a")
        omega = pm.HalfFlat("omega", initval=1.0)
        sigma = pm.HalfFlat("sigma", initval=1.0)
        b = pm.Normal("b", a, omega, dims="subject")
        pm.Normal("y", b[subject], sigma, observed=y + shift)
    return model


def exact_loglik(a, omega, sigma, y, subject):
    """Marginal log-likelihood of the random intercept model, by its Gaussian covariance."""
    total = 0.0
    for s in np.unique(subject):
        r = y[subject == s] - a
        cov = sigma**2 * np.eye(r.size) + omega**2
        total += -0.5 * (r @ np.linalg.solve(cov, r) + np.linalg.slogdet(2 * np.pi * cov)[1])
    return total


def slopes_data(n_subjects=30, n_rows=6, seed=3):
    """Linear mixed data with correlated intercepts and slopes, and one covariate on the intercept."""
    rng = np.random.default_rng(seed)
    omega = np.array([[1.0, 0.3], [0.3, 0.25]])
    x = rng.normal(size=n_subjects)
    b = (
        np.array([1.0, -0.5])
        + np.outer(x, [0.8, 0.0])
        + rng.multivariate_normal([0, 0], omega, size=n_subjects)
    )
    subject = np.repeat(np.arange(n_subjects), n_rows)
    t = np.tile(np.linspace(-1, 1, n_rows), n_subjects)
    y = b[subject, 0] + b[subject, 1] * t + 0.4 * rng.normal(size=t.size)
    return {"y": y, "t": t, "x": x, "subject": subject}


def slopes(data, prior="flat", ode=False):
    """Full covariance by a Cholesky factor, and a covariate on the mean of the intercept; the lines may be solutions of y' = b."""
    n = data["x"].size
    with pm.Model(coords={"subject": np.arange(n), "effect": ["intercept", "slope"]}) as model:
        beta = (
            pm.Flat("beta", dims="effect")
            if prior == "flat"
            else pm.Normal("beta", 0, 0.5, dims="effect")
        )
        gamma = pm.Flat("gamma")
        chol, _, _ = pm.LKJCholeskyCov(
            "chol", n=2, eta=1.0, sd_dist=pm.Exponential.dist(1.0), compute_corr=True
        )
        sigma = pm.HalfFlat("sigma", initval=1.0)
        mean = beta + gamma * pt.as_tensor(data["x"])[:, None] * np.array([1.0, 0.0])
        b = pm.MvNormal("b", mean, chol=chol, dims=("subject", "effect"))
        mu = b[data["subject"], 0] + b[data["subject"], 1] * data["t"]
        if ode:
            mu = ps.ode.solve_ivp(
                lambda t, y, p: {"y": p.slope}, {"y": b[:, 0]}, {"slope": b[:, 1]}, t=data["t"], subject=data["subject"],
                t0=-1.0, solver="tsit5",
            ).y + b[data["subject"], 1] * -1.0  # fmt: skip
        pm.Normal("y", mu, sigma, observed=data["y"])
    return model


def slopes_loglik(beta, gamma, omega, sigma, data, weight=None):
    """Marginal log-likelihood of :func:`slopes`, exact; with a weight for each subject."""
    total = 0.0
    for s in range(data["x"].size):
        rows = data["subject"] == s
        z = np.column_stack([np.ones(rows.sum()), data["t"][rows]])
        mean = z @ (np.asarray(beta) + gamma * data["x"][s] * np.array([1.0, 0.0]))
        cov = z @ omega @ z.T + sigma**2 * np.eye(rows.sum())
        r = data["y"][rows] - mean
        one = -0.5 * (r @ np.linalg.solve(cov, r) + np.linalg.slogdet(2 * np.pi * cov)[1])
        total += one if weight is None else weight[s] * one
    return total


def theophylline(ode=False, doses=False, **options):
    """One compartment, log-normal ka, V, CL, diagonal Omega, constant error (DESIGN section 10).

    As a formula, or as an ODE that starts with the dose, or gets it as an event.
    """
    data = ps.datasets.load_theophylline()
    subject, ids = data["subject"].factorize()
    dose = data.groupby("subject", sort=False)["dose"].first().to_numpy()
    t = data["time"].to_numpy()
    with pm.Model(coords={"subject": ids}) as model:
        sigma = pm.HalfFlat("sigma", initval=1.0)
        effect = {}
        for name, start in (("ka", 0.0), ("V", 3.0), ("CL", 1.0)):
            mean = pm.Flat(f"log_{name}", initval=start)
            omega = pm.HalfFlat(f"omega_{name}", initval=1.0)
            effect[name] = pm.LogNormal(name, mean, omega, dims="subject")
        if ode:

            def rhs(t, y, p):
                absorbed = p.ka * y.depot
                return {"depot": -absorbed, "center": absorbed / p.V - p.CL / p.V * y.center}

            if doses:
                options["events"] = pd.DataFrame(
                    {"subject": np.arange(len(ids)), "time": 0.0, "amt": dose}
                )
            solution = ps.ode.solve_ivp(
                rhs,
                {"depot": 0.0 if doses else dose, "center": 0.0},
                effect,
                t=t,
                subject=subject,
                **options,
            )
            conc = solution.center
        else:
            ka, V, CL = (effect[name][subject] for name in ("ka", "V", "CL"))
            k = CL / V
            conc = dose[subject] * ka / (V * (ka - k)) * (pt.exp(-k * t) - pt.exp(-ka * t))
        pm.Normal("conc", conc, sigma, observed=data["conc"])
    return model


def neural(omega=None, rtol=1e-2, atol=1e-2, solver="auto", n_threads=None):
    """The model of the demo, whose omega is the identity; or with an omega to estimate.

    "network" estimates one sd per network, "weight" one per weight (Omega diagonal).
    """
    if omega is None:
        return theophylline_model(rtol=rtol, atol=atol, solver=solver, n_threads=n_threads)
    data = ps.datasets.load_theophylline()
    subject, ids = data["subject"].factorize()
    dose = data.groupby("subject", sort=False)["dose"].first().to_numpy()
    net = ps.nn.MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")
    with pm.Model(coords={"subject": ids, "weight": net.weight_names}) as model:
        sigma = pm.LogNormal("sigma", 0.0, 0.5)
        w = {}
        for name in ("a1", "a2", "c1", "c2"):
            z = ps.nn.weights(f"z_{name}", net)
            sd = pm.HalfNormal(f"omega_{name}", 1.0, dims="weight" if omega == "weight" else None)
            w[f"w_{name}"] = pm.Normal(f"w_{name}", z, sd, dims=("subject", "weight"))
        solution = ps.ode.solve_ivp(
            neural_rates(net),
            y0={"depot": dose, "center": 0.0},
            params=w | {"dose": dose},
            t=data["time"],
            subject=subject,
            rtol=rtol,
            atol=atol,
            solver=solver,
            n_threads=n_threads,
        )
        pm.Normal("conc", solution.center, sigma, observed=data["conc"])
    return model
