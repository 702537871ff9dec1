"""Names that a text encoder suggests."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import pytest
import torch
from tiny_clip import write_tiny_clip

from gcdis_ray.cli import main
from gcdis_ray.errors import ConfigError
from gcdis_ray.naming.desk import Desk
from gcdis_ray.naming.text_encoder import Namer


class _Colors:
    """A CLIP whose one space is that of colours: a text is the colour that it names, an image the
    mean of its pixels. Its towers are called as transformers' are."""

    text_projection = visual_projection = staticmethod(lambda read: read)

    def eval(self):
        return self

    def vision_model(self, pixel_values):
        return SimpleNamespace(pooler_output=pixel_values.mean(dim=(2, 3)))

    def text_model(self, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape[:1]
        return SimpleNamespace(pooler_output=input_ids)


def _tokens(prompts, **how):
    assert all(prompt.startswith("a photo of a ") for prompt in prompts)
    colors = {"red": (1.0, -1, -1), "green": (-1.0, 1, -1), "blue": (-1.0, -1, 1)}
    ids = torch.tensor([colors[prompt.split()[-1]] for prompt in prompts])
    return {"input_ids": ids, "attention_mask": torch.ones(len(ids))}


def _pixels(images, return_tensors):
    import numpy as np

    arrays = [np.asarray(image, dtype=np.float32).transpose(2, 0, 1) for image in images]
    pixels = torch.from_numpy(np.stack(arrays))
    return {"pixel_values": pixels - pixels.mean(dim=1, keepdim=True)}


@pytest.fixture
def stand_in():
    """In the place of transformers."""
    module = ModuleType("transformers")
    for name, made in (
        ("CLIPModel", _Colors()),
        ("AutoTokenizer", _tokens),
        ("CLIPImageProcessor", _pixels),
    ):
        opened = mock.Mock(return_value=made)
        setattr(module, name, SimpleNamespace(from_pretrained=opened))
    with mock.patch.dict(sys.modules, {"transformers": module}):
        yield module


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    return str(tmp_path)


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    (tmp_path / "names.txt").write_text("red\n\n green\nblue\nred\n")
    return str(tmp_path / "names.txt")


def test_the_names_nearest_to_the_crops_are_suggested(
    stand_in: ModuleType, folder: str, vocabulary: str, desk: Desk
):
    namer = Namer(folder, vocabulary, desk.crops.pictures)
    clusters = {c.number: c for c in desk.look().clusters}
    assert [namer(clusters[k])[0] for k in (2, 3, 4)] == ["red", "blue", "green"]
    assert sorted(namer(clusters[2])) == ["blue", "green", "red"]
    opened = stand_in.CLIPModel.from_pretrained
    opened.assert_called_once_with(folder, local_files_only=True, use_safetensors=True)


def test_the_sheet_has_them(stand_in: ModuleType, shapes: str, folder: str, vocabulary: str):
    assert main(["name", shapes, "--text-encoder", folder, "--vocabulary", vocabulary]) == 0
    page = Path(shapes, "reports", "shapes-names.html").read_text()
    assert "perhaps <b>red, " in page


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "it has no model.safetensors"),
        (lambda folder: (folder / "names.txt").write_text("\n \n"), "no name is in it"),
        (lambda folder: (folder / "names.txt").write_bytes(b"\xff"), "--vocabulary"),
        (lambda folder: (folder / "names.txt").unlink(), "No such file"),
    ],
)
def test_files_that_are_none_are_named(
    stand_in: ModuleType, folder: str, vocabulary: str, desk: Desk, spoil, said: str
):
    spoil(Path(folder))
    with pytest.raises(ConfigError, match=said):
        Namer(folder, vocabulary, desk.crops.pictures)


def test_without_the_package_the_command_says_so(
    shapes: str, folder: str, vocabulary: str, capsys: pytest.CaptureFixture[str]
):
    with mock.patch.dict(sys.modules, {"transformers": None}):
        words = ["--serve", "--text-encoder", folder, "--vocabulary", vocabulary]
        assert main(["name", shapes, *words]) == 2
    error = capsys.readouterr().err
    assert "transformers is not installed" in error
    assert "pip install" in error


def test_a_clip_of_transformers_is_read(tmp_path: Path, vocabulary: str, desk: Desk):
    pytest.importorskip("transformers", reason="the package transformers is not installed")
    folder = write_tiny_clip(tmp_path)
    namer = Namer(str(folder), vocabulary, desk.crops.pictures)
    cluster = desk.look().clusters[2]
    assert sorted(namer(cluster)) == ["blue", "green", "red"]
    assert namer(cluster) == Namer(str(folder), vocabulary, desk.crops.pictures)(cluster)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read as CLIP"):
        Namer(str(folder), vocabulary, desk.crops.pictures)
