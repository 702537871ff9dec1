"""What completes the command line: each shell gets a script, and bash makes use of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gcdis_ray.cli import COMMANDS, main
from gcdis_ray.cli.completion import SHELLS

# What bash does when somebody presses the tabulator after the words given.
_PRESS = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
$(complete -p gcdis | sed 's/.* -F \\([^ ]*\\) .*/\\1/') gcdis "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "gcdis.bash"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["sw"], ["sweep"]),
        (["data", ""], ["check"]),
        (["plan", "--pri"], ["--price-per-hour"]),
        (["evaluate", "--areas", ""], ["mask", "box"]),
        (["completion", "f"], ["fish"]),
        (["run", "m"], ["mine.yaml"]),
        (["track", "mine.yaml", "--output", ""], ["curves"]),
    ],
)
def test_bash_completes(tmp_path: Path, script: Path, words: list[str], completed: list[str]):
    (tmp_path / "here" / "curves").mkdir(parents=True)
    (tmp_path / "here" / "mine.yaml").touch()
    command = ["bash", "--norc", "-c", _PRESS, "bash", str(script), "gcdis", *words]
    done = subprocess.run(
        command, cwd=tmp_path / "here", capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_with_every_command(
    shell: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(word in out for name in COMMANDS for word in name.split())
    assert "--price-per-hour" in out


def test_other_shells_are_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "cmd.exe"])
    assert "bash" in capsys.readouterr().err
