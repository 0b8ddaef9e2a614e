"""Where a run begins: by which models gradient fits are tried."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from models import random_intercept, theophylline

import pymc_saem as ps
from pymc_saem.saem.read import read_model
from pymc_saem.saem.start import N_STARTS, default_exploration, default_starts

SUBJECT = np.repeat(np.arange(6), 10)
X = np.tile(np.linspace(-1, 1, 10), 6)


def network(shared):
    """y = net(x): weights of each subject, or one network with a random effect as its second input."""
    net = ps.nn.MLP(in_size=2 if shared else 1, out_size=1, width_size=2, depth=1, activation="tanh")
    with pm.Model(coords={"subject": range(6), "weight": net.weight_names}) as model:
        z = ps.nn.weights("z", net)
        if shared:
            eta = pm.Normal("eta", 0.0, 1.0, dims="subject")
            y = net(z, pt.stack([pt.as_tensor(X), eta[SUBJECT]], axis=-1)).ravel()
        else:
            w = pm.Normal("w", z, pm.HalfNormal("omega"), dims=("subject", "weight"))
            y = pt.concatenate([net(w[i], pt.as_tensor(X[SUBJECT == i])[:, None]).ravel() for i in range(6)])
        pm.Normal("y", y, pm.HalfNormal("sigma"), observed=np.sin(X))
    return model


@pytest.mark.parametrize(
    "build, fits",
    [
        (random_intercept, True),
        (theophylline, True),
        (lambda: network(shared=True), True),
        (lambda: network(shared=False), False),  # 7 weights, 10 rows a subject
    ],
)
def test_fits_are_tried_but_for_weights_that_differ_between_subjects(build, fits):
    mixed = read_model(build())
    assert default_starts(mixed) == (N_STARTS if fits else 0)
    assert default_exploration(mixed) == (200 if fits else 600)
