"""nn.weights in a model: start, names, priors, dims, errors."""

import subprocess
import sys

import numpy as np
import pymc as pm
import pytest

from pymc_saem import nn

NET = nn.MLP(in_size=1, out_size=1, width_size=2, depth=1)


def test_networks_of_the_tutorial_start_useful_and_different():
    with pm.Model(coords={"weight": NET.weight_names}) as model:
        for name in ("a1", "a2", "c1", "c2"):
            nn.weights(f"z_{name}", NET)
    assert all(model.named_vars_to_dims[name] == ("weight",) for name in model.named_vars)
    values = list(model.initial_point().values())
    for i, value in enumerate(values):
        rates = np.logaddexp(0, NET(value, np.linspace(-1, 1, 21)))
        assert np.all((rates > 0.005) & (rates < 0.08))
        assert all(np.max(np.abs(value - other)) > 0.1 for other in values[:i])


@pytest.mark.slow
def test_start_is_the_same_in_every_session():
    code = (
        "import pymc as pm; from pymc_saem import nn\n"
        "with pm.Model() as m: nn.weights('z', nn.MLP(1, 1, 2, 1))\n"
        "print(m.initial_point()['z'].tolist())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    with pm.Model() as model:
        nn.weights("z", NET)
    assert printed.strip() == str(model.initial_point()["z"].tolist())


def test_options_of_the_start():
    with pm.Model() as model:
        nn.weights("seeded", NET, random_seed=3)
        nn.weights("same", NET, random_seed=np.random.default_rng(3))
        nn.weights("given", NET, initval=np.arange(7))
        nn.weights("typical", NET, typical_output=2.0)
    value = model.initial_point()
    np.testing.assert_array_equal(value["seeded"], value["same"])
    np.testing.assert_array_equal(value["given"], np.arange(7))
    assert value["typical"][-1] == 2.0


def test_flat_prior_has_zero_density_everywhere():
    with pm.Model() as model:
        nn.weights("z", NET)
    logp = model.compile_logp()
    assert logp({"z": np.zeros(7)}) == 0.0
    assert logp({"z": np.full(7, 1e6)}) == 0.0


def test_normal_prior_is_normal_around_zero():
    with pm.Model() as model:
        nn.weights("z", NET, prior_sd=2.0)
    x = np.linspace(-1, 3, 7)
    expected = np.sum(-0.5 * (x / 2) ** 2 - np.log(2) - 0.5 * np.log(2 * np.pi))
    assert model.compile_logp()({"z": x}) == pytest.approx(expected)
    assert model.initial_point()["z"][-1] == -4.0
    draws = pm.draw(model["z"], 500, random_seed=1)
    assert draws.std() == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("prior_sd", [None, 1.5])
@pytest.mark.slow
def test_model_copies_and_samples_forward(prior_sd):
    with pm.Model(coords={"weight": NET.weight_names}) as model:
        z = nn.weights("z", NET, prior_sd=prior_sd)
        pm.Normal("y", NET(z, np.linspace(0, 1, 4)), 1.0, observed=np.zeros(4))
        prior = pm.sample_prior_predictive(draws=5, random_seed=1).prior["z"]
    assert prior.dims == ("chain", "draw", "weight")
    assert len(np.unique(prior)) == 35
    np.testing.assert_array_equal(model.copy().initial_point()["z"], model.initial_point()["z"])


def test_flat_forward_draws_spread_around_the_start():
    with pm.Model() as model:
        z = nn.weights("z", NET)
    draws = pm.draw(z, 400, random_seed=1)
    np.testing.assert_allclose(draws.mean(axis=0), model.initial_point()["z"], atol=0.12)
    np.testing.assert_allclose(draws.std(axis=0), 0.5, rtol=0.15)


def test_dims():
    with pm.Model(coords={"weight": NET.weight_names, "other": range(7)}) as model:
        nn.weights("default", NET)
        nn.weights("text", NET, dims="other")
        nn.weights("tuple", NET, dims=("other",))
    assert model.named_vars_to_dims == {
        "default": ("weight",),
        "text": ("other",),
        "tuple": ("other",),
    }
    with pm.Model() as plain:
        z = nn.weights("z", NET)
    assert z.type.shape == (7,)
    assert not plain.named_vars_to_dims.get("z")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"dim 'weight' has length 3, but MLP\(.*\) has 7 weights; give the network its own coords",
        ),
        ({"dims": "length"}, "dim 'length' has length 4"),
        ({"dims": "missing"}, "dim 'missing' is unknown to the model; add coords="),
        ({"dims": ("weight", "weight")}, "has one dim"),
        (
            {"dims": "good", "initval": np.zeros(6)},
            r"initval of 'z' has shape \(6,\), .* needs \(7,\)",
        ),
        ({"dims": "good", "prior_sd": 0}, "prior_sd of 'z' must be positive, got 0"),
        ({"dims": "good", "input_range": (1, 1)}, "low < high"),
        ({"dims": "good", "input_range": (0, np.inf)}, "input_range must be finite"),
        ({"dims": "good", "input_range": (0, 1, 2)}, r"input_range must have shape \(1, 2\)"),
        ({"dims": "good", "typical_output": [1, 2]}, r"typical_output must have shape \(1,\)"),
    ],
)
def test_errors(options, message):
    with pm.Model(coords={"weight": range(3), "good": range(7)}) as model:
        model.add_coord("length", length=4)
        with pytest.raises(ValueError, match=message):
            nn.weights("z", NET, **options)


def test_activation_points_fill_the_input_range(rng):
    net = nn.MLP(1, 1, 10, 1)
    weights = nn.initial_weights(net, rng, input_range=(0, 24))
    slope, bias = weights[:10], weights[10:20]
    points = np.sort(-bias / slope)
    assert np.array_equal(np.floor(points / 2.4), np.arange(10))  # one in each tenth of the range
    assert np.all((np.abs(slope) * 12 >= 1) & (np.abs(slope) * 12 <= 3))


def test_ranges_of_several_inputs(rng):
    net = nn.MLP(2, 3, 20, 2)
    ranges = np.array([(0.0, 1.0), (100.0, 300.0)])
    x = ranges[:, 0] + rng.random((200, 2)) * np.diff(ranges).T
    first = nn.initial_weights(net, rng, ranges, typical_output=(1.0, 2.0, 3.0))
    matrix, bias = first[:40].reshape(20, 2), first[40:60]
    assert np.mean(np.abs(x @ matrix.T + bias) < 3) > 0.7  # few units are saturated
    np.testing.assert_allclose(net(first, x), np.broadcast_to([1, 2, 3], (200, 3)), atol=1.5)


def test_affine_network_is_typical_in_the_middle(rng):
    net = nn.MLP(1, 1, 1, 0)
    assert net(nn.initial_weights(net, rng, (10, 30), 5.0), 20.0) == pytest.approx(5.0)
