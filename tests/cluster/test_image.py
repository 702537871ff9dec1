"""The Dockerfile, read and carried out in a scratch folder: there is no container daemon here.

What needs root or the network is done by stand-ins that write down how they were called; the long
test lets `pip` and `uv` do their work.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from small_run import ROOT

DOCKERFILE = ROOT / "cluster" / "Dockerfile"
TARGETS = ("cpu", "gpu", "gpu-detectron2")
NETWORK = re.compile(r"_CERT|_CA_BUNDLE|_proxy$|_PROXY$|_INDEX")  # how this machine reaches it
ROOTS = ("opt", "etc", "var", "home")  # folders of the image that RUN lines name


@dataclass
class Stage:
    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> dict[str, Stage]:
    """Every stage of a Dockerfile with its instructions, in order."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", text))
    found: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(name, base)
        elif found:
            list(found.values())[-1].steps.append((word, rest))
    return found


STAGES = stages(DOCKERFILE.read_text())


def steps(target: str) -> list[tuple[str, str]]:
    """The instructions that make a target, those of the stages below it first."""
    stage = STAGES[target]
    below = steps(stage.base) if stage.base in STAGES else []
    return below + stage.steps


def every() -> list[tuple[str, str]]:
    return [step for stage in STAGES.values() for step in stage.steps]


class Scratch:
    """A folder that stands in for the image's file system."""

    def __init__(self, folder: Path, programs: Path, unset: frozenset[str]) -> None:
        """Args:
        programs: folder of what is found before the machine's own.
        unset: variables that ENV lines set, and that are left as they are.
        """
        self.unset = unset
        self.root = folder
        for name in ROOTS:
            (folder / name).mkdir()
        (folder / "etc" / "profile.d").mkdir()
        self.here = folder
        self.env = {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(folder / "log")}
        self.args: dict[str, str] = {}
        self.user = "root"

    def at(self, text: str) -> str:
        """``text`` with the image's paths below the folder."""
        return re.sub(rf"(?<![\w.$/])/(?=(?:{'|'.join(ROOTS)})\b)", f"{self.root}/", text)

    def do(self, word: str, rest: str) -> None:
        if word == "ARG":
            name, _, value = rest.partition("=")
            self.args[name] = value
        elif word == "ENV":
            pairs = [item.split("=", 1) for item in shlex.split(rest)]
            for name, value in (pair for pair in pairs if pair[0] not in self.unset):
                self.env[name] = self.at(value).replace("$PATH", self.env["PATH"])
        elif word == "WORKDIR":
            self.here = Path(self.at(rest))
            self.here.mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            self.user = rest
        elif word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                place = self.here / target if (ROOT / source).is_dir() else self.here / source
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, place, ignore=ignored, dirs_exist_ok=True)
                else:
                    shutil.copy(ROOT / source, place)
        elif word == "RUN":
            assert self.user == "root", rest
            done = subprocess.run(
                ["/bin/sh", "-ec", self.at(rest)], cwd=self.here, env=self.env | self.args,
                capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{rest}\n{done.stderr[-3000:]}"
        else:
            raise AssertionError(f"{word}: unknown here")


STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
"""
UV = """#!/bin/sh
echo "uv $*" >> "$LOG"
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
"""


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("apt-get", "pip", "useradd", "uv"):
        (folder / name).write_text(UV if name == "uv" else STAND_IN)
        (folder / name).chmod(0o755)
    return folder


def _carried_out(
    folder: Path, programs: Path, target: str, unset: frozenset[str] = frozenset(), **env: str
) -> Scratch:
    folder.mkdir()
    scratch = Scratch(folder, programs, unset)
    scratch.env |= env
    for word, rest in steps(target):
        scratch.do(word, rest)
    return scratch


@pytest.mark.parametrize("target", TARGETS)
def test_every_line_does_in_a_scratch_folder_what_it_says(
    tmp_path: Path, stand_ins: Path, target: str
):
    scratch = _carried_out(tmp_path / "image", stand_ins, target)
    log = (scratch.root / "log").read_text()
    assert "apt-get install --yes --no-install-recommends openssh-client rsync" in log
    assert "useradd --create-home --uid 1000 --shell /bin/bash ray" in log
    extra = "cpu" if target == "cpu" else "gpu"
    assert f"uv sync --locked --no-dev --extra {extra} " in log
    assert ("git+https://github.com/facebookresearch/detectron2@" in log) == ("detec" in target)
    assert (scratch.root / "opt" / "gcdis" / "gcdis_ray" / "cli" / "__main__.py").is_file()
    profile = (scratch.root / "etc" / "profile.d" / "gcdis.sh").read_text()
    assert profile.strip().endswith("/opt/venv/bin:$PATH")
    # What `ray up` and KubeRay look for.
    assert scratch.user == "ray"
    assert scratch.env["HOME"] == f"{scratch.root}/home/ray" == str(scratch.here)
    assert scratch.env["PATH"].startswith(f"{scratch.root}/opt/venv/bin:")
    assert scratch.env["RAY_AUTH_MODE"] == "token"


def test_the_lock_and_the_dockerfile_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {e for _, rest in every() for e in re.findall(r"--extra (\S+)", rest)}
    assert extras == {"cpu", "gpu", "weights", "detectron2"}
    assert extras <= set(project["optional-dependencies"])
    python = re.search(r"python:3\.(\d+)-slim", DOCKERFILE.read_text())
    assert python is not None
    assert 11 <= int(python[1]) <= 14
    syncs = [rest for word, rest in every() if word == "RUN" and "uv sync" in rest]
    assert all("--locked" in line and "--no-dev" in line for line in syncs)


def test_detectron2_is_one_commit():
    (commit,) = (rest for word, rest in every() if word == "ARG" and "DETECTRON2" in rest)
    assert re.fullmatch(r"DETECTRON2=[0-9a-f]{40}", commit)


def test_the_driver_that_cuda_needs_is_said():
    """CUDA 13 needs a driver of 580 or newer; another CUDA in the lock needs another sentence."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (cuda,) = (p["version"] for p in lock["package"] if p["name"] == "cuda-toolkit")
    assert cuda.startswith("13.")
    for file in (DOCKERFILE, ROOT / "cluster" / "README.md", ROOT / "cluster" / "aws.yaml"):
        assert re.search(r"\b580\b", file.read_text()), file


def test_what_is_copied_is_let_through():
    lines = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().split()
    assert lines[0] == "*"
    let = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for word, rest in every() if word == "COPY" for name in shlex.split(rest)[:-1]}
    assert copied == let
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_image_s_programs_work(tmp_path: Path, stand_ins: Path):
    """`pip` and `uv` for real: the cpu target's environment, made and asked."""
    for name in ("pip", "uv"):
        (stand_ins / name).unlink()
    tools = tmp_path / "tools"
    subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
    for name in ("pip", "uv"):  # uv comes with the line that installs it
        (stand_ins / name).symlink_to(tools / "bin" / name)
    # A cache spares the download, and is no part of the image.
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    patient = {"UV_CACHE_DIR": cache, "UV_COMPILE_BYTECODE_TIMEOUT": "1200"}
    network = {name: value for name, value in os.environ.items() if NETWORK.search(name)}
    unset = frozenset({"UV_NO_CACHE"})
    scratch = _carried_out(tmp_path / "image", stand_ins, "cpu", unset, **network, **patient)
    asked = "import faiss, ray, torch, gcdis_ray; print(gcdis_ray.__file__, ray.__version__)"
    for command in (["gcdis", "--version"], ["ray", "--version"], ["python", "-c", asked]):
        done = subprocess.run(
            ["/bin/sh", "-c", shlex.join(command)], env=scratch.env, cwd=scratch.here,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        print(done.stdout)
    assert f"{scratch.root}/opt/venv/" in done.stdout  # the project is installed, not linked
