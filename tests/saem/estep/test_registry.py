"""A kernel is known by its file and its line in the registry, and by nothing else."""

import ast
from pathlib import Path

import numpy as np
import pytest

import pymc_saem as ps
from pymc_saem.saem.estep.kernel import DrawnAhead
from pymc_saem.saem.estep.registry import KERNELS, default_shares, statistics
from pymc_saem.saem.report.messages import _stuck
from pymc_saem.saem.run.options import check_step_options
from tests.saem.estep.test_kernels import check_invariance, linear_gaussian

PACKAGE = Path(ps.__file__).parent
#: These words mean other things elsewhere: prior distributions, blocks of a covariance. (One file
#: does mean the kernel: results/tables/diagnostics reads stored fits, without the package saem, and
#: prior proposals are judged in none of them.)
OTHER_WORDS = {"prior", "block"}


class Toy(DrawnAhead):
    """A random walk that counts its proposals and knows no correlations."""

    name = "toy"
    share = 0.2
    advice = "Play with another one."
    learned = ("sd", "n_proposed")

    def __init__(self, sd):
        self.sd, self.n_proposed = sd, 0

    @classmethod
    def build(cls, mixed, sd, rng):
        return cls(sd)

    @classmethod
    def statistics(cls):
        return {**super().statistics(), "n_toy": np.int64}

    def report(self, rates):
        return {**super().report(rates), "n_toy": rates.size}

    def propose(self, moves, at, population):
        moves.step[at] = self.sd * self.rng.standard_normal((len(at), *moves.step.shape[1:]))
        self.n_proposed += len(at)
        return at

    def learn(self, within):
        if within is not None:
            self.sd = np.sqrt(np.diag(within))


@pytest.fixture
def with_toy(monkeypatch):
    monkeypatch.setitem(KERNELS, "toy", Toy)


@pytest.fixture(scope="module")
def linear():
    return linear_gaussian()


@pytest.fixture
def simulate(linear, with_toy):
    """A simulator, and a function that runs it once."""
    engine, theta, means, _ = linear
    population = engine.maximizer.population(theta)
    simulator = engine.simulator(population, np.random.default_rng(3))
    return simulator, lambda: simulator(population, theta, np.repeat(means[None], 20, axis=0))[2]


def test_a_new_kernel_leaves_the_distribution_invariant(linear, with_toy):
    check_invariance(linear, "toy")


def test_a_new_kernel_takes_part(simulate):
    simulator, run = simulate
    assert default_shares()["toy"] == simulator.shares["toy"] == 0.2
    report = run()
    assert report["n_toy"] == simulator.kernels["toy"].n_proposed > 0
    assert set(statistics()) <= set(report)
    assert statistics()["n_toy"] is np.int64


def test_a_new_kernel_is_an_option(with_toy):
    check_step_options("map", 10, 10, 1, {"toy": 1.0}, 0, 1.0, None)


def test_a_new_kernel_gives_advice(with_toy):
    (message,) = _stuck({"toy": 0.01, "prior": 0.01})
    assert message.startswith("The toy proposals had an acceptance rate of 1.0 %")
    assert message.endswith("Play with another one.")


def test_a_new_kernel_is_stored_and_restored(linear, simulate):
    engine, theta, _, _ = linear
    simulator, run = simulate
    run()
    other = engine.simulator(engine.maximizer.population(theta), np.random.default_rng(3))
    other.adapted = simulator.adapted
    np.testing.assert_equal(other.adapted, simulator.adapted)
    assert other.kernels["toy"].n_proposed == simulator.kernels["toy"].n_proposed


def test_fits_stored_before_a_kernel_existed_can_be_resumed(linear, monkeypatch):
    engine, theta, _, _ = linear
    population = engine.maximizer.population(theta)
    before = engine.simulator(population, np.random.default_rng(3)).adapted
    before["walks"]["block"]["shape"] = np.array([[2.0, 0.0], [0.3, 1.0]])
    monkeypatch.setitem(KERNELS, "toy", Toy)
    simulator = engine.simulator(population, np.random.default_rng(3))
    simulator.adapted = before
    assert np.array_equal(simulator.kernels["block"].shape, before["walks"]["block"]["shape"])
    assert simulator.kernels["toy"].n_proposed == 0


def test_the_stored_format_is_that_of_older_fits(linear):
    engine, theta, _, _ = linear
    stored = engine.simulator(engine.maximizer.population(theta), np.random.default_rng(3)).adapted
    assert list(stored) == ["walks", "within", "tune", "independence", "mala"]
    assert {name: list(walk) for name, walk in stored["walks"].items()} == dict.fromkeys(
        ("coordinate", "block"), ["scaling", "shape", "queue", "n_learned"]
    )
    assert list(stored["independence"]) == ["age", "mode", "root"]
    assert list(stored["mala"]) == ["scaling", "n_learned"]


def test_the_order_of_kernels_and_default_shares():
    """Random numbers are drawn in this order, so another one changes every fit."""
    assert list(KERNELS) == ["prior", "coordinate", "block", "mala", "independence"]
    assert default_shares() == {"prior": 0.15, "coordinate": 0.35, "block": 0.5}
    assert {name: kernel.name for name, kernel in KERNELS.items()} == {
        name: name for name in KERNELS
    }


def test_the_step_method_records_what_kernels_do():
    recorded = ps.SAEM.stats_dtypes_shapes
    assert {name: recorded[name][0] for name in statistics()} == statistics()


def names_in_code(path):
    """Kernels that texts in a file name, or whose acceptance they name; docstrings may do so."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }
    named = {
        name for name in KERNELS for text in texts if text == name or f"'{name}'" in text
    } - OTHER_WORDS
    return named | {name for name in KERNELS if f"accept_{name}" in texts}


def test_no_other_file_names_kernels():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        file = path.relative_to(PACKAGE).as_posix()
        if not file.startswith("saem/estep/"):
            if names := names_in_code(path):
                found[file] = names
    assert found == {}


def test_the_parts_of_the_e_step_name_no_kernel():
    for name in ("ensemble", "kernel", "mixture", "walk"):
        assert not names_in_code(PACKAGE / "saem" / "estep" / f"{name}.py"), name
