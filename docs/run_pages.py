"""Run the Python blocks of pages, and keep what they print and draw where the pages show it.

    python docs/run_pages.py        # all pages that show outputs; `make docs` does this before Sphinx

A block whose next output line is ``![caption](_outputs/name.svg)`` draws that figure, and a block
with several such lines several figures, in their order; one that is followed by a
``literalinclude`` of ``_outputs/name.txt`` prints that text. So every picture and every number of a
page comes from the block above it. Pictures are vectors, sharp on any screen. ``first_fit.md`` runs
first; what it defines is known to all other pages.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
FIRST = HERE / "first_fit.md"
GALLERY = HERE / "gallery.md"
#: Made by programs, from other sources.
GENERATED = ("_build", "_outputs", "notebooks", "reference")
_BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_OUTPUT = re.compile(
    r"(?:\]\(|^```\{(?:image|figure|literalinclude)\} )([./]*_outputs/[\w./-]+)", flags=re.MULTILINE
)
PICTURE = ".svg"
#: Width of printed tables: that of a terminal.
COLUMNS = 80


@dataclass(frozen=True)
class Block:
    """Source behind empty lines, so that a traceback shows the line of the page; files of its outputs."""

    page: Path
    source: str
    outputs: tuple[Path, ...]


def pages() -> list[Path]:
    """Pages that are written by hand, the first fit first."""
    found = [
        path
        for path in sorted(HERE.rglob("*.md"))
        if path.relative_to(HERE).parts[0] not in GENERATED
    ]
    return [FIRST, *(path for path in found if path != FIRST)]


def blocks(page: Path) -> Iterator[Block]:
    """Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    for number, one in enumerate(found, start=1):
        end = found[number].start() if number < len(found) else len(text)
        outputs = tuple(
            (page.parent / path).resolve() for path in _OUTPUT.findall(text[one.end() : end])
        )
        yield Block(page, "\n" * text[: one.start(1)].count("\n") + one.group(1), outputs)


def run(page: Path, namespace: Mapping, keep_outputs: bool = False) -> dict:
    """Run a page in a copy of ``namespace``; what it has defined at the end."""
    namespace = dict(namespace)
    for block in blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.source, str(page), "exec"), namespace)
        if keep_outputs:
            _keep(block, printed.getvalue())
    return namespace


def _keep(block: Block, printed: str) -> None:
    import matplotlib.pyplot as plt

    pictures = [path for path in block.outputs if path.suffix == PICTURE]
    figures = plt.get_fignums()
    if len(figures) < len(pictures):
        names = ", ".join(path.name for path in pictures)
        raise RuntimeError(
            f"{block.page.name} shows {names}, and the block before draws {len(figures)} figures."
        )
    for path, number in zip(pictures, figures[len(figures) - len(pictures) :], strict=True):
        path.parent.mkdir(exist_ok=True)
        plt.figure(number).savefig(path, bbox_inches="tight")
    for path in set(block.outputs) - set(pictures):
        if not printed:
            raise RuntimeError(
                f"{block.page.name} shows {path.name}, and the block before it prints nothing."
            )
        path.parent.mkdir(exist_ok=True)
        path.write_text(printed, encoding="utf-8")
    plt.close("all")


def missing_plots(public_names) -> list[str]:
    """Plot functions that the gallery does not draw."""
    drawn = [
        block.source
        for block in blocks(GALLERY)
        if any(path.suffix == PICTURE for path in block.outputs)
    ]
    return [
        n
        for n in public_names
        if n.startswith("plot_") and not any(f"ps.{n}(" in source for source in drawn)
    ]


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd

    import pymc_saem as ps

    if missing := missing_plots(ps.__all__):
        sys.exit(
            f"docs/gallery.md shows no picture of {', '.join(missing)}: add a block that calls it, and its image."
        )
    os.environ["COLUMNS"] = str(COLUMNS)
    pd.set_option("display.width", COLUMNS)
    warnings.simplefilter("default")
    known = {}
    for page in pages():
        if any(block.outputs for block in blocks(page)):
            print(f"running {page.relative_to(HERE)}", flush=True)
            found = run(page, known, keep_outputs=True)
            known = found if page == FIRST else known


if __name__ == "__main__":
    main()
