"""The source files that a module of this package can depend on, as a short hash.

Machine code is kept on disk under this hash, so that an edited file never runs with old code of
another one.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent


@cache
def sources_hash(module: str, root: Path = _PACKAGE) -> str:
    """Hash of a module's file and of all files of the package that it imports, at any depth and wherever in their code.

    Parameters
    ----------
    module : str
        Its full name, such as ``pymc_saem.ode.solvers.lanes``.
    root : Path
        Folder of the package.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    found: set[Path] = set()
    waiting = _files(module.split("."), root)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path, root)
    if not found:
        raise ValueError(f"{module} is not a module of the package.")
    texts = (f"{path.relative_to(root)}\n".encode() + path.read_bytes() for path in sorted(found))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def _imported(path: Path, root: Path) -> list[Path]:
    """Files of the package that a file imports."""
    here, found = [root.name, *path.relative_to(root).parent.parts], []
    for level, module in _modules(path.read_bytes()):
        base = here[: len(here) - level + 1] if level else []
        found += _files([*base, *module.split(".")], root)
    return found


@cache
def _modules(text: bytes) -> tuple[tuple[int, str], ...]:
    """What a source imports, as (number of leading dots, dotted name)."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            head = f"{node.module}." if node.module else ""
            found += [(node.level, head + alias.name) for alias in node.names]
    return tuple(found)


def _files(name: list[str], root: Path) -> list[Path]:
    """Files behind a dotted name, which may be a module or something in one.

    A name that is not a module comes from the package above it, whose names may be those of any of
    its files.
    """
    if name[0] != root.name:
        return []
    place = root.joinpath(*name[1:])
    if place.with_suffix(".py").is_file():
        return [place.with_suffix(".py")]
    if place.is_dir():
        return sorted(place.rglob("*.py"))
    return _files(name[:-1], root) if len(name) > 1 else []
