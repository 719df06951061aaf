"""Runs our networks and their peers in turns, and writes `bench/RESULTS.md`.

Needs the `smartedit` binary, built with the engines to measure:

    cargo build --release -p smartedit-server --features torch,onnx
    python3 bench/peers/run.py

The first run makes a virtual environment with the peers in `.cache/peers` (some 5 GB).
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import ROWS, Row, Side

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "peers"
RESULTS = ROOT / "bench" / "RESULTS.md"


Answer = dict[str, Any]
"""A line of JSON of a side."""


INTRODUCTION = """\
Written by `python3 bench/peers/run.py`; [README.md](README.md) tells what the rows are. A ratio is our time
over the peer's, both in processes of their own, loaded and warm, doing the work in turns: the median over the
rounds, and the least and the greatest. Peers run under `torch.inference_mode` with their default attention
(`scaled_dot_product_attention`). Weights are random.
"""


class Unavailable(Exception):
    """A side cannot be had here."""


class Process:
    """A side, loaded and warm."""

    def __init__(self, side: Side, arguments: argparse.Namespace) -> None:
        self.side = side
        command = [*self._program(side, arguments), *side.arguments, "--threads", str(arguments.threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        self.ready = self._read()

    @staticmethod
    def _program(side: Side, arguments: argparse.Namespace) -> list[str]:
        if side.ours:
            return [str(arguments.smartedit.resolve()), "bench", "--serve-iterations"]
        return [str(python()), str(HERE / "worker.py")]

    def iterate(self) -> Answer:
        """Does the work once."""
        assert self.process.stdin is not None
        # A process that has ended says so when it is read from.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return self._read()

    def _read(self) -> Answer:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Unavailable(f"{self.side.label} ended with exit code {self.process.wait()}")
        answer: Answer = json.loads(line)
        return answer

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


@dataclass
class Result:
    """What a row came to."""

    date: str
    machine: str
    threads: int
    rounds: int
    ratios: list[float]
    seconds: list[float]
    """Medians of both sides."""
    peaks: list[int]
    """Most resident bytes of both sides."""
    parts: list[dict[str, float]]
    """Medians of the parts of both sides."""
    note: str = ""
    """Under what circumstances, where they are not the usual ones."""


def python() -> Path:
    """The interpreter that has the peers, after making sure that it has them."""
    requirements = HERE / "requirements.txt"
    stamp = CACHE / "requirements.txt"
    interpreter = CACHE / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        venv.create(CACHE, with_pip=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        stamp.write_text(requirements.read_text())
    return interpreter


def measure(row: Row, arguments: argparse.Namespace) -> Result:
    """Lets both sides take turns; which one begins alternates, too."""
    with Process(row.side, arguments) as side, Process(row.peer, arguments) as peer:
        rounds = []
        for index in range(arguments.rounds):
            if index % 2 == 0:
                rounds.append((side.iterate(), peer.iterate()))
            else:
                second = peer.iterate()
                rounds.append((side.iterate(), second))
            a, b = (seconds(row, answer) for answer in rounds[-1])
            print(f"  {a:9.3f} s {b:9.3f} s {a / b:7.3f}", flush=True)
    sides = list(zip(*rounds, strict=True))
    return Result(
        date=datetime.date.today().isoformat(),
        machine=machine(),
        threads=arguments.threads,
        rounds=arguments.rounds,
        ratios=[seconds(row, a) / seconds(row, b) for a, b in rounds],
        seconds=[statistics.median(seconds(row, answer) for answer in answers) for answers in sides],
        peaks=[max(answer["peak_resident_bytes"] or 0 for answer in answers) for answers in sides],
        parts=[medians(answers) for answers in sides],
        note=arguments.note,
    )


def seconds(row: Row, answer: Answer) -> float:
    """What counts of an iteration's time."""
    if row.part is None:
        return float(answer["seconds"])
    return sum(float(part["seconds"]) for part in answer["parts"] if part["name"] == row.part)


def medians(answers: tuple[Answer, ...]) -> dict[str, float]:
    """The median of each part."""
    times: dict[str, list[float]] = {}
    for answer in answers:
        for part in answer.get("parts", []):
            times.setdefault(part["name"], []).append(part["seconds"])
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> str:
    """Processor, cores, memory, operating system, compiler."""
    model, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        fields = {name.strip(): value.strip() for name, _, value in lines}
        model, flags = fields.get("model name", model), fields.get("flags", "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX BF16"}
    extensions = ", ".join(label for flag, label in known.items() if flag in flags.split())
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False).stdout.split()
    compiler = f", rustc {rustc[1]}" if len(rustc) > 1 else ""
    return (
        f"{model} ({extensions}), {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} "
        f"{platform.machine()}{compiler}"
    )


def store(row: Row, result: Result) -> None:
    """Keeps a row's result beside those of other runs."""
    path = CACHE / "results" / f"{row.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result.__dict__, indent=1))


def stored() -> list[tuple[Row, Result]]:
    """The last result of every row that has one."""
    results = []
    for row in ROWS:
        path = CACHE / "results" / f"{row.name}.json"
        if path.exists():
            results.append((row, Result(**json.loads(path.read_text()))))
    return results


def describe(results: list[tuple[Row, Result]]) -> str:
    """The page of results."""
    versions = (HERE / "requirements.txt").read_text().split()
    lines = [
        "# Results",
        "",
        *INTRODUCTION.splitlines(),
        "",
        "| row | work | ours | peer | ratio | bar | times | threads, rounds | date |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, result in results:
        ratio = statistics.median(result.ratios)
        spread = f"{min(result.ratios):.3f}–{max(result.ratios):.3f}"
        bar = "" if row.bar is None else f"≤ {row.bar:g}"
        mark = "" if row.bar is None else (" ✓" if ratio <= row.bar else " ✗")
        times = " / ".join(f"{time:.3g} s" for time in result.seconds)
        who = f"{row.side.label} | {row.peer.label}"
        how = f"{result.threads}, {result.rounds} | {result.date}"
        outcome = f"**{ratio:.3f}**{mark} ({spread}) | {bar} | {times}"
        lines.append(f"| {row.name} | {row.work} | {who} | {outcome} | {how} |")
    for row, result in results:
        if len(result.parts[0]) > 1 and len(result.parts[1]) > 1:
            lines += ["", f"Parts of `{row.name}`, ours and the peer's:", "", "| part | ours | peer |"]
            lines += ["| --- | --- | --- |"]
            for name in dict.fromkeys([*result.parts[0], *result.parts[1]]):
                cells = [f"{part[name]:.3g} s" if name in part else "–" for part in result.parts]
                lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
            peaks = " and ".join(f"{peak / 2**30:.1f} GiB" for peak in result.peaks)
            lines += ["", f"Peak resident memory: {peaks}."]
    notes: dict[str, list[str]] = {}
    for row, result in results:
        if result.note:
            notes.setdefault(result.note, []).append(f"`{row.name}`")
    for note, names in notes.items():
        lines += ["", f"{', '.join(names)}: {note}"]
    machines = dict.fromkeys(result.machine for _, result in results)
    lines += ["", "Machine: " + "; ".join(machines) + ".", "", "Peers: " + ", ".join(versions) + ".", ""]
    return "\n".join(lines)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", help="names of rows [default: all]")
    parser.add_argument("--smartedit", type=Path, default=ROOT / "target" / "release" / "smartedit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--note", default="", help="circumstances to tell beside the results")
    arguments = parser.parse_args()
    names = [row.name for row in ROWS]
    unknown = [name for name in arguments.rows if name not in names]
    if unknown:
        parser.error(f"no such rows: {', '.join(unknown)}; there are {', '.join(names)}")
    if not arguments.smartedit.exists():
        parser.error(f"{arguments.smartedit} is missing; build it as --help tells")

    missed = []
    for row in ROWS:
        if arguments.rows and row.name not in arguments.rows:
            continue
        print(f"{row.name}: {row.side.label} / {row.peer.label}", flush=True)
        try:
            result = measure(row, arguments)
        except Unavailable as error:
            print(f"  not measured: {error}", flush=True)
            missed.append(row.name)
            continue
        store(row, result)
        RESULTS.write_text(describe(stored()), encoding="utf-8")
    if missed:
        sys.exit(f"not measured: {', '.join(missed)}")


if __name__ == "__main__":
    main()
