"""MLP against formulas written out here; PyTensor against NumPy; shapes, names, errors, extreme inputs."""

import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special

from pymc_saem.nn import MLP

FORMULAS = {
    "identity": lambda x: x,
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "relu": lambda x: np.where(x > 0, x, 0),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + special.erf(x / np.sqrt(2))) / 2,
}
NETS = [
    MLP(1, 1, 2, 1),
    MLP(1, 1, 1, 1),
    MLP(1, 1, 3, 2),
    MLP(2, 1, 3, 1),
    MLP(1, 2, 3, 2, output_activation="softplus"),
    MLP(3, 2, 4, 2, activation="swish"),
    MLP(1, 1, 5, 0),
    MLP(3, 2, 5, 0),
]


def evaluate(graph):
    """The value of a graph without inputs, by the interpreter of PyTensor: no compiler, no waiting."""
    return pytensor.function([], graph, mode="FAST_COMPILE")()


def input_of(net, rng, batch=()):
    return rng.normal(size=batch if net.in_size == 1 else (*batch, net.in_size))


def reference(net, weights, x):
    """The network for one weight vector and one input, unit by unit, from the names of the weights."""
    value = dict(zip(net.weight_names, weights, strict=True))
    h = np.atleast_1d(x)
    for layer in range(1, net.depth + 2):
        is_last = layer == net.depth + 1
        n_out = net.out_size if is_last else net.width_size
        activation = FORMULAS[net.output_activation if is_last else net.activation]
        h = np.array(
            [
                activation(
                    value[f"b{layer}[{i}]"]
                    + sum(value[f"W{layer}[{i},{j}]"] * h[j] for j in range(len(h)))
                )
                for i in range(n_out)
            ]
        )
    return h[0] if net.out_size == 1 else h


def test_tutorial_network_written_out():
    net = MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")
    assert net.n_weights == 7
    assert net.weight_names == (
        "W1[0,0]",
        "W1[1,0]",
        "b1[0]",
        "b1[1]",
        "W2[0,0]",
        "W2[0,1]",
        "b2[0]",
    )
    w = np.array([0.3, -1.2, 0.5, 0.1, 2.0, -0.7, 0.4])
    x = 0.8
    expected = 2.0 * np.tanh(0.3 * x + 0.5) - 0.7 * np.tanh(-1.2 * x + 0.1) + 0.4
    assert net(w, x) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_numpy_and_pytensor_equal_the_reference(net, rng):
    weights, x = rng.normal(size=net.n_weights), input_of(net, rng)
    expected = reference(net, weights, x)
    assert len(net.weight_names) == net.n_weights
    np.testing.assert_allclose(net(weights, x), expected, rtol=1e-13)
    np.testing.assert_allclose(
        evaluate(net(pt.constant(weights), pt.constant(x))), expected, rtol=1e-13
    )


@pytest.mark.parametrize("net", NETS, ids=repr)
@pytest.mark.parametrize(
    ("weight_batch", "x_batch"),
    [
        ((), (5,)),
        ((), (5, 4)),
        ((5,), ()),
        ((5,), (5,)),
        ((5, 1), (4,)),
        ((1,), (1,)),
        ((2, 5), (5,)),
    ],
    ids=str,
)
def test_batches_broadcast(net, weight_batch, x_batch, rng):
    weights = rng.normal(size=(*weight_batch, net.n_weights))
    x = input_of(net, rng, x_batch)
    batch = np.broadcast_shapes(weight_batch, x_batch)
    result = net(weights, x)
    assert result.shape == (batch if net.out_size == 1 else (*batch, net.out_size))
    all_weights = np.broadcast_to(weights, (*batch, net.n_weights))
    all_x = np.broadcast_to(x, batch if net.in_size == 1 else (*batch, net.in_size))
    for index in np.ndindex(batch):
        np.testing.assert_allclose(
            result[index], reference(net, all_weights[index], all_x[index]), rtol=1e-11
        )
    for symbolic in (net(pt.constant(weights), x), net(weights, pt.constant(x))):
        np.testing.assert_allclose(evaluate(symbolic), result, rtol=1e-12)


@pytest.mark.parametrize("activation", FORMULAS)
def test_activations_are_the_formulas(activation, rng):
    hidden = MLP(2, 1, 3, 1, activation=activation)
    output = MLP(2, 1, 3, 1, output_activation=activation)
    for net in (hidden, output):
        weights, x = rng.normal(size=net.n_weights), rng.normal(size=2)
        np.testing.assert_allclose(net(weights, x), reference(net, weights, x), rtol=1e-12)
        np.testing.assert_allclose(
            evaluate(net(pt.constant(weights), x)), reference(net, weights, x), rtol=1e-12
        )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
@pytest.mark.parametrize("activation", FORMULAS)
@pytest.mark.slow
def test_extreme_inputs_stay_finite(activation, mode):
    net = MLP(1, 1, 1, 1, activation="identity", output_activation=activation)
    weights = np.array([1.0, 0.0, 1.0, 0.0])
    x = np.array([-1e300, -1e4, -750.0, -40.0, 0.0, 40.0, 750.0, 1e4, 1e300])
    result = net(weights, x)
    assert np.all(np.isfinite(result))
    variable = pt.dvector("x")
    output = net(weights, variable)
    function = pytensor.function([variable], [output, pt.grad(output.sum(), variable)], mode=mode)
    symbolic, slope = function(x)
    np.testing.assert_allclose(symbolic, result, rtol=1e-12, atol=1e-300)
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("activation", FORMULAS)
def test_gradients_agree_with_finite_differences(activation, rng):
    net = MLP(2, 1, 3, 2, activation=activation, output_activation="softplus")
    weights, x = rng.normal(size=net.n_weights), rng.normal(size=2)
    variables = pt.dvector("w"), pt.dvector("x")
    output = net(*variables)
    gradient = pytensor.function(variables, pt.grad(output, variables), mode="FAST_COMPILE")(
        weights, x
    )
    step = 1e-6
    for values, found, shifted in (
        (weights, gradient[0], lambda d: net(weights + d, x)),
        (x, gradient[1], lambda d: net(weights, x + d)),
    ):
        expected = [
            (shifted(step * unit) - shifted(-step * unit)) / (2 * step)
            for unit in np.eye(len(values))
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_inputs_may_be_lists_and_scalars():
    net = MLP(2, 1, 2, 1)
    weights = np.linspace(-1, 1, net.n_weights)
    a, b = pt.dscalar("a"), pt.dscalar("b")
    value = net(weights, [a, b]).eval({a: 0.3, b: -0.2}, mode="FAST_COMPILE")
    assert value == pytest.approx(net(weights, [0.3, -0.2]))
    assert net(list(weights), (0.3, -0.2)) == pytest.approx(value)


def test_static_shapes_are_known():
    weights, t = pt.tensor("w", shape=(7,)), pt.dscalar("t")
    assert MLP(1, 1, 2, 1)(weights, t).type.shape == ()
    net = MLP(1, 3, 2, 1)
    assert net(pt.tensor("w", shape=(net.n_weights,)), t).type.shape == (3,)


def test_wrong_weight_length():
    net = MLP(1, 1, 2, 1)
    for weights in (np.zeros(6), np.zeros((7, 6)), pt.zeros(6)):
        with pytest.raises(
            ValueError,
            match=r"has length 6, but MLP\(.*\) has 7 weights .*W1\[0,0\] to b2\[0\].*dims",
        ):
            net(weights, 0.5)
    with pytest.raises(ValueError, match="is a scalar"):
        net(1.0, 0.5)


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
@pytest.mark.parametrize("length", [6, 8])
@pytest.mark.slow
def test_wrong_weight_length_known_only_at_run_time(length, mode):
    weights = pt.dvector("w")
    function = pytensor.function([weights], MLP(1, 1, 2, 1)(weights, 0.5), mode=mode)
    assert np.isfinite(function(np.zeros(7)))
    with pytest.raises(AssertionError, match="must have length 7, the n_weights of MLP"):
        function(np.zeros(length))


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
@pytest.mark.slow
def test_wrong_input_size_known_only_at_run_time(mode):
    """A list of vectors puts the inputs on the first axis."""
    a, b = pt.dvector("a"), pt.dvector("b")
    net = MLP(2, 1, 2, 1)
    weights = np.linspace(-1, 1, net.n_weights)
    right, wrong = (
        pytensor.function([a, b], net(weights, pt.stack([a, b], axis=k)), mode=mode)
        for k in (-1, 0)
    )
    values = np.arange(3.0), np.ones(3)
    np.testing.assert_allclose(right(*values), net(weights, np.stack(values, axis=-1)))
    with pytest.raises(
        AssertionError,
        match="last axis of the input must have length 2, the in_size of MLP.*axis=-1",
    ):
        wrong(*values)


@pytest.mark.parametrize("x", [0.5, np.zeros(3), np.zeros((2, 3)), pt.zeros((4, 1))], ids=str)
def test_wrong_input_size(x):
    net = MLP(2, 1, 2, 1)
    with pytest.raises(ValueError, match="in_size=2; put the inputs on the last axis"):
        net(np.zeros(net.n_weights), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_size": 0}, "in_size must be an integer of at least 1, got 0"),
        ({"out_size": -1}, "out_size must be"),
        ({"width_size": 2.5}, "width_size must be .* got 2.5"),
        ({"depth": -1}, "depth must be an integer of at least 0, got -1"),
        ({"depth": True}, "depth must be"),
        ({"activation": "Tanh"}, "unknown activation 'Tanh'; choose one of identity, tanh, relu"),
        ({"output_activation": "exp"}, "unknown output_activation 'exp'"),
    ],
)
def test_impossible_networks(change, message):
    sizes = {"in_size": 1, "out_size": 1, "width_size": 2, "depth": 1}
    with pytest.raises(ValueError, match=message):
        MLP(**(sizes | change))


def test_description_is_frozen_hashable_and_pickles():
    net = MLP(1, 1, np.int64(2), 1)
    assert net == MLP(1, 1, 2, 1)
    assert hash(net) == hash(MLP(1, 1, 2, 1))
    assert net.n_weights == 7
    assert pickle.loads(pickle.dumps(net)) == net
    with pytest.raises(AttributeError):
        net.depth = 2
