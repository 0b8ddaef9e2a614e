"""Cost against accuracy as a figure: a row for solves and one for gradients, a column per problem."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

#: This package in strong colours and full lines, others in thin broken ones.
STYLES = {
    "tsit5": ("#0b5fa5", "o", "-"), "cvodes": ("#c1440e", "s", "-"), "auto": ("#1a8754", "D", ":"),
    "sunode": ("#b8860b", "v", "--"), "diffrax": ("#7b3fa0", "^", "--"), "numbalsoda lsoda": ("#d6518b", "<", "--"),
    "numbalsoda dop853": ("#8c564b", ">", "--"), "hand-written Numba": ("#222222", "x", "--"),
    "SciPy RK45": ("#7f7f7f", "1", "--"), "SciPy LSODA": ("#5a7d8c", "2", "--"), "SciPy Radau": ("#a0a0a0", "3", "--"),
}  # fmt: skip


def draw(points, path):
    """Write the figure of all points to ``path``."""
    problems = list(dict.fromkeys(p["problem"].title for p in points))
    figure, axes = plt.subplots(
        2, len(problems), figsize=(3.6 * len(problems) + 0.6, 7.2), squeeze=False
    )
    drawn = {}
    for column, problem in enumerate(problems):
        for row, (what, error) in enumerate((("solve", "error"), ("gradient", "gradient_error"))):
            ax = axes[row, column]
            for engine, (colour, marker, line) in STYLES.items():
                mine = [
                    p for p in points if p["problem"].title == problem and p["engine"] == engine
                ]
                xy = np.array(
                    [(p[error], p[what]) for p in mine if np.isfinite(p.get(error, np.nan))]
                )
                if len(xy):
                    own = line != "--"
                    drawn[engine] = ax.plot(
                        *xy.T,
                        line,
                        color=colour,
                        marker=marker,
                        ms=4.5 if own else 4,
                        lw=1.9 if own else 1.0,
                        label=engine,
                    )[0]
            ax.set(xscale="log", yscale="log", xlabel="largest relative error")
            ax.minorticks_off()
            ax.invert_xaxis()
            ax.grid(alpha=0.25)
            if column == 0:
                ax.set_ylabel(f"microseconds per subject-{what}")
            ax.set_title(f"{problem}: {what}", fontsize=10)
    keys = [engine for engine in STYLES if engine in drawn]
    figure.legend(
        [drawn[k] for k in keys], keys, loc="lower center", ncol=6, fontsize=9, frameon=False
    )
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=66)
    plt.close(figure)
