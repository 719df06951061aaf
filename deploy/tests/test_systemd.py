"""The systemd unit, judged by systemd itself."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from files import DEPLOY, program

UNIT = DEPLOY / "systemd" / "smartedit.service"

# How long the server may go on after the drain: stopped edits and open connections have 5 seconds each.
CLOSING_SECONDS = 10

# systemd's own measure of what a service could do if it were taken over, from 0 (nothing) to 100.
MAX_EXPOSURE = 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the unit, and with what stands for its commands where they are installed."""
    unit = tmp_path / "etc/systemd/system/smartedit.service"
    unit.parent.mkdir(parents=True)
    shutil.copy(UNIT, unit)
    for command in ["usr/bin/smartedit", "bin/kill"]:
        installed = tmp_path / command
        installed.parent.mkdir(parents=True)
        installed.touch(mode=0o755)
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program("SYSTEMD_ANALYZE"), "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def verify(root: Path) -> subprocess.CompletedProcess[str]:
    return analyze("verify", "--man=no", "--recursive-errors=no", f"--root={root}", "smartedit.service")


def test_it_is_valid(root: Path) -> None:
    verified = verify(root)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("Restart=on-failure", "Restart=sometimes"), ("/usr/bin/smartedit serve", "/usr/bin/smartedits serve")],
)
def test_a_mistake_would_be_seen(root: Path, right: str, wrong: str) -> None:
    unit = root / "etc/systemd/system/smartedit.service"
    unit.write_text(unit.read_text().replace(right, wrong))
    verified = verify(root)
    assert verified.stderr or verified.returncode


def test_it_can_do_little_if_it_is_taken_over() -> None:
    judged = analyze("security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", UNIT)
    assert judged.returncode == 0, judged.stdout


def test_edits_may_finish_before_it_is_killed() -> None:
    settings = dict(
        line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#"
    )
    drain = tomllib.loads((UNIT.parent / "smartedit.toml").read_text())["drain"]
    seconds = drain["delay_seconds"] + drain["timeout_seconds"]
    assert int(settings["TimeoutStopSec"]) >= seconds + CLOSING_SECONDS
