"""What travels with a job, and what is kept from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcdis_ray.errors import ConfigError
from gcdis_ray.runtime.ray_jobs import packed_files
from gcdis_ray.submitting import package
from gcdis_ray.submitting.package import make_package
from gcdis_ray.submitting.secrets import secret_by_look, secret_by_name

SECRET = (
    ".env", "a/.env.production", "server.pem", "keys/id_rsa", "id_ed25519", "tls.key", "x.P12",
    ".aws/config", "home/.ssh/config", "credentials", "aws/credentials.json",
    "google-credentials.json", "service-account-7.json", ".netrc", "auth_token", "kubeconfig",
)  # fmt: skip
HARMLESS = (
    "id_rsa.pub", ".env.example", "gcdis_ray/store/credentials.py", "environment.yaml", "a/key.py",
    "monkey.txt", "configs/aws.yaml", "pem.md", ".envrc.md",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "mine.yaml").write_text("name: mine")
    (folder / "data").mkdir()
    (folder / "data" / "large.bin").write_bytes(bytes(5000))
    (folder / ".rayignore").write_text("/data\n")
    return folder


@pytest.mark.parametrize("path", SECRET)
def test_secrets_are_known_by_name(path: str):
    assert secret_by_name(path)


@pytest.mark.parametrize("path", HARMLESS)
def test_other_names_are_no_secrets(path: str):
    assert secret_by_name(path) is None


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
        "-----BEGIN " + "PRIVATE KEY-----",
        "key: AK" + "IA" + "Q3EXAMPLE7654321",
        "aws_secret_access_key = " + 20 * "aB",
        "token: ghp_" + 12 * "aB3",
        "storage: s3://AK:" + "secretsecret@bucket/prefix",
    ],
)
def test_secrets_are_known_by_their_look(text: str):
    assert secret_by_look(f"a: 1\n{text}\n".encode())


@pytest.mark.parametrize(
    "text", ["s3://bucket/prefix@1", "http://host:8265/a@b", "PRIVATE KEY", "AKIA", "MAKIA" * 9]
)
def test_other_text_is_no_secret(text: str):
    assert secret_by_look(text.encode()) is None


def test_a_package_says_what_it_holds(folder: Path, tmp_path: Path):
    made = make_package(folder, tmp_path / "p.zip")
    assert made.names == {".rayignore", "configs/mine.yaml"}
    assert made.num_bytes == (tmp_path / "p.zip").stat().st_size
    assert str(made).startswith("2 files, ")


def test_a_package_with_secrets_is_refused(folder: Path, tmp_path: Path):
    (folder / ".env").write_text("A=1")
    (folder / "notes.txt").write_text("-----BEGIN " + "PRIVATE KEY-----")
    with pytest.raises(ConfigError) as caught:
        make_package(folder, tmp_path / "p.zip")
    assert ".env" in str(caught.value)
    assert "notes.txt (a private key)" in str(caught.value)
    assert ".rayignore" in str(caught.value.fix)
    (folder / ".rayignore").write_text("/data\n.env\nnotes.txt\n")
    assert ".env" not in make_package(folder, tmp_path / "p.zip").names


def test_a_package_that_is_too_large_is_refused_and_says_why(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(package, "MAX_PACKAGE_BYTES", 4000)
    make_package(folder, tmp_path / "p.zip")
    (folder / ".rayignore").unlink()
    with pytest.raises(ConfigError, match=r"a cluster takes 4\.0 kB(.|\n)*data/large\.bin"):
        make_package(folder, tmp_path / "p.zip")


def test_what_is_too_large_is_refused_before_it_is_packed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(package, "MAX_PACKAGE_BYTES", 4000)
    (folder / "data.bin").write_bytes(bytes(5000))
    file = tmp_path / "package.zip"
    with pytest.raises(ConfigError, match=r"data\.bin"):
        package.make_package(folder, file)
    assert not file.exists()


def test_the_files_are_those_that_ray_packs(folder: Path, tmp_path: Path):
    (folder / ".rayignore").write_text("left.txt\n")
    for name in ("left.txt", "kept.txt", "below/kept.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("some text")
    made = package.make_package(folder, tmp_path / "package.zip")
    assert packed_files(folder).keys() == made.names


def test_the_limit_is_the_head_s():
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    from gcdis_ray.runtime.ray_jobs import MAX_PACKAGE_BYTES

    assert MAX_PACKAGE_BYTES == DASHBOARD_CLIENT_MAX_SIZE
