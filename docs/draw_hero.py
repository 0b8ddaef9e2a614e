"""Draw docs/_static/hero.png, the picture of the README: fitted curves beside the rates that the networks have learned.

python docs/draw_hero.py            # fits the neural ODE of theophylline (1000 iterations), and draws
python docs/draw_hero.py fit.nc     # draws a stored fit, such as demo/fit.nc of `make demo`
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402

import pymc_saem as ps  # noqa: E402
from pymc_saem.demo import SEED, SETTINGS, theophylline_model  # noqa: E402

HERO = Path(__file__).parent / "_static" / "hero.png"
#: The highest peaks, a fast and a slow absorption.
SUBJECTS = (5, 1, 9, 10)
#: Title and axes of each panel of rates; the network "w_a2", absorption by amount, has learned next
#: to nothing.
NETWORKS = {
    "w_a1": ("absorption", "time [h]", "rate / dose"),
    "w_c2": ("further input", "time [h]", "rate / dose"),
    "w_c1": ("elimination", "concentration [mg/L]", "rate [mg/L/h]"),
}
SMALL = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.7,
    "savefig.dpi": 180,
}
LEGENDS = {
    "a   Data and fits, 4 of 12 subjects": ("data", "individual fit", "population", "90 % band"),
    "b   Rates learned by the networks, all subjects": (
        "individual",
        "population",
        "90 % of draws",
        "no data",
    ),
}


def draw(model, idata, time) -> plt.Figure:
    """Left the data and fitted curves of four subjects, right the learned rates of all twelve."""
    figure = plt.figure(figsize=(9.0, 4.1))
    space = {"top": 0.83, "bottom": 0.115, "hspace": 0.55, "wspace": 0.12}
    left = figure.add_gridspec(2, 2, left=0.055, right=0.475, **space).subplots(
        sharex=True, sharey=True
    )
    grid = figure.add_gridspec(2, 2, left=0.565, right=0.99, **space | {"wspace": 0.38})
    right = [
        figure.add_subplot(grid[0, 0]),
        figure.add_subplot(grid[0, 1]),
        figure.add_subplot(grid[1, :]),
    ]
    ps.plot_fits(model, idata, subjects=list(SUBJECTS), x=time, ax=left)
    for ax in left.ravel():
        ax.set(xlabel="time [h]", ylabel="conc. [mg/L]")
        ax.label_outer()
    for (network, words), ax in zip(NETWORKS.items(), right, strict=True):
        ps.plot_rates(model, idata, networks=network, ax=ax, log=network == "w_c1")
        ax.set(**dict(zip(("title", "xlabel", "ylabel"), words, strict=True)))
    for x, axes, (title, labels) in zip(
        (0.055, 0.565), (left.ravel(), right), LEGENDS.items(), strict=True
    ):
        handles, known = axes[0].get_legend_handles_labels()
        wanted = [
            handle
            for handle, label in zip(handles, known, strict=True)
            if label != "rows of the data"
        ]
        for ax in axes:
            if ax.get_legend():
                ax.get_legend().remove()
        figure.text(x, 0.955, title, fontsize=9.5, fontweight="bold")
        place = {"loc": "upper left", "bbox_to_anchor": (x - 0.01, 0.955), "ncols": 4}
        figure.legend(wanted, labels, frameon=False, columnspacing=1.2, handlelength=1.6, **place)
    return figure


def main() -> None:
    data = ps.datasets.load_theophylline()
    model = theophylline_model(data)
    stored = sys.argv[1:]
    idata = ps.load(stored[0]) if stored else ps.fit_saem(model, random_seed=SEED, **SETTINGS)
    with plt.rc_context(SMALL):
        draw(model, idata, data["time"]).savefig(HERO)
    # half the size, and no difference to be seen
    Image.open(HERO).convert("RGB").quantize(128).save(HERO, optimize=True)
    print(f"{HERO}: {HERO.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
