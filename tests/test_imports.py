"""What is imported when: the command line stays light, each heavy package keeps its one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gcdis_ray"
HEAVY = (
    "ray",
    "torch",
    "torchvision",
    "timm",
    "huggingface_hub",
    "deepspeed",
    "boto3",
    "faiss",
    "detectron2",
    "pycocotools",
    "matplotlib",
    "jinja2",
    "sklearn",
    "cv2",
    "optuna",
    "tensorboardX",
    "shtab",
)
HOMES = {
    "ray": ("runtime/ray_",),
    "deepspeed": ("training/strategy",),
    "boto3": ("store/s3",),
    "faiss": ("clustering/kmeans",),
    "detectron2": ("instances/detectron2",),
    "timm": ("backbones/",),
    "huggingface_hub": ("backbones/hub",),
    "pycocotools": ("masks/",),
    "matplotlib": ("report/",),
    "jinja2": ("report/",),
    "umap": ("report/projection",),
    "optuna": ("sweeps/space",),
    "tensorboardX": ("sweeps/trackers",),
    "mlflow": ("sweeps/trackers",),
    "wandb": ("sweeps/trackers",),
    "shtab": ("cli/completion",),
}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    "code",
    [
        "import gcdis_ray",
        "from gcdis_ray import cli; cli.make_parser()",
        "from gcdis_ray.run import graph, pipeline; graph.load_recipe('gcdis')",
        "import gcdis_ray.sweeps.config, gcdis_ray.sweeps.study, gcdis_ray.sweeps.run",
    ],
)
def test_light_imports(code: str):
    script = f"import sys; {code}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("package", sorted(HOMES))
def test_one_home_per_heavy_dependency(package: str):
    strangers = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if package in _imports(path)
        and not path.relative_to(PACKAGE).as_posix().startswith(HOMES[package])
    ]
    assert strangers == []
