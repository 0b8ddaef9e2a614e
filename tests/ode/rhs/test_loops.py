"""Right-hand sides printed as loops over tensors: the same numbers as PyTensor's own, and derivatives."""

import ctypes

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from scipy.integrate import solve_ivp as scipy_solve_ivp

from pymc_saem.nn import MLP
from pymc_saem.ode import solve_ivp
from pymc_saem.ode.rhs import system as problem
from pymc_saem.ode.rhs.compiled import CompiledRhs
from pymc_saem.ode.rhs.system import trace

PLAIN = Mode("py", "fast_compile")
STATES = ("a", "b", "c")
SHAPES = {"w": (5,), "m": (3, 4), "k": ()}
MATRIX = np.arange(15.0).reshape(3, 5) / 10 - 0.6


def network(width, depth, activation="tanh"):
    net = MLP(in_size=3, out_size=3, width_size=width, depth=depth, activation=activation)

    def rhs(t, y, p):
        out = net(p.w, pt.stack([y.a, y.b, y.c]))
        return {"a": out[0] - p.k * y.a, "b": pt.softplus(out[1]) * t, "c": out[2]}

    return rhs, {"w": (net.n_weights,), "k": ()}


def sums(t, y, p):
    total = (p.m * p.w[:4]).sum(axis=1) + p.m.mean() - p.m.T.sum(axis=0)
    return {"a": total[0] * y.a, "b": total[1:].sum() * t, "c": (p.m**2).sum() * p.k}


def pieces(t, y, p):
    x = pt.concatenate([p.w[::2], pt.stack([y.a, t]), pt.zeros(2), p.m[1, ::-1]])
    x = pt.set_subtensor(x[1:4], pt.exp(-x[2:5]))
    x = pt.inc_subtensor(x[0], p.k)
    x = pt.inc_subtensor(x[5:9], y.b)
    return {"a": x[:3].sum(), "b": (x * x).sum(), "c": x[-1] * x[4]}


def shared(t, y, p):
    """Tensors that are wanted before and after a part of them is set."""
    x = pt.set_subtensor((p.w * y.a)[1:3], p.m[0, :2])
    z = pt.inc_subtensor(x[2:4], y.b)
    z = pt.set_subtensor(z[0], x[4])
    return {"a": (x * z).sum(), "b": z[2] - x[2], "c": (x[::-1] * p.w).sum()}


def choices(t, y, p):
    x = pt.switch(p.w > 0.1, p.w * y.a, pt.sqr(p.w)) + pt.clip(p.m[0, 0], -0.2, 0.2)
    return {"a": pt.maximum(x, 0.0).sum(), "b": pt.tanh(x)[2], "c": pt.sigmoid(x[1]) * y.c}


def matrices(t, y, p):
    x = pt.dot(MATRIX, p.w) + pt.as_tensor(MATRIX)[:, 1] * y.a
    z = pt.dot(p.m.T, x) @ p.m.T + pt.outer(x, p.w)[:, 2]
    return {"a": z[0], "b": pt.dot(x, z), "c": (p.m @ p.m.T)[0, 2] - p.w[0]}


def same_slope(t, y, p):
    slope = (p.w * y.b).sum()
    return {"a": slope, "b": slope, "c": pt.constant(0.0)}


SYSTEMS = {
    "network": network(5, 3, "swish"),
    **{f.__name__: (f, SHAPES) for f in (sums, pieces, shared, choices, matrices, same_slope)},
}


def numbers(shapes, lanes, rng):
    n_p = sum(int(np.prod(shape)) for shape in shapes.values())
    n = len(STATES)
    sizes = {"t": 1, "y": n, "p": n_p, "dy": n, "jy": n * n, "jp": n * n_p}
    return {name: rng.normal(scale=0.5, size=(size, lanes)) for name, size in sizes.items()}


def call(address, lanes, arrays):
    function = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 7)(address)
    assert function(lanes, *(a.ctypes.data for a in arrays.values())) == 0


@pytest.fixture
def wide(monkeypatch):
    """All right-hand sides as loops."""
    monkeypatch.setattr(problem, "MOST_WORK", -1)


@pytest.fixture(scope="module")
def compiled():
    """Systems are compiled once for all numbers of lanes."""
    return {}


def symbols(shapes):
    from types import SimpleNamespace

    t, y = pt.dscalar("t"), {name: pt.dscalar(name) for name in STATES}
    p = {name: pt.tensor(name, dtype="float64", shape=shape) for name, shape in shapes.items()}
    return t, y, p, (t, SimpleNamespace(**y), SimpleNamespace(**p))


def reference(name):
    """Function of t, y and flat p: slopes, and their Jacobians, by PyTensor."""
    rhs, shapes = SYSTEMS[name]
    t, y, p, arguments = symbols(shapes)
    slopes = rhs(*arguments)
    wrt = [*y.values(), *p.values()]
    rows = [
        pt.concatenate([
            d.ravel() for d in pt.grad(slopes[s] * 1.0, wrt, disconnected_inputs="ignore", return_disconnected="zero")
        ])
        for s in STATES
    ]  # fmt: skip
    f = pytensor.function(
        [t, *wrt],
        [pt.stack([slopes[s] for s in STATES]), pt.stack(rows)],
        mode=PLAIN,
        on_unused_input="ignore",
    )

    def evaluate(t, y, flat):
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        parts = [
            part.reshape(shape)
            for part, shape in zip(np.split(flat, ends[:-1]), shapes.values(), strict=True)
        ]
        return f(t, *y, *parts)

    return evaluate


@pytest.mark.parametrize("lanes", [1, 3, 8])
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.slow
def test_agrees_with_pytensor(name, lanes, wide, compiled, rng):
    rhs, shapes = SYSTEMS[name]
    if name not in compiled:
        system = trace(rhs, STATES, shapes)
        assert system.is_wide
        compiled[name] = CompiledRhs(system), reference(name)
    code, evaluate = compiled[name]
    n, n_p = 3, code.n_p
    plain, full = numbers(shapes, lanes, rng), numbers(shapes, lanes, rng)
    call(code.lanes_rhs_address, lanes, plain)
    call(code.lanes_jac_address, lanes, full)
    for lane in range(lanes):
        slopes, _ = evaluate(plain["t"][0, lane], plain["y"][:n, lane], plain["p"][:, lane])
        np.testing.assert_allclose(plain["dy"][:n, lane], slopes, rtol=1e-12, atol=1e-13)
        slopes, jacobian = evaluate(full["t"][0, lane], full["y"][:n, lane], full["p"][:, lane])
        np.testing.assert_allclose(full["dy"][:n, lane], slopes, rtol=1e-12, atol=1e-13)
        jy, jp = full["jy"][:, lane].reshape(n, n), full["jp"][:, lane].reshape(n, n_p)
        np.testing.assert_allclose(np.hstack([jy, jp]), jacobian, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_constants_come_after_parameters(wide, rng):
    """Constants have values in p, but no column in the Jacobian."""
    system = trace(sums, STATES, SHAPES, constant=("w",))
    code, every = CompiledRhs(system), numbers(SHAPES, 2, rng)
    assert (system.n_p, system.n_dp) == (18, 13)
    ordered = np.concatenate([every["p"][5:], every["p"][:5]])  # m, k, then w
    given = every | {"p": ordered, "jp": np.full((3 * 13, 2), np.nan)}
    call(code.lanes_jac_address, 2, given)
    evaluate = reference("sums")
    for lane in range(2):
        slopes, jacobian = evaluate(every["t"][0, lane], every["y"][:3, lane], every["p"][:, lane])
        np.testing.assert_allclose(given["dy"][:3, lane], slopes, rtol=1e-12)
        np.testing.assert_allclose(
            given["jp"][:, lane].reshape(3, 13), jacobian[:, 8:], rtol=1e-12, atol=1e-13
        )


def test_small_systems_are_written_out_and_wide_ones_are_loops():
    assert not trace(*parts(network(2, 1))).is_wide
    system = trace(*parts(network(32, 2)))
    assert system.is_wide
    wider = trace(*parts(network(64, 2)))
    assert len(wider.jac_source) < 1.1 * len(system.jac_source)  # as long, whatever the width


def parts(case):
    rhs, shapes = case
    return rhs, STATES, shapes


def test_what_has_no_loop_is_written_out(wide):
    def rhs(t, y, p):
        return {
            "a": pt.special.softmax(p.w)[0] * y.a,
            "b": p.w[0],
            "c": p.w[pt.as_tensor([0, 1, 3])].sum(),
        }

    assert not trace(rhs, STATES, {"w": (5,)}).is_wide


@pytest.mark.parametrize("solver", ["tsit5", "cvodes"])
@pytest.mark.slow
def test_a_wide_network_is_solved(solver, rng):
    net = MLP(in_size=2, out_size=2, width_size=16, depth=2)
    weights = rng.normal(scale=0.4, size=(3, net.n_weights))

    def rhs(t, y, p):
        out = net(p.w, pt.stack([y.a, y.b]))
        return {"a": out[0] - y.a, "b": out[1] - 0.5 * y.b}

    times = np.linspace(0.5, 3.0, 6)
    w = pt.tensor("w", dtype="float64", shape=weights.shape)
    solution = solve_ivp(
        rhs, {"a": 1.0, "b": -0.5}, {"w": w}, np.tile(times, 3), np.repeat(range(3), 6), rtol=1e-10, atol=1e-10, solver=solver
    )  # fmt: skip
    loss = (pt.sqr(solution.a) + solution.b).sum()
    f = pytensor.function([w], [solution.a, loss, pt.grad(loss, w)], mode=PLAIN)
    a, _, gradient = f(weights)
    for i in range(3):
        exact = scipy_solve_ivp(
            lambda t, y, i=i: net(weights[i], y) - [1.0, 0.5] * y, (0.0, 3.0), [1.0, -0.5], t_eval=times,
            method="DOP853", rtol=1e-12, atol=1e-12,
        )  # fmt: skip
        np.testing.assert_allclose(a[6 * i : 6 * i + 6], exact.y[0], rtol=1e-8, atol=1e-8)
    direction = rng.normal(size=weights.shape)
    up, down = (f(weights + h * direction)[1] for h in (1e-5, -1e-5))
    np.testing.assert_allclose((gradient * direction).sum(), (up - down) / 2e-5, rtol=1e-6)
