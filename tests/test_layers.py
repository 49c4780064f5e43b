"""The order of the rooms, read from the source with `ast`: nothing is imported to check it.

A file imports from its own room or from a lower level; imports inside functions and for type checkers count,
because an arrow is an arrow. What must start fast does not reach torch, numpy or Pillow by imports at module
level.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "conjure"
LEVELS = {
    "core": 0,
    "media": 1,
    "nn": 1,
    "codecs": 2,
    "diffusion": 2,
    "decoding": 2,
    "metrics": 2,
    "models": 3,
    "data": 3,
    "train": 3,
    "tasks": 4,
    "serve": 5,
    "studio": 6,
    "cli": 7,
    "": 7,  # the root: conjure/__init__.py, which offers the public names
}
MAX_LINES = 700
BANNED_NAMES = re.compile(r"(base|common)|(.*_)?(utils?|helpers?|misc)(_.*)?")
NEVER = {"transformers", "diffusers"}  # peers to compare with, not to lean on
HEAVY = {"torch", "numpy", "PIL"}
LIGHT = re.compile(
    r"conjure(\.core\..*|\.core|\.media|\.media\.kinds|\.cli(\..*)?|\.__main__|\.tasks\.table|\.data\.catalogue)?"
)


def test_the_package_keeps_its_order() -> None:
    assert violations(PACKAGE) == []


def violations(package: Path) -> list[str]:
    """Every breach of the rules in the tree, one line each."""
    files = {module_name(package, path): path for path in sorted(package.rglob("*.py"))}
    trees = {name: ast.parse(path.read_bytes(), str(path)) for name, path in files.items()}
    found = []
    for name, path in files.items():
        found += [f"{name}: {problem}" for problem in about_the_file(package, path)]
        for target in sorted(set(imports(name, path, trees[name], files))):
            found += [f"{name}: {problem}" for problem in about_the_arrow(name, target)]
    for name in filter(LIGHT.fullmatch, files):
        if way := way_to_heavy(name, files, trees):
            found.append(f"{name}: imports something heavy at module level: {' -> '.join(way)}")
    return found


# -- one file ---------------------------------------------------------------------------------------------


def about_the_file(package: Path, path: Path) -> Iterator[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > MAX_LINES:
        yield f"{lines} lines, at most {MAX_LINES}"
    inside = path.relative_to(package)
    for part in (*inside.parts[:-1], inside.stem):
        if BANNED_NAMES.fullmatch(part):
            yield f"'{part}' says nothing about what is inside"
    if len(inside.parts) > 1 and inside.parts[0] not in LEVELS:
        yield f"'{inside.parts[0]}' is no room"


# -- arrows between files ---------------------------------------------------------------------------------


def about_the_arrow(source: str, target: str) -> Iterator[str]:
    if target.split(".")[0] in NEVER:
        yield f"imports {target}"
    if target.split(".")[0] != "conjure":
        return
    here, there = room(source), room(target)
    if there in LEVELS and here in LEVELS:
        beside = LEVELS[there] == LEVELS[here] and here != there and "" not in (here, there)
        if LEVELS[there] > LEVELS[here] or beside:
            yield f"imports {target}: level {LEVELS[here]} may not import '{there}' of level {LEVELS[there]}"
    if here == there == "tasks" and "_to_" in source and "_to_" in target and source != target:
        yield f"imports {target}: a task never imports another"


def imports(name: str, path: Path, tree: ast.AST, files: dict[str, Path]) -> Iterator[str]:
    """Full names of all modules that the tree imports anywhere, `importlib.import_module("...")` included."""
    for node in ast.walk(tree):
        yield from targets(node, name, path, files)
        if isinstance(node, ast.Call) and node.args and called(node) in ("import_module", "__import__"):
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def targets(node: ast.AST, name: str, path: Path, files: dict[str, Path]) -> Iterator[str]:
    """What one import statement names: modules; for `from package import x` the module x where it is one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = node.module or ""
        if node.level:
            package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            above = package[: len(package) - node.level + 1]
            origin = ".".join([*above, *([node.module] if node.module else [])])
        inner = [f"{origin}.{alias.name}" for alias in node.names]
        known = [each for each in inner if each in files or each.split(".")[1:] in [[r] for r in LEVELS if r]]
        yield from known
        if len(known) < len(inner):
            yield origin


def called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def module_name(package: Path, path: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """The room of a module: "nn" of `conjure.nn.norm`, "" of what lies at the root."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVELS else ""


# -- what runs when a module is imported ------------------------------------------------------------------


def way_to_heavy(start: str, files: dict[str, Path], trees: dict[str, ast.Module]) -> list[str]:
    """The shortest chain of module-level imports from `start` to something heavy; empty if there is none."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop(0)
        for target in at_import(way[-1], files, trees):
            if target.split(".")[0] in HEAVY:
                return [*way, target]
            if target in files and target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


def at_import(name: str, files: dict[str, Path], trees: dict[str, ast.Module]) -> Iterator[str]:
    """The modules that run because module `name` is imported: its packages, and what it imports outside
    functions and outside `if TYPE_CHECKING`."""
    yield from packages(name)
    for node in outside_functions(trees[name].body):
        for target in targets(node, name, files[name], files):
            yield from packages(target)
            yield target


def packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts)))


def outside_functions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from outside_functions(node.orelse)
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from outside_functions(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from outside_functions(handler.body)


# -- the checker finds what it looks for ------------------------------------------------------------------

GOOD = {
    "__init__.py": "def __getattr__(name):\n    import torch\n    from conjure.tasks import table\n",
    "core/__init__.py": "",
    "core/errors.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
    "core/seeds.py": "def draw():\n    import torch\n    from . import errors\n",
    "media/__init__.py": "from .kinds import of\ndef read():\n    from conjure.media import image\n",
    "media/kinds.py": "from ..core.errors import nearest\n",
    "media/image.py": "import numpy\nfrom conjure import media\n",
    "nn/norm.py": "import torch\nimport conjure.core.seeds\n",
    "models/net.py": "import torch\nfrom conjure.nn.norm import RMSNorm\n",
    "data/catalogue.py": "import conjure.core.errors\n",
    "data/common_voice.py": "import torch\n",
    "tasks/table.py": "",
    "tasks/text_to_image.py": "import torch\nfrom conjure.models import net\nfrom . import table\n",
    "cli/main.py": "from conjure.tasks.table import T\ndef run():\n    import conjure.tasks.text_to_image\n",
}
BAD = {
    "upwards": (
        "core/bad.py",
        "from conjure.media import kinds",
        "core.bad: imports conjure.media.kinds: level 0",
    ),
    "upwards in a function": (
        "nn/bad.py",
        "def f():\n    import conjure.models.net",
        "nn.bad: imports conjure.models.net: level 1 may not import 'models' of level 3",
    ),
    "upwards for types": (
        "core/bad.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from conjure.media.kinds import of",
        "core.bad: imports conjure.media.kinds: level 0",
    ),
    "upwards, relative": (
        "nn/bad.py",
        "from ..models import net",
        "nn.bad: imports conjure.models.net: level 1",
    ),
    "upwards, a whole room": (
        "nn/bad.py",
        "from conjure import tasks",
        "nn.bad: imports conjure.tasks: level 1",
    ),
    "upwards, by string": (
        "nn/bad.py",
        "import importlib\nnet = importlib.import_module('conjure.models.net')",
        "nn.bad: imports conjure.models.net: level 1",
    ),
    "upwards, to the root": ("nn/bad.py", "from conjure import make", "nn.bad: imports conjure: level 1"),
    "upwards, from a package": (
        "nn/__init__.py",
        "from ..models.net import Net",
        "nn: imports conjure.models.net",
    ),
    "sideways": ("nn/bad.py", "import conjure.media.kinds", "nn.bad: imports conjure.media.kinds: level 1"),
    "a task in a task": (
        "tasks/image_to_text.py",
        "from conjure.tasks.text_to_image import T",
        "tasks.image_to_text: imports conjure.tasks.text_to_image: a task never",
    ),
    "a peer": (
        "models/bad.py",
        "def f():\n    from transformers import AutoModel",
        "models.bad: imports transformers",
    ),
    "torch in core": ("core/bad.py", "import torch.nn", "core.bad: imports something heavy at module level"),
    "torch in a class body": (
        "core/bad.py",
        "class A:\n    from torch import nn",
        "core.bad: imports something heavy",
    ),
    "torch in a try": (
        "cli/bad.py",
        "try:\n    import torch\nexcept ImportError:\n    pass",
        "cli.bad: imports some",
    ),
    "torch by a detour": (
        "cli/bad.py",
        "from conjure.tasks import text_to_image",
        "cli.bad: imports something heavy at module level: "
        "conjure.cli.bad -> conjure.tasks.text_to_image -> torch",
    ),
    "torch by a package": ("tasks/__init__.py", "import torch", "tasks.table: imports something heavy"),
    "numpy in media": ("media/__init__.py", "from .image import Image", "media: imports something heavy"),
    "torch in the table": ("tasks/table.py", "import torch", "tasks.table: imports something heavy"),
    "torch in the catalogue": (
        "data/catalogue.py",
        "import torch",
        "data.catalogue: imports something heavy",
    ),
    "torch in the root": ("__init__.py", "import torch", "conjure: imports something heavy"),
    "an empty name": ("nn/utils.py", "", "nn.utils: 'utils' says nothing"),
    "an empty name in a name": ("nn/image_utils.py", "", "nn.image_utils: 'image_utils' says nothing"),
    "an empty name of a folder": ("nn/common/norm.py", "", "nn.common.norm: 'common' says nothing"),
    "a room too many": ("pipelines/x.py", "", "pipelines.x: 'pipelines' is no room"),
    "too long": ("nn/bad.py", "x = 1\n" * 701, "nn.bad: 701 lines, at most 700"),
}


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        path = root / "conjure" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root / "conjure"


def test_a_good_tree_passes(tmp_path: Path) -> None:
    assert violations(plant(tmp_path, GOOD)) == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tree_fails(tmp_path: Path, name: str) -> None:
    path, source, expected = BAD[name]
    found = violations(plant(tmp_path, GOOD | {path: source}))
    assert any(expected in line for line in found), found
    assert found[0].startswith("conjure")
