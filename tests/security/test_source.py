"""Nothing in the package can run what it reads: no pickle, no eval, no unsafe loaders."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "gcdis_ray").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])


def _calls(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_unsafe_call(path: Path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {a.name for a in node.names} & {"pickle", "dill", "cloudpickle", "marshal"}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
    for name, keywords in _calls(tree):
        assert name not in {"eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load"}, name
        assert keywords.get("shell") != "True", name
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", "torch.load must be weights_only"
        if name in {"np.load", "numpy.load"}:
            assert keywords.get("allow_pickle", "False") == "False"
        assert not name.endswith(".extractall"), name
