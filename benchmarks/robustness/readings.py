"""Models that are no mixed model of subjects, or hold what is not the data: refused with the right reason, or read as they are."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt

import pymc_saem as ps
from robustness.judge import Input
from robustness.linear import Data

COUNT = 46
BUNCH = 23


class Setting:
    """Rows, and the parts that most models have."""

    def __init__(self, rng):
        self.d = Data(rng)
        self.rng, self.g, self.t, self.y, self.n = rng, self.d.g, self.d.t, self.d.y, self.d.n
        self.item = rng.integers(0, 5, self.g.size)

    def effect(self, **options):
        self.p = self.d.priors()
        return pm.Normal("e", self.p["mu"], self.p["omega"], dims="subject", **options)

    def outcome(self, mean, **options):
        pm.Normal("y", mean + self.p["slope"] * self.t, self.p["sigma"], observed=self.y, **options)


def _crossed(s):
    e = s.effect()
    s.outcome(e[s.g] + pm.Normal("d", 0, pm.HalfNormal("sd_item", 1), shape=5)[s.item])


def _crossed_not_centred(s):
    e = s.effect()
    s.outcome(e[s.g] + (pm.HalfNormal("sd_item", 1) * pm.Normal("z", 0, 1, shape=5))[s.item])


def _crossed_both_not_centred(s):
    s.p = s.d.priors()
    e = s.p["mu"] + s.p["omega"] * pm.Normal("z_e", 0, 1, dims="subject")
    s.outcome(e[s.g] + (pm.HalfNormal("sd_item", 1) * pm.Normal("z", 0, 1, shape=5))[s.item])


def _basis(s):
    e = s.effect()
    basis = np.cos(np.outer(s.t, np.arange(1, 6)))
    s.outcome(e[s.g] + basis @ (pm.HalfNormal("tau", 1) * pm.Normal("z", 0, 1, shape=5)))


def _process(s):
    e = s.effect()
    times = np.unique(s.t)
    gp = pm.gp.Latent(cov_func=pm.HalfNormal("eta", 1) ** 2 * pm.gp.cov.ExpQuad(1, 0.5))
    f = gp.prior("f", X=times[:, None])
    s.outcome(e[s.g] + f[np.searchsorted(times, s.t)])


def _horseshoe(s):
    e = s.effect()
    b = pm.Normal("b", 0, pm.HalfCauchy("tau", 1) * pm.HalfCauchy("lam", 1, shape=3), shape=3)
    s.outcome(e[s.g] + s.rng.normal(size=(s.g.size, 3)) @ b)


def _hyperprior(s):
    s.p = s.d.priors()
    scale = pm.Exponential("lam", 1.0)
    e = pm.Normal("e", pm.Normal("m", 0, scale), s.p["omega"], dims="subject")
    s.outcome(e[s.g] + 0 * s.p["mu"])


def _partners(start):
    def build(s):
        e = s.effect()
        gamma = pm.Normal("gamma", 0, 1, initval=start)
        s.outcome(e[s.g] + gamma * e[(s.n - 1) - s.g])

    return build


def _average(s):
    e = s.effect()
    s.outcome(e[s.g] - pm.Normal("gamma", 0, 1) * e.mean())


def _minibatch(s):
    g, t, y = pm.Minibatch(s.g, s.t, s.y, batch_size=8)
    e = s.effect()
    pm.Normal("y", e[g] + s.p["slope"] * t, s.p["sigma"], observed=y, total_size=s.y.size)


def _covariate(per_subject):
    def build(s):
        c = s.rng.normal(size=s.n if per_subject else s.g.size)
        c[3] = np.nan
        cov = pm.Normal("cov", pm.Normal("mc", 0, 5), pm.HalfNormal("sc", 2), observed=c)
        e = s.effect()
        s.outcome(e[s.g] + pm.Normal("beta", 0, 5) * (cov[s.g] if per_subject else cov))

    return build


def _covariate_nan(s):
    c = s.rng.normal(size=s.n)
    c[2] = np.nan
    s.p = s.d.priors()
    e = pm.Normal(
        "e",
        s.p["mu"] + pm.Normal("beta", 0, 1) * _container("weight", c),
        s.p["omega"],
        dims="subject",
    )
    s.outcome(e[s.g])


def _container(name, values):
    """A pm.Data that has gaps only once the model is there."""
    found = pm.Data(name, np.zeros_like(values))
    found.set_value(values)
    return found


def _row_covariate_nan(s):
    t = s.t.copy()
    t[4] = np.nan
    e = s.effect()
    s.t = t
    s.outcome(e[s.g])


def _nobody(s):
    codes = s.g.copy()
    codes[[2, 5]] = -1
    e = s.effect()
    s.outcome(e[codes])


def _nobody_by_factorize(s):
    ids = pd.Series(s.g.astype(float))
    ids.iloc[2] = np.nan
    e = s.effect()
    s.outcome(e[ids.factorize()[0]])


def _potential(kind):
    def build(s):
        e = s.effect()
        s.outcome(e[s.g])
        term = {
            "rows": pm.logcdf(pm.Normal.dist(e[s.g[:5]], s.p["sigma"]), -1.0),
            "sum": -pt.exp(e).sum(),
            "subject": -pt.exp(e),
            "prior": -s.p["omega"],
        }
        pm.Potential("p", term[kind])

    return build


def _discrete(s):
    e = s.effect()
    s.outcome(e[s.g] + pm.Bernoulli("b", 0.5, shape=s.n)[s.g])


def _discrete_effect(s):
    s.p = s.d.priors()
    s.outcome(pm.Poisson("e", pm.math.exp(s.p["mu"]), dims="subject")[s.g])


def _none(s):
    s.p = s.d.priors()
    s.outcome(s.p["mu"] + s.p["omega"])


def _nothing_observed(s):
    s.effect()


def _simulator(s):
    e = s.effect()
    pm.Simulator(
        "y",
        lambda rng, m, s, size: rng.normal(m, s),
        e[s.g] + s.p["slope"] * s.t,
        s.p["sigma"],
        observed=s.y,
    )


def _shared_rows(s):
    e = s.effect()
    pm.MvNormal(
        "y", e[s.g] + s.p["slope"] * s.t, s.p["sigma"] * (np.eye(s.g.size) + 0.1), observed=s.y
    )


def _random_walk(s):
    s.p = s.d.priors()
    e = pm.GaussianRandomWalk(
        "e", s.p["mu"], s.p["omega"], init_dist=pm.Normal.dist(0, 1), dims="subject"
    )
    s.outcome(e[s.g])


def _neighbours(s):
    s.p = s.d.priors()
    w = np.eye(s.n, k=1) + np.eye(s.n, k=-1)
    s.outcome(
        s.p["mu"]
        + pm.CAR("e", mu=np.zeros(s.n), W=w, alpha=0.5, tau=s.p["omega"], dims="subject")[s.g]
    )


def _mixture_of_subjects(s):
    e = s.effect()
    pm.Mixture(
        "y",
        w=[0.5, 0.5],
        comp_dists=[
            pm.Normal.dist(e[g] + s.p["slope"] * s.t, s.p["sigma"]) for g in (s.g, s.g[::-1])
        ],
        observed=s.y,
    )


def _three_levels(s):
    s.p = s.d.priors()
    school = np.arange(s.n) // 4
    a = pm.Normal("a", s.p["mu"], pm.HalfNormal("o", 1), shape=2)
    e = pm.Normal("e", a[school], s.p["omega"], dims="subject")
    s.outcome(e[s.g])


def _outcome_of_text(s):
    e = s.effect()
    pm.Normal("y", e[s.g] + s.p["slope"] * s.t, s.p["sigma"], observed=pm.Data("seen", s.y))
    pm.set_data({"seen": np.where(np.arange(s.y.size) == 3, np.inf, s.y)})


def _outcome_nan(s):
    e = s.effect()
    pm.Normal("y", e[s.g] + s.p["slope"] * s.t, s.p["sigma"], observed=pm.Data("seen", s.y))
    pm.set_data({"seen": np.where(np.arange(s.y.size) == 3, np.nan, s.y)})


def _literature(s):
    e = s.effect()
    s.outcome(e[s.g])
    pm.Normal("reported", s.p["mu"], 0.1, observed=0.9)


# What it is, how it is written, words of a right refusal, and whether reading it may be right, too.
MODELS = [
    ("items that all subjects answer", _crossed, ("crossed", "shared by all"), False),
    ("the same, items not centred", _crossed_not_centred, ("crossed", "shared by all"), False),
    ("the same, nothing centred", _crossed_both_not_centred, ("crossed", "shared by all"), False),
    ("a basis with a scale", _basis, ("crossed", "shared by all"), False),
    ("a latent Gaussian process", _process, ("crossed", "shared by all"), False),
    ("a prior whose scale has a prior", _hyperprior, ("'m'", "'lam'", "prior"), True),
    ("a horseshoe", _horseshoe, ("'b'", "prior"), True),
    ("partners, gamma starts at 0.3", _partners(0.3), ("'e'", "subject"), False),
    ("partners, gamma starts at 0", _partners(0.0), ("'e'", "subject"), False),
    ("rows that feel the mean of all subjects", _average, ("'e'", "subject"), False),
    ("a minibatch", _minibatch, ("minibatch",), True),
    ("a covariate with gaps, per subject", _covariate(True), ("cov",), True),
    ("a covariate with gaps, per row", _covariate(False), ("cov",), True),
    ("a covariate that is missing", _covariate_nan, ("weight", "nan", "finite", "missing"), False),
    ("a time that is missing", _row_covariate_nan, ("nan", "finite", "row", "missing"), False),
    ("rows coded -1", _nobody, ("-1", "row"), False),
    ("rows of nobody, by factorize", _nobody_by_factorize, ("-1", "row"), False),
    ("a potential of rows", _potential("rows"), ("(p)", "'p'", "potential"), True),
    ("a potential that is a sum", _potential("sum"), ("(p)", "'p'", "potential"), True),
    ("a potential per subject", _potential("subject"), ("(p)", "'p'", "potential"), True),
    ("a potential of parameters", _potential("prior"), ("(p)", "'p'", "potential"), True),
    ("a discrete variable", _discrete, ("discrete", "'b'"), False),
    ("a discrete effect", _discrete_effect, ("discrete", "'e'"), False),
    ("no effects", _none, ("random effects", "random_effects"), True),
    ("no data", _nothing_observed, ("observed", "data", "outcome"), False),
    ("a simulator", _simulator, ("'y'", "simulator", "(y)"), False),
    ("rows that are correlated between subjects", _shared_rows, ("'y'", "subject"), False),
    ("effects that walk over the subjects", _random_walk, ("'e'", "subject"), False),
    ("effects of neighbours", _neighbours, ("'e'", "subject"), False),
    ("a mixture of two subjects", _mixture_of_subjects, ("'y'", "subject"), False),
    ("three levels as means", _three_levels, ("'a'", "level"), True),
    ("an infinite outcome", _outcome_of_text, ("seen", "'y'", "finite", "inf"), False),
    ("a missing outcome in a container", _outcome_nan, ("seen", "'y'", "nan", "missing"), False),
    ("a value from the literature", _literature, ("reported",), True),
]

# Words for random_effects=, model= and the like.
CALLS = [
    ("random_effects that are none", {"random_effects": ["u"]}, ("'u'", "random_effects")),
    ("random_effects without any", {"random_effects": []}, ("random_effects",)),
    ("random_effects that is a parameter", {"random_effects": ["mu"]}, ("'mu'", "random_effects")),
    ("random_effects as text", {"random_effects": "e"}, ("random_effects", "'e'")),
    ("random_effects as a number", {"random_effects": 3}, ("random_effects",)),
    ("random_effects with the outcome", {"random_effects": ["e", "y"]}, ("'y'", "random_effects")),
    ("random_effects twice", {"random_effects": ["e", "e"]}, ("random_effects", "'e'")),
    ("random_effects with None", {"random_effects": [None]}, ("random_effects", "None")),
    ("a model that is a number", {"model": 3}, ("model",)),
    ("a model that is a table", {"model": pd.DataFrame({"y": [1.0]})}, ("model",)),
    ("a model that is a class", {"model": pm.Model}, ("model",)),
    ("a model that is text", {"model": "model"}, ("model",)),
]


def make(seed):
    rng = np.random.default_rng([4, seed])
    k = seed % (len(MODELS) + len(CALLS))
    if k >= len(MODELS):
        text, options, names = CALLS[k - len(MODELS)]
        model = Data(rng).model()
        may_be = (
            (lambda found: None if list(found.random_effects.index) == ["e"] else "another reading")
            if "e" in str(options) and "model" not in options
            else None
        )
        return Input(text, lambda: ps.summarize(**({"model": model} | options)), may_be, names)
    text, build, names, may_be_read = MODELS[k]
    setting = Setting(rng)
    with pm.Model(coords={"subject": range(setting.n)}) as model:
        build(setting)

    def wrong(found):
        """Read as a model of all rows, with one effect per subject."""
        # schools are the subjects then
        if found.n_subjects != (2 if build is _three_levels else setting.n):
            return f"{found.n_subjects} subjects"
        return (
            None
            if found.data.loc["y", "rows"] == setting.y.size
            else f"{found.data['rows'].to_dict()} rows"
        )

    return Input(text, lambda: ps.summarize(model), wrong if may_be_read else None, names)
