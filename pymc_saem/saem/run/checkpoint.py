"""When a running fit is written to a file, and how."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from pymc_saem.arguments import check_count, check_types, shown
from pymc_saem.compat import InferenceData
from pymc_saem.results.files.storage import check_place, save
from pymc_saem.saem.run.chain import Chain
from pymc_saem.saem.run.snapshot import Snapshot

_LOG = logging.getLogger("pymc_saem")


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a running fit is written, so that a killed process loses little.

    The file always is a whole fit: it is written beside its place and then moved there in one step.
    While the fit runs, it has the estimates so far, their trace, and what :func:`fit_saem` needs to
    resume (``resume=path``); at the end, everything.

    Parameters
    ----------
    path : str or path
        A netCDF file, ending in ``.nc``; its folder must exist.
    seconds : float, default 10
        Time between two writings.
    iterations : int, optional
        Iterations between two writings, instead of seconds.

    Raises
    ------
    ValueError
        When the file cannot be written there, or something else than a fit is there; or when the
        times make no sense.

    See Also
    --------
    pymc_saem.fit_saem : Takes it as ``checkpoint``, and the file as ``resume``.
    pymc_saem.load : Reads the file at any time.

    Examples
    --------
    >>> idata = ps.fit_saem(model, checkpoint=ps.Checkpoint("fit.nc", iterations=50))
    >>> so_far = ps.load("fit.nc")
    """

    path: str | os.PathLike
    seconds: float = 10.0
    iterations: int | None = None

    _absolute: Path = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_types(
            "Checkpoint", {name: getattr(self, name) for name in ("path", "seconds", "iterations")}
        )
        path = Path(self.path)
        # the process may change its folder while it fits
        object.__setattr__(self, "_absolute", Path(os.path.abspath(path)))
        if path.is_dir() and path.suffix != ".zarr":
            raise ValueError(
                f"checkpoint is '{path}', which is a folder; name a file in it, such as '{path / 'fit.nc'}'."
            )
        if path.suffix == ".zarr":
            raise ValueError(
                f"checkpoint is '{path}', a Zarr folder; it must be a netCDF file, such as 'fit.nc'."
            )
        try:
            place = check_place(path)
        except (ValueError, OSError) as error:
            raise ValueError(f"checkpoint: {error}") from error
        if not os.access(place.parent, os.W_OK):
            raise ValueError(f"checkpoint is '{path}', and its folder may not be written.")
        if self.iterations is not None:
            check_count("iterations of a Checkpoint", self.iterations, 1)
        if (
            isinstance(self.seconds, bool)
            or not isinstance(self.seconds, int | float)
            or not self.seconds >= 0.0
        ):
            raise ValueError(
                f"seconds of a Checkpoint is {shown(self.seconds)}; it must be a number of at least 0."
            )


def as_checkpoint(value: Any) -> Checkpoint | None:
    """The argument ``checkpoint`` of :func:`fit_saem`."""
    if value is None or isinstance(value, Checkpoint):
        return value
    if isinstance(value, str | os.PathLike):
        return Checkpoint(value)
    raise ValueError(
        f"checkpoint is {shown(value)}; it must be the path of a netCDF file, or a Checkpoint."
    )


@dataclass
class Clock:
    """When the next snapshot of a chain is due."""

    schedule: Checkpoint
    last: float = field(default_factory=perf_counter)

    def is_due(self, iteration: int) -> bool:
        if self.schedule.iterations is not None:
            return iteration % self.schedule.iterations == 0
        is_due = perf_counter() - self.last >= self.schedule.seconds
        if is_due:
            self.last = perf_counter()
        return is_due


class Keep(Protocol):
    """Takes snapshots of running chains."""

    schedule: Checkpoint

    def is_due(self, iteration: int) -> bool:
        """Whether a snapshot is wanted after this iteration."""

    def __call__(self, chain: int, snapshot: Snapshot) -> None:
        """Take one."""


class Writer:
    """Collects snapshots of chains, and writes the fit that they make.

    Parameters
    ----------
    schedule : Checkpoint
    begun : dict of int to Snapshot
        Chains that went on from an earlier run.
    build : callable
        ``build(runs)`` makes ArviZ data of chains.
    """

    def __init__(
        self,
        schedule: Checkpoint,
        begun: dict[int, Snapshot],
        build: Callable[[list[Chain]], InferenceData],
    ):
        self.schedule, self.snapshots, self.build = schedule, dict(begun), build
        self.clock = Clock(schedule)
        self.failures: list[str] = []  # of writings that failed, since the last one that did not

    def is_due(self, iteration: int) -> bool:
        """Whether a snapshot is wanted after this iteration."""
        return self.clock.is_due(iteration)

    def __call__(self, chain: int, snapshot: Snapshot) -> None:
        """Write the fit so far; a failure is reported at once, and the fit continues."""
        self.snapshots[chain] = snapshot
        try:
            runs = [Chain.of(found, number) for number, found in sorted(self.snapshots.items())]
            self.finish(self.build(runs))
        except Exception as error:  # noqa: BLE001 - a disk must not end a run
            self.failures.append(f"{type(error).__name__}: {error}")
            _LOG.warning(
                "The checkpoint '%s' was not written; the fit continues: %s",
                self.schedule.path,
                error,
            )

    def finish(self, idata: InferenceData) -> None:
        """Write a fit in the place of the last one."""
        save(idata, self.schedule._absolute)
        self.failures.clear()

    def messages(self) -> list[str]:
        """What the user should read at the end."""
        if not self.failures:
            return []
        return [
            f"The checkpoint '{self.schedule.path}' could not be written ({len(self.failures)} times; the last one: {self.failures[-1]}). If the "
            "file exists, it holds an earlier state. The result is complete: store it elsewhere with ps.save(idata, ...)."
        ]
