"""The exact answers are right: published figures, brute-force integrals, and the same densities as PyMC's graphs."""

from itertools import product

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.special import logsumexp

from tests.support.cases import CASES
from tests.support.cases.priors import mean_mode, variance_mode

GAUSSIAN = [name for name, case in CASES.items() if case.joint is None]
QUADRATURE = [name for name, case in CASES.items() if case.joint is not None]


def answer(name):
    return CASES[name].by_name(CASES[name].answer.estimate)


def near_start(case, rng):
    """Natural values that are nobody's maximum."""
    free = case.to_free(case.starts[0])
    return case.by_name(case.from_free(free + 0.1 * rng.standard_normal(free.size)))


def test_orange_is_as_published():
    found = answer("orange")
    published = {
        "mean_asym": 192.0532,
        "xmid": 727.906,
        "scal": 348.073,
        "omega": 31.6463,
        "sigma": 7.8430,
    }
    for name, value in published.items():
        assert found[name] == pytest.approx(value, abs=6e-5 if value < 200 else 6e-4)
    assert CASES["orange"].answer.objective == pytest.approx(-131.5719, abs=6e-5)


def test_theophylline_is_as_published():
    found = answer("theophylline")
    published = {"log_ka": 0.4593, "log_CL": 1.0117, "log_V": 3.4539, "sigma": 0.6959}
    for name, value in published.items():
        assert found[name] == pytest.approx(value, abs=6e-5)
    for name, variance in {"ka": 0.4050, "CL": 0.0703, "V": 0.0185}.items():
        assert found[f"omega_{name}"] ** 2 == pytest.approx(variance, abs=6e-5)
    assert -2 * CASES["theophylline"].marginal(found) == pytest.approx(360.701, abs=1e-3)


def test_the_random_intercept_is_as_the_design_says():
    np.testing.assert_allclose(
        CASES["intercept"].answer.estimate, [0.0275, 0.80081, 0.3], atol=6e-6
    )
    assert CASES["intercept"].answer.objective == pytest.approx(-26.386860, abs=6e-7)


@pytest.mark.slow
def test_a_stored_answer_is_found_again():
    case = CASES["theophylline"]
    found = case.refine(case.stored.estimate + 0.3 * case.stored.standard_error)
    np.testing.assert_allclose(found.estimate, case.stored.estimate, rtol=2e-5)
    np.testing.assert_allclose(found.standard_error, case.stored.standard_error, rtol=1e-3)
    assert found.objective == pytest.approx(case.stored.objective, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "mode"), [("map_mean", mean_mode), ("map_variance", variance_mode)]
)
def test_conjugate_modes_are_the_analytic_ones(name, mode):
    np.testing.assert_allclose(CASES[name].answer.estimate, mode(), rtol=1e-5)


def test_standard_errors_are_those_of_a_balanced_design():
    """Of the mean: the square root of (omega^2 + sigma^2 / 3) / 12; of sigma: sigma / sqrt(48), as ML has it."""
    case = CASES["intercept"]
    a, omega, sigma = case.answer.estimate
    se = case.answer.standard_error
    assert se[0] == pytest.approx(np.sqrt((omega**2 + sigma**2 / 3) / 12), rel=1e-4)
    assert se[2] == pytest.approx(sigma / np.sqrt(2 * 24), rel=1e-3)


@pytest.mark.parametrize("name", ["poisson_time", "theophylline_weight", "ordinal"])
def test_the_maximum_is_one(name, rng):
    """No step of a tenth of the standard errors leads higher."""
    case = CASES[name]
    best = case.answer
    for _ in range(20):
        moved = best.estimate + 0.1 * best.standard_error * rng.standard_normal(best.estimate.size)
        assert case.objective(case.by_name(moved)) < best.objective
    assert case.objective(answer(name)) == pytest.approx(best.objective, abs=2e-6)


def brute_force(case, values, lower, upper, n_nodes):
    """Log integral by the trapezoid over a box, all subjects together."""
    first, *others = (np.linspace(*ends) for ends in zip(lower, upper, n_nodes, strict=True))
    first, inner = (
        (first[:, None], np.array(list(product(*others))))
        if others
        else (np.zeros((1, 0)), first[:, None])
    )
    n_subjects = len(case.build().coords["subject"])
    parts = []
    for x in first:
        phi = np.column_stack([np.tile(x, (len(inner), 1)), inner])
        at = np.broadcast_to(phi[:, None, :], (len(phi), n_subjects, phi.shape[1]))
        parts.append(logsumexp(case.joint(values, at), axis=0))
    cell = sum(np.log((hi - lo) / (n - 1)) for lo, hi, n in zip(lower, upper, n_nodes, strict=True))
    return (logsumexp(parts, axis=0) + cell).sum()


#: Boxes wide enough for every subject, with steps well below the width of a posterior.
BOXES = {"theophylline": ([-2.4, 2.5, -0.4], [3.4, 4.2, 2.5], [60, 60, 60])}
BOXES |= {name: ([1.0, -0.5], [3.7, 2.7], [200, 200]) for name in CASES if name.startswith("bolus")}
BOXES |= {
    "student_effect_pk": ([-9.0], [9.0], [8001]),
    "student_effect": ([-40.0], [40.0], [20001]),
}


@pytest.mark.parametrize("name", [name for name in QUADRATURE if name != "theophylline_weight"])
def test_quadrature_is_the_integral(name):
    case = CASES[name]
    values = case.by_name(case.flat(case.starts[0]))
    box = BOXES.get(name, ([-9.0], [9.0], [8001]))
    with np.errstate(all="ignore"):
        expected = brute_force(case, values, *box)
    assert case.marginal(values) == pytest.approx(expected, abs=5e-4 if len(box[0]) > 1 else 2e-6)


class Graph:
    """Densities of a PyMC model at natural values of its parameters, as its own graph has them."""

    def __init__(self, case):
        self.case, self.model = case, case.build()
        self.effects = [rv for rv in self.model.free_RVs if rv.name not in case.starts[0]]
        self.values = [self.model.rvs_to_values[rv] for rv in self.effects]

    def point(self, natural):
        """Parameters on the scale of PyMC's values; random effects at zero."""
        point = {}
        for name, value in natural.items():
            rv, transform = self.model[name], self.model.rvs_to_transforms[self.model[name]]
            if transform is not None:
                value = transform.forward(
                    pt.constant(value, dtype="float64"), *rv.owner.inputs
                ).eval()
            point[self.model.rvs_to_values[rv].name] = np.asarray(value, float)
        return point | {
            v.name: np.zeros(self.shape(rv))
            for v, rv in zip(self.values, self.effects, strict=True)
        }

    def shape(self, rv):
        return tuple(
            self.model.dim_lengths[dim].eval() for dim in self.model.named_vars_to_dims[rv.name]
        )

    def joint(self, natural):
        """phi (all effects in one vector) -> log p(y, phi)."""
        fn = self.compile(self.model.logp(vars=[*self.effects, *self.model.observed_RVs]))
        point = self.point(natural)
        shapes = [self.shape(rv) for rv in self.effects]
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])

        def evaluate(phi):
            pieces = np.split(phi, ends[:-1])
            for value, piece, shape in zip(self.values, pieces, shapes, strict=True):
                point[value.name] = piece.reshape(shape)
            return fn(point)

        return evaluate, ends[-1]

    def log_prior(self, natural):
        parameters = [rv for rv in self.model.free_RVs if rv.name in self.case.starts[0]]
        logp = self.model.logp(vars=parameters, jacobian=False)
        return self.compile(logp)(self.point(natural))

    def compile(self, graph):
        """A function of a point; checks of parameters and optimization would only take time."""
        inputs = self.model.value_vars
        fn = pytensor.function(inputs, graph, mode="FAST_COMPILE", on_unused_input="ignore")
        return lambda point: float(fn(*(point[v.name] for v in inputs)))


@pytest.mark.parametrize("name", QUADRATURE)
def test_the_joint_density_is_that_of_the_model(name, rng):
    case = CASES[name]
    values, graph = near_start(case, rng), Graph(case)
    evaluate, size = graph.joint(values)
    d = len(graph.effects)  # each has one entry per subject here, and the order of the evaluator
    phi = np.array([2.0, 1.0, 0.5])[-d:] * np.ones((size // d, d)) + 0.1 * rng.standard_normal(
        (size // d, d)
    )
    assert case.joint(values, phi).sum() == pytest.approx(evaluate(phi.T.ravel()), rel=1e-9)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_gaussian_marginal_is_that_of_the_model(name, rng):
    """log p(y, phi) is quadratic in phi, so that three evaluations per pair give its integral without error."""
    case = CASES[name]
    values = near_start(case, rng)
    evaluate, size = Graph(case).joint(values)
    unit = np.eye(size)
    at_zero = evaluate(np.zeros(size))
    single = np.array([evaluate(u) for u in unit])
    back = np.array([evaluate(-u) for u in unit])
    hessian = np.diag(single + back - 2 * at_zero)
    for i in range(size):
        for j in range(i):
            hessian[i, j] = hessian[j, i] = (
                evaluate(unit[i] + unit[j]) - single[i] - single[j] + at_zero
            )
    slope = (single - back) / 2
    sign, log_det = np.linalg.slogdet(-hessian)
    integral = (
        at_zero
        - 0.5 * slope @ np.linalg.solve(hessian, slope)
        + 0.5 * (size * np.log(2 * np.pi) - log_det)
    )
    assert sign > 0
    assert case.marginal(values) == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if "objective" not in case.options]
)
def test_the_prior_is_that_of_the_model(name, rng):
    """Flat, where the case has no prior: then "ml" and "map" are one."""
    case = CASES[name]
    values = near_start(case, rng)
    expected = case.log_prior(values) if case.log_prior else 0.0
    # PyMC's gamma: 1.5e-6
    assert Graph(case).log_prior(values) == pytest.approx(expected, abs=1e-5)
