"""Proposals of importance sampling: for every subject a mixture of t distributions that covers p(phi_i | y_i, theta).

One t distribution with the conditional moments covers what resembles a Gaussian. Likelihoods with
kinks, several modes or long ridges need more: t distributions around conditional draws, each as
wide as the draws near it (Cappé, Guillin, Marin & Robert 2004). A part of every mixture is p(phi_i
| theta) itself: no weight is larger than the likelihood over its share, and a mode that no draw has
seen shows (Hesterberg 1995). Without it, squares, whose two modes the draws may have missed, were
off by 7 of their stated errors. For effects that are not Gaussian, a Gaussian of their scale stands
in, which bounds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from pymc_saem.saem.core.gaussian import Population

#: Degrees of freedom: tails heavier than those of a Gaussian prior, whatever the likelihood.
DF = 5.0
#: Share of the correlations of points that is not trusted.
SHRINK = 0.05
#: Shares of the mixture: the t distribution of all points, p(phi | theta), and those around single
#: points together.
OF_ALL, OF_POPULATION, OF_CENTRES = 0.25, 0.1, 0.65
#: Single points, at most, and the share of the points near one that make its shape.
N_CENTRES, NEAR = 24, 0.15
#: Smallest variance of such a shape, as a share of that of all points: modes far apart are narrow
#: beside their distance.
THIN = 5e-4


@dataclass(frozen=True)
class TMixture:
    """A mixture of multivariate t distributions for each subject.

    Attributes
    ----------
    centre : ndarray, shape (component, subject, phi)
    root : ndarray, shape (component, subject, phi, phi)
        Lower Cholesky factors of the scales.
    share : ndarray, shape (component,)
    df : ndarray, shape (component,)
        Degrees of freedom; infinite: Gaussian.
    """

    centre: np.ndarray
    root: np.ndarray
    share: np.ndarray
    df: np.ndarray

    @classmethod
    def of_moments(
        cls, mean: np.ndarray, covariance: np.ndarray, population: Population
    ) -> TMixture:
        """One t distribution with this mean (subject, phi) and scale (subject, phi, phi), and p(phi | theta)."""
        centre = np.stack([mean, population.mean])
        root = np.stack([_root(covariance), np.broadcast_to(population.root, covariance.shape)])
        return cls(
            centre, root, np.array([1.0 - OF_POPULATION, OF_POPULATION]), np.array([DF, np.inf])
        )

    @classmethod
    def around(cls, points: np.ndarray, population: Population) -> TMixture:
        """The mixture that covers points (point, subject, phi) of equal weight."""
        mean = points.mean(axis=0)
        centred = points - mean
        whole = cls.of_moments(
            mean, np.einsum("ksi,ksj->sij", centred, centred) / len(points), population
        )
        picked = points[
            np.linspace(0, len(points) - 1, min(N_CENTRES, len(points))).round().astype(int)
        ]
        centre = np.concatenate([whole.centre, picked])
        roots = np.concatenate([whole.root, _roots_near(points, picked, whole.root[0])])
        share = np.concatenate(
            [[OF_ALL, OF_POPULATION], np.full(len(picked), OF_CENTRES / len(picked))]
        )
        df = np.concatenate([[DF, np.inf], np.full(len(picked), DF)])
        return cls(centre, roots, share, df)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Points (point, subject, phi) and their log density (point, subject)."""
        n_subjects, d = self.centre.shape[1:]
        which = rng.choice(len(self.share), size=(n, n_subjects), p=self.share)
        df = self.df[which]
        heavy = np.isfinite(df)
        widths = np.ones((n, n_subjects))
        widths[heavy] = np.sqrt(df[heavy] / rng.chisquare(df[heavy]))
        z = rng.standard_normal((n, n_subjects, d)) * widths[..., None]
        phi = np.empty_like(z)
        for k in range(len(self.share)):  # one by one: a root for every point is too much memory
            moved = self.centre[k] + np.einsum("sij,ksj->ksi", self.root[k], z)
            np.copyto(phi, moved, where=(which == k)[..., None])
        return phi, self.log_density(phi)

    def log_density(self, phi: np.ndarray) -> np.ndarray:
        """(point, subject), for phi (point, subject, phi)."""
        d = phi.shape[-1]
        total = np.full(phi.shape[:2], -np.inf)
        for k, (df, share) in enumerate(zip(self.df, self.share, strict=True)):
            whitener = np.linalg.inv(self.root[k])
            squares = np.sum(
                np.einsum("sij,ksj->ksi", whitener, phi - self.centre[k]) ** 2, axis=-1
            )
            log_volume = np.log(np.einsum("sii->si", self.root[k])).sum(axis=1)
            total = np.logaddexp(total, np.log(share) - log_volume + _log_kernel(squares, df, d))
        return total


def _log_kernel(squares: np.ndarray, df: float, d: int) -> np.ndarray:
    """Log density of a standard t distribution in ``d`` dimensions at points of these squared lengths."""
    if np.isinf(df):
        return -0.5 * (squares + d * np.log(2.0 * np.pi))
    constant = gammaln(0.5 * (df + d)) - gammaln(0.5 * df) - 0.5 * d * np.log(df * np.pi)
    return constant - 0.5 * (df + d) * np.log1p(squares / df)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Cholesky factors of covariances (..., phi, phi), their correlations shrunk a little."""
    diagonal = np.einsum("...ii->...i", covariance)
    shrunk = (1.0 - SHRINK) * covariance
    np.einsum("...ii->...i", shrunk)[:] = diagonal * (1.0 + 1e-9) + 1e-300
    return np.linalg.cholesky(shrunk)


def _roots_near(points: np.ndarray, picked: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Cholesky factors (picked, subject, phi, phi) of the scales of the points near each picked one.

    Near in units of all points; a share of the scale of all points keeps thin shapes from being too
    thin.
    """
    whitener = np.linalg.inv(root)
    z, centres = (np.einsum("sij,ksj->ksi", whitener, x) for x in (points, picked))
    n_near = min(len(points), max(4 * points.shape[-1] + 2, round(NEAR * len(points))))
    out = np.empty((len(picked), *root.shape))
    for c, centre in enumerate(centres):
        apart = z - centre
        near = np.argpartition(np.sum(apart**2, axis=-1), n_near - 1, axis=0)[:n_near]
        apart = np.take_along_axis(apart, near[..., None], axis=0)
        local = np.einsum("ksi,ksj->sij", apart, apart) / n_near + THIN * np.eye(points.shape[-1])
        out[c] = root @ np.linalg.cholesky(local)
    return out
