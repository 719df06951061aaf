"""The image: its Dockerfile, and what is sent to build it. Without a builder it is judged, not built."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pathspec
import pytest

from files import DEPLOY, REPOSITORY, documents, pod, smartedit

DOCKERFILE = DEPLOY / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Give the Dockerfile's instructions: their names and the rest."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def sent() -> set[Path]:
    """Give the files of the repository that `.dockerignore` lets through."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    # Docker's patterns begin at the root, Git's wherever they have no slash.
    patterns = (REPOSITORY / ".dockerignore").read_text().splitlines()
    anchored = [re.sub(r"^(!?)(?!\*\*|#|$)", r"\1/", pattern) for pattern in patterns]
    ignored = pathspec.GitIgnoreSpec.from_lines(anchored)
    return {Path(name) for name in tracked.stdout.splitlines() if not ignored.match_file(name)}


def test_a_linter_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    found = subprocess.run(
        [linter, "--no-color", "--failure-threshold", "style", DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_the_linter_finds_mistakes(tmp_path: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(DOCKERFILE.read_text().replace("WORKDIR /src", "WORKDIR src"))
    assert subprocess.run([linter, wrong], capture_output=True, check=False).returncode == 1


def test_what_it_copies_is_sent() -> None:
    files = sent()
    copied = [rest.split()[:-1] for rest in arguments("COPY") if not rest.startswith("--from")]
    for source in {source for sources in copied for source in sources} - {"."}:
        assert any(path == Path(source) or Path(source) in path.parents for path in files), source


def test_what_the_program_is_built_of_is_sent() -> None:
    """Sources, manifests, and the files that sources include."""
    files = sent()
    workspace = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]
    for member in workspace["members"]:
        assert Path(member, "Cargo.toml") in files
    included = 0
    for path in [path for path in files if path.suffix == ".rs" and "tests" not in path.parts]:
        text = (REPOSITORY / path).read_text()
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', text):
            target = (REPOSITORY / path.parent / name).resolve().relative_to(REPOSITORY)
            assert target in files, f"{path} includes {target}"
            included += 1
    assert included > 5
    assert {Path("Cargo.lock"), Path("rust-toolchain.toml"), Path("LICENSE-MIT")} <= files


def test_no_more_is_sent_than_is_needed() -> None:
    files = sent()
    useless = {Path(name) for name in [".git", ".cache", "target", "tests/golden", "clients/python"]}
    assert not [path for path in files if useless & set(path.parents)]
    assert sum((REPOSITORY / path).stat().st_size for path in files) < 64 << 20


def test_it_is_built_with_the_projects_toolchain() -> None:
    channel = tomllib.loads((REPOSITORY / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    assert f"RUSTUP_TOOLCHAIN={channel}" in arguments("ENV")
    assert any(rest.startswith(f"BUILD_IMAGE=rust:{channel}-") for rest in arguments("ARG"))


def test_it_runs_as_nobody_special() -> None:
    [user] = arguments("USER")
    assert user == "65532:65532"
    assert pod()["securityContext"]["runAsUser"] == int(user.partition(":")[0])
    names = [name for name, _ in instructions()]
    assert names.index("USER") > len(names) - 1 - names[::-1].index("FROM"), "in the last stage"


@pytest.mark.parametrize("instruction", ["HEALTHCHECK", "CMD"])
def test_the_program_knows_its_commands(instruction: str) -> None:
    """Of each command that the image runs, the server knows the subcommand and every flag."""
    [rest] = arguments(instruction)
    words = re.findall(r'"([^"]+)"', rest[rest.index("[") :])
    words = [word for word in words if word != "/usr/bin/smartedit"]
    shown = smartedit(words[0], "--help")
    assert shown.returncode == 0, shown.stderr
    for flag in [word for word in words if word.startswith("--")]:
        assert re.search(rf"{flag}\b", shown.stdout), flag


def test_its_version_is_the_programs() -> None:
    version = smartedit("--version").stdout.split()[1]
    assert f"VERSION={version}" in arguments("ARG")
    [kustomization] = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    assert [image["newTag"] for image in kustomization["images"]] == [version]
