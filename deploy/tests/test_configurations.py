"""Every configuration file that ships is one that the server takes."""

import tomllib
from pathlib import Path

import pytest

from files import DEPLOY, SHIPPED_MODEL, smartedit

CONFIGURATIONS = sorted(DEPLOY.rglob("smartedit*.toml"))


def test_every_way_to_deploy_has_one() -> None:
    assert {path.parent.name for path in CONFIGURATIONS} == {"docker", "kubernetes", "systemd"}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_the_server_takes_it(path: Path) -> None:
    """The model alone is another: what operators have is not here."""
    checked = smartedit("serve", "--check-config", "--config", str(path), "--model", str(SHIPPED_MODEL))
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_others_can_reach_the_server(path: Path) -> None:
    listen = tomllib.loads(path.read_text())["listen"]
    assert listen == "0.0.0.0:50051"


def test_a_mistake_would_be_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "smartedit.toml"
    wrong.write_text(CONFIGURATIONS[0].read_text().replace("[log]", "[logs]"))
    checked = smartedit("serve", "--check-config", "--config", str(wrong), "--model", str(SHIPPED_MODEL))
    assert checked.returncode == 2
    assert "logs" in checked.stderr
