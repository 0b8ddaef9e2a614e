"""The progress of a fit: a bar in terminals and notebooks, lines of a log elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

import numpy as np
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from pymc_saem.model.mixed_model import Parameter
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.run.bars import Bars

#: Seconds between lines of a log.
_EVERY_LINE = 10.0
_LOG = logging.getLogger("pymc_saem")


class Progress:
    """Phase, iteration, one chosen parameter, acceptance and time left; after the iterations, what is being computed.

    Without a terminal or notebook, or without ``show``, the same goes to the logger "pymc_saem" at
    level INFO: at the end of each phase, and every ten seconds. Nothing is heard of it until a
    program turns that level on.
    """

    def __init__(self, engine: Engine, n_explore: int, n_smooth: int, chains: int, show: bool):
        self.engine, self.n_explore, self.total = engine, n_explore, n_explore + n_smooth
        self.shown = self._chosen()
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            show=show,
        )
        self.visible = self.bars.is_visible
        add = self.bars.progress.add_task
        count = f"0/{self.total}"
        self.tasks = [
            add("compile", total=self.total, count=count, state="") for _ in range(chains)
        ]
        # a task that has not been started has a bar that moves without an end
        self.after = add("", start=False, visible=False, count="", state="")
        self.logs = not self.visible and _LOG.isEnabledFor(logging.INFO)
        # of each chain: when it was first heard of, and at which iteration
        self.began: dict[int, tuple[float, int]] = {}
        self.last_line: dict[int, float] = {}

    def _chosen(self) -> Parameter | None:
        """The residual scale, or else the first scalar parameter."""
        residuals = self.engine.rules.residuals
        if residuals:
            return residuals[0].parameter
        return next((p for p in self.engine.mixed.parameters if p.shape == ()), None)

    def __enter__(self) -> Progress:
        self.bars.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        # nothing that is only shown may end a fit, such as a terminal that was closed
        with suppress(Exception):
            self.bars.update(self.after, visible=False)
            self.bars.__exit__(*exc)

    def announce(self, what: str) -> None:
        """Show what is computed after the iterations."""
        if self.visible or self.logs:
            try:
                self._show_after(what)
            except Exception:  # noqa: BLE001 - nothing that is only shown may end a fit
                self.visible = self.logs = False

    def _show_after(self, what: str) -> None:
        text = what.replace("The ", "", 1)
        text = f"{text[:1].lower()}{text[1:]}"
        if self.visible:
            self.bars.update(self.after, description=text, visible=True)
            self.bars.paint()
        else:
            _LOG.info("%s", text)

    def update(
        self, chain: int, iteration: int, theta: np.ndarray, stats: Mapping[str, Any]
    ) -> None:
        """Show one more iteration; if that fails, nothing more is shown."""
        if self.visible or self.logs:
            try:
                self._show(chain, iteration, theta, stats)
            except Exception:  # noqa: BLE001 - nothing that is only shown may end a fit
                self.visible = self.logs = False

    def _show(
        self, chain: int, iteration: int, theta: np.ndarray, stats: Mapping[str, Any]
    ) -> None:
        accept = np.nanmean([value for name, value in stats.items() if name.startswith("accept_")])
        state = f"accept {accept:.2f}"
        if self.shown is not None:
            value = self.engine.points.natural(self.shown, theta[self.shown.columns])
            state = f"{self.shown.name} {value.item():.4g}  {state}"
        phase = "explore" if iteration < self.n_explore else "smooth"
        name = f"{phase}" if len(self.tasks) == 1 else f"chain {chain} {phase}"
        if self.visible:
            count = f"{iteration + 1}/{self.total}"
            self.bars.update(
                self.tasks[chain],
                completed=iteration + 1,
                description=name,
                count=count,
                state=state,
            )
        else:
            self._log(chain, iteration + 1, name, state)

    def _log(self, chain: int, done: int, name: str, state: str) -> None:
        now = perf_counter()
        began, first = self.began.setdefault(chain, (now, done))
        if (
            done in (self.n_explore, self.total)
            or now - self.last_line.setdefault(chain, now) >= _EVERY_LINE
        ):
            self.last_line[chain] = now
            left = (now - began) * (self.total - done) / max(done - first, 1)
            _LOG.info("%s %d/%d  %s  %.0f s left", name, done, self.total, state, left)
