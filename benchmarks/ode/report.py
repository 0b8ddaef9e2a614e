"""Tables of the benchmark as Markdown."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

ERRORS = 1e-3, 1e-5, 1e-7
OWN = "tsit5", "cvodes", "auto"


def settings(options):
    """Versions and settings, in one paragraph."""
    parts = [f"Python {platform.python_version()}"]
    for name in (
        "pymc",
        "pytensor",
        "numba",
        "numpy",
        "scipy",
        "sunode",
        "jax",
        "diffrax",
        "numbalsoda",
    ):
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            parts.append(f"no {name}")
    return f"{', '.join(parts)}; {os.cpu_count()} cores, {1 if options.quick else options.rounds} round(s).\n"


def at_error(points, target, what="solve"):
    """Microseconds at which an engine reaches an error, interpolated on logarithms; None where it never does."""
    error = "error" if what == "solve" else "gradient_error"
    points = sorted(
        (p for p in points if np.isfinite(p.get(error, np.nan))), key=lambda p: -p["rtol"]
    )
    for k, point in enumerate(points):
        if point[error] <= target:
            if k == 0:
                return point[what]
            before = points[k - 1]
            share = np.log(before[error] / target) / np.log(
                before[error] / max(point[error], 1e-16)
            )
            return float(np.exp((1 - share) * np.log(before[what]) + share * np.log(point[what])))
    return None


def by_engine(points):
    """Points of each engine, keyed by problem and engine."""
    groups = {}
    for point in points:
        groups.setdefault((point["problem"].title, point["engine"]), []).append(point)
    return groups


def number(value, form=".3g"):
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if form == ".3g" and value >= 99.5 else format(value, form)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def costs(points, compared):
    """The main table."""
    head = [
        "problem",
        "engine",
        *(f"solve, {e:.0e}" for e in ERRORS),
        *(f"gradient, {e:.0e}" for e in ERRORS),
    ]
    head += [
        f"{what}, rtol {compared:.0e}"
        for what in ("solve", "gradient", "error", "gradient error", "steps")
    ] + ["compile s"]
    rows = []
    for (problem, engine), group in by_engine(points).items():
        at = next((p for p in group if p["rtol"] == compared), {})
        row = [number(at_error(group, e, what)) for what in ("solve", "gradient") for e in ERRORS]
        row += [number(at.get(what)) for what in ("solve", "gradient")]
        row += [
            number(at.get("error"), ".0e"),
            number(at.get("gradient_error"), ".0e"),
            number(at.get("steps"), ".0f"),
        ]
        compiling = [group[0]["compile"], group[0]["compile_gradient"]]
        rows.append(
            [
                problem,
                engine,
                *row,
                " + ".join(number(s, ".1f") for s in compiling if np.isfinite(s)),
            ]
        )
    return table(head, rows)


def sizes(scaled):
    """Costs by number of subjects and threads."""
    one, two = scaled["costs"]["1"], scaled["costs"]["2"]
    names = [(engine, kind) for engine, kinds in one["12"].items() for kind in kinds]
    columns = [(size, threads) for size in one for threads in (1, 2)]
    head = [
        "engine",
        "",
        *(f"{size}, {threads} thread{'s' * (threads > 1)}" for size, threads in columns),
    ]
    rows = [
        [
            engine,
            kind,
            *(
                number((one if threads == 1 else two)[size][engine][kind])
                for size, threads in columns
            ),
        ]
        for engine, kind in names
    ]
    return table(head, rows)


def aims(points, overhead, scaled):
    """The aims with what was measured."""
    rows = [*_against_peers(points)]
    for rtol, us in overhead.items():
        text = ", ".join(
            f"{name} {number(us[name])}"
            for name in ("function", "operation", "graph", "task", "hand")
        )
        rows.append(
            [
                f"solve at most 1.2 bare loops, rtol {rtol:.0e} (us: {text})",
                us["function"] / us["task"],
                1.2,
            ]
        )
        rows.append(
            [f"the same from compiled code, rtol {rtol:.0e}", us["graph"] / us["task"], 1.2]
        )
    for rtol, us in overhead.items():
        rows.append(
            [
                f"gradient at most 3 solves, rtol {rtol:.0e} (us: {number(us['gradient'])}, {number(us['function'])})",
                us["gradient"] / us["function"],
                3.0,
            ]
        )
    two = scaled["costs"]["2"]["1000"]
    ratio = two["tsit5, 1 thread"]["solve"] / two["tsit5"]["solve"]
    rows = [
        [text, f"{value:.2f}", f"<= {limit:g}", "yes" if value <= limit else "no"]
        for text, value, limit in rows
    ]
    what = f"1,000 subjects, 1 thread / 2 threads (two separate processes reach {scaled['ceiling']:.2f})"
    rows.append([what, f"{ratio:.2f}", ">= 1.8", "yes" if ratio >= 1.8 else "no"])
    return table(["aim", "measured", "wanted", "met"], rows)


def _against_peers(points):
    """Own best engine over best peer at equal error, for solves and gradients of each problem."""
    groups = by_engine(points)
    for problem in dict.fromkeys(problem for problem, _ in groups):
        for what in ("solve", "gradient"):
            for target in ERRORS:
                costs = {
                    e: at_error(g, target, what) for (p, e), g in groups.items() if p == problem
                }
                costs = {e: c for e, c in costs.items() if c is not None and np.isfinite(c)}
                own = {e: c for e, c in costs.items() if e in OWN}
                others = {
                    e: c
                    for e, c in costs.items()
                    if e not in OWN and e not in ("sunode", "hand-written Numba")
                }
                if own and others:
                    mine, other = min(own, key=own.get), min(others, key=others.get)
                    text = f"{problem}, {what} at error {target:.0e}: {mine} / {other}"
                    yield [text, own[mine] / others[other], 1.0]
