"""Operations of other packages that run in Python only: found, and their numerical noise is no dependence."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import vectorize_graph

import pymc_saem as ps
from pymc_saem.model.dependence.row_subjects import subjects_of_rows
from pymc_saem.model.graph.interpreted import has_python_only_ops
from pymc_saem.model.mixed_model import UnsupportedModelError


class Doubled(Op):
    """An operation as users write them: `perform` and nothing else."""

    __props__ = ()

    def make_node(self, x):
        x = pt.as_tensor_variable(x)
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = 2.0 * inputs[0]


def test_python_only_operations_are_found_in_batches_too():
    x, batch = pt.vector("x", shape=(3,)), pt.matrix("batch", shape=(2, 3))
    y = pt.exp(Doubled()(x))
    assert has_python_only_ops([y])
    assert has_python_only_ops([vectorize_graph(y, {x: batch})])
    assert not has_python_only_ops([pytensor.tensor.linalg.inv(pt.outer(x, x)) + pt.exp(x)])


def test_noise_of_a_shared_solve_does_not_mix_the_subjects():
    subject = np.array([0, 0, 1, 2, 2, 3])

    def density(phi, theta):
        return [np.sin(phi[subject, 0]) + 1e-7 * phi.sum()]

    arguments = density, np.zeros(0), np.linspace(0.1, 0.4, 4)[:, None], ["y"]
    (found,) = subjects_of_rows(*arguments, np.random.default_rng(0), noise=1e-4)
    np.testing.assert_array_equal(found, subject)
    with pytest.raises(UnsupportedModelError, match="more than one subject"):
        subjects_of_rows(*arguments, np.random.default_rng(0))


def test_kernels_that_need_a_gradient_say_so():
    with pm.Model(coords={"subject": range(3)}) as model:
        b = pm.Normal("b", pm.Flat("mean", initval=0.0), 1.0, dims="subject")
        pm.Normal("y", Doubled()(b), 1.0, observed=np.arange(3.0))
    step = ps.SAEM(model=model, kernel={"mala": 1.0}, n_starts=0)
    with pytest.raises(ValueError, match="propose along gradients need the gradient"):
        step.step(model.initial_point())
