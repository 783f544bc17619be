"""Holds the design: who may import whom, light actors, nothing that can run code from the wire, small files.

Everything is found by walking the folders, so a new package, module or file is held to the rules from its first day.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROLES = {"actor", "learner", "paramserver"}
#: The folder of what `import headrace` finds: names of others, fetched when they are asked for.
TOP = "headrace"
#: Package -> the packages of ours it may import. A new package needs a row here.
MAY_IMPORT = {
    "common": set[str](),
    "algorithms": {"common"},
    "tasks": {"common"},
    "compression": {"common"},
    "actor": {"common", "algorithms", "tasks"},
    "learner": {"common", "algorithms"},
    "paramserver": {"common"},
    "observe": {"common"},
    "launch": {"common", "algorithms", "tasks", "compression", "observe", *ROLES},
    TOP: {"common", "observe", "launch"},
}
#: Modules that run what they read, or that carry objects between processes that way.
CODE_LOADERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
CODE_RUNNERS = {"eval", "exec"}
PICKLING_CALLS = {"torch.load", "torch.save", "multiprocessing.Queue", "multiprocessing.SimpleQueue"}
MAX_LINES = 400
#: Client libraries of Kafka: what their documentation names may be imported, below it nothing.
KAFKA_PUBLIC = {"kafka", "kafka.errors", "kafka.admin", "kafka.structs", "confluent_kafka", "confluent_kafka.admin"}


def folders() -> list[Path]:
    """Every folder below the root that holds the project's own files."""
    tops = [p for p in ROOT.iterdir() if p.is_dir() and p.name[0] != "." and p.name not in {"build", "dist", "runs"}]
    return [p for p in tops if not p.name.endswith(".egg-info")]


def sources(*, tests: bool) -> list[Path]:
    """Every Python file of the project, the generated ones left out."""
    files = [f for top in folders() if tests or top.name != "tests" for f in top.rglob("*.py")]
    return sorted(f for f in files if "_pb2" not in f.name and "__pycache__" not in f.parts)


def packages() -> list[str]:
    """Dotted folder names of the packages that are shipped, e.g. ``common.wire``."""
    found = [f.parent.relative_to(ROOT) for top in folders() for f in top.rglob("__init__.py")]
    return sorted(".".join(p.parts) for p in found if p.parts[0] != "tests")


def top_packages() -> list[str]:
    return [p for p in packages() if "." not in p]


def module_name(file: Path) -> str:
    """The import name of a file: ``common/codec.py`` is ``headrace.common.codec``."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return import_name(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def import_name(folder: str) -> str:
    return folder if folder.split(".")[0] == TOP else f"headrace.{folder}"


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Absolute dotted names of everything imported in ``tree``, wherever it stands (functions, TYPE_CHECKING blocks).

    ``package`` is what relative imports start from. ``from a import b`` yields ``a.b``: b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "importlib.import_module", "__import__"}:
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def called(node: ast.Call) -> str:
    """``torch.load`` for ``torch.load(...)``; what is not a plain dotted name gives ''."""
    parts, at = [], node.func
    while isinstance(at, ast.Attribute):
        parts.append(at.attr)
        at = at.value
    return ".".join([at.id, *reversed(parts)]) if isinstance(at, ast.Name) else ""


def wrong_imports(source: str, module: str, package: str) -> list[str]:
    """What ``module`` (whose relative imports start from ``package``) imports and must not."""
    own = module.split(".")[1] if "." in module else TOP
    wrong = []
    for name in imported(ast.parse(source), package):
        parts = name.split(".")
        if parts[0] in MAY_IMPORT.keys() - {TOP}:
            wrong.append(f"{module} imports {name}: our packages are imported as headrace.{parts[0]}")
        elif parts[0] == TOP and (len(parts) == 1 or parts[1] not in {own, *MAY_IMPORT[own]}):
            wrong.append(f"{module} imports {name}: {own} may import {sorted(MAY_IMPORT[own]) or 'nothing of ours'}")
    return wrong


def code_running(source: str) -> list[str]:
    """Ways in ``source`` by which bytes could become running code."""
    tree = ast.parse(source)
    found = [f"imports {name}" for name in imported(tree, "headrace") if name.split(".")[0] in CODE_LOADERS]
    found += [f"imports {name}" for name in imported(tree, "headrace") if name in PICKLING_CALLS]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if called(node) in CODE_RUNNERS | PICKLING_CALLS:
            found.append(f"calls {called(node)} in line {node.lineno}")
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                found.append(f"allows pickle in line {node.lineno}")
    return found


def declares_policy(source: str) -> bool:
    """Does an algorithm's module hold something an actor loads: a class ``...Policy``, or a function ``policy``?"""
    return any(
        (isinstance(n, ast.ClassDef) and n.name.endswith("Policy"))
        or (isinstance(n, ast.FunctionDef) and n.name in {"policy", "make_policy"})
        for n in ast.walk(ast.parse(source))
    )


@pytest.mark.parametrize("package", top_packages())
def test_imports_point_down(package: str) -> None:
    assert package in MAY_IMPORT, f"{package}/ is a package: say in MAY_IMPORT what it may import"
    wrong = []
    for file in (f for f in sources(tests=False) if f.relative_to(ROOT).parts[0] == package):
        module = module_name(file)
        start = module if file.name == "__init__.py" else module.rpartition(".")[0]
        wrong += wrong_imports(file.read_text(), module, start)
    assert not wrong, "\n".join(wrong)


def test_the_rules_themselves() -> None:
    assert [package for package, allowed in MAY_IMPORT.items() if "launch" in allowed] == [TOP]
    assert all(not MAY_IMPORT[role] & ROLES for role in ROLES)
    assert not MAY_IMPORT["common"]


@pytest.mark.parametrize(
    ("source", "module", "caught"),
    [
        ("import headrace.learner.loop", "headrace.actor.env_loop", True),
        ("from headrace import learner", "headrace.actor.env_loop", True),
        ("from ..learner import loop", "headrace.actor.env_loop", True),
        ("from .. import launch", "headrace.actor.env_loop", True),
        ("def f():\n    from headrace.launch import cli", "headrace.learner.loop", True),
        ("if TYPE_CHECKING:\n    from headrace.tasks import x", "headrace.learner.loop", True),
        ("import_module('headrace.actor.env_loop')", "headrace.paramserver.store", True),
        ("from common.types import Weights", "headrace.actor.env_loop", True),
        ("from headrace.common.types import Weights", "headrace.actor.env_loop", False),
        ("from . import text_loop\nimport numpy, common_words", "headrace.actor.env_loop", False),
        ("from headrace.actor.env_loop import EnvLoop", "headrace.launch.build", False),
        ("import headrace", "headrace.launch.build", True),
        ("from headrace import train", "headrace.launch.build", True),
        ("from headrace.launch.agent import load", "headrace", False),
        ("from headrace.learner.loop import Learner", "headrace", True),
    ],
)
def test_a_wrong_import_is_seen(source: str, module: str, caught: bool) -> None:
    assert bool(wrong_imports(source, module, module.rpartition(".")[0])) == caught


def test_package_list_equals_the_folders() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    expected = {import_name(name): name.replace(".", "/") for name in packages()}
    assert sorted(setuptools["packages"]) == sorted(expected)
    assert setuptools["package-dir"] == expected


def test_actor_side_loads_without_torch() -> None:
    modules = []
    for file in sources(tests=False):
        package = file.relative_to(ROOT).parts[0]
        light = package in {"common", "tasks", "actor"} or file == ROOT / "algorithms" / "base.py"
        if light or (package == "algorithms" and declares_policy(file.read_text())):
            modules.append(module_name(file))
    assert "headrace.common.types" in modules
    # A module that runs on import is a program of its own (python -m): it is held to the rule by what it imports.
    modules = [m for m in modules if not m.endswith("__main__")]
    look = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'importing {name} loads torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", look, *modules], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]


def test_nothing_can_run_code_from_the_wire() -> None:
    found = [f"{f.relative_to(ROOT)} {what}" for f in sources(tests=False) for what in code_running(f.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import pickle", True),
        ("from cloudpickle import loads", True),
        ("def f():\n    import dill", True),
        ("torch.load(path, weights_only=True)", True),
        ("from torch import load", True),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path, allow_pickle=flag)", True),
        ("eval('1')", True),
        ("np.load(path, allow_pickle=False)", False),
        ("model.eval()\njson.load(file)\n'pickle'", False),
    ],
)
def test_running_code_is_seen(source: str, caught: bool) -> None:
    assert bool(code_running(source)) == caught


def private_parts(source: str) -> list[str]:
    """Where ``source`` reaches into an object that is not its own, or into the insides of a Kafka client."""
    tree = ast.parse(source)
    found = []
    for name in imported(tree, "headrace"):
        parts = name.split(".")
        inside = parts[0] in {"kafka", "confluent_kafka"} and not {name, name.rpartition(".")[0]} & KAFKA_PUBLIC
        if inside or any(part[0] == "_" and not part.startswith("__") for part in parts if part):
            found.append(f"imports {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                found.append(f"reads {ast.unparse(node)} in line {node.lineno}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch("_[a-z]+", node.value):
            found.append(f"names {node.value!r} in line {node.lineno}")
    return found


def test_carriers_and_metrics_use_no_private_part_of_a_library() -> None:
    files = [f for f in sources(tests=False) if f.parent == ROOT / "common" / "transport"]
    files.append(ROOT / "common" / "metrics.py")
    assert len(files) > 10
    found = [f"{f.name} {what}" for f in files for what in private_parts(f.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("self._producer._sender.force_close()", True),
        ("consumer._fetcher.fetch_records = fetch", True),
        ("getattr(consumer, '_fetcher')", True),
        ("from kafka.net.manager import KafkaConnectionManager", True),
        ("self._family.labels()._value.get()", True),
        ("import kafka.record.util", True),
        ("from kafka.record import memory_records", True),
        ("from confluent_kafka import _model", True),
        ("from kafka import KafkaConsumer, errors\nfrom kafka.admin import ConfigResource", False),
        ("from kafka.structs import OffsetAndMetadata", False),
        ("self._consumer.poll()\nKafkaError._BAD_MSG\nx.__class__", False),
    ],
)
def test_a_private_part_is_seen(source: str, caught: bool) -> None:
    assert bool(private_parts(source)) == caught


def test_files_stay_small() -> None:
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in sources(tests=True)}
    assert not {name: n for name, n in lengths.items() if n > MAX_LINES}
