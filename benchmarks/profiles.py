"""Where a client's time goes: py-spy (wall clock, sampling) or cProfile, summed up as text."""

from __future__ import annotations

import io
import pstats
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

# py-spy stops the process for each sample: the more threads, the longer. Without stopping it, it
# would lose just the samples of a stack in motion and show little but waiting.
RATE_HERTZ = 400
WORKER_RATE_HERTZ = 100
TOP = 30

# Innermost frames in which the process waits for, or talks to, the kernel.
_SYSTEM_CALLS = {
    "send_packed_command",
    "read_from_socket",
    "_read_from_socket",
    "can_read",
    "can_read_destructive",
    "poll",
    "wait",
    "select",
    "sendall",
    "recv",
    "recv_into",
    "recv_bytes",
    "_recv",
    "_send",
}
_PACKAGES = ("phonon_kombu", "redis", "kombu", "celery", "vine", "billiard", "amqp", "json")


class Profiler:
    """Watches one client at a time; the summary is written beside the raw samples.

    `tool` is ``py-spy`` or ``cprofile``. py-spy attaches from outside and hardly disturbs; it needs
    the right to trace (root, or ptrace_scope 0). cProfile runs inside and exaggerates cheap calls.
    """

    def __init__(self, folder: Path, name: str, tool: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tool = tool
        self.summary_path = folder / f"{name}.txt"
        suffix = "folded" if tool == "py-spy" else "pstats"
        self._raw_path = folder / f"{name}.{suffix}"
        self.cprofile_path = str(self._raw_path.resolve()) if tool == "cprofile" else None
        self._sampler: subprocess.Popen[str] | None = None

    @staticmethod
    def pick_tool() -> str:
        """py-spy if it is installed, else cProfile."""
        return "py-spy" if _py_spy() else "cprofile"

    def attach(self, pid: int, rate_hertz: int = RATE_HERTZ, subprocesses: bool = False) -> None:
        """Start sampling; returns once samples are being taken."""
        if self.tool != "py-spy":
            return
        command = [_py_spy() or "py-spy", "record", "--pid", str(pid), "--rate", str(rate_hertz)]
        command += ["--format", "raw", "--output", str(self._raw_path), "--duration", "3600"]
        command += ["--idle", "--threads", *(["--subprocesses"] if subprocesses else [])]
        self._sampler = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said = ""
        assert self._sampler.stdout is not None
        for line in self._sampler.stdout:
            said += line
            if "Sampling process" in line:
                return
        raise RuntimeError(f"py-spy cannot watch the client; try --profiler cprofile. {said}")

    def detach(self) -> None:
        """Stop sampling and let py-spy write what it has."""
        if self._sampler is not None:
            self._sampler.send_signal(signal.SIGINT)
            self._sampler.communicate(timeout=60)
            self._sampler = None

    def summarise(self) -> Path:
        """Write the summary and return its path; call it when the client has ended."""
        if self.tool == "py-spy":
            text = summary_of_samples(self._raw_path.read_text())
        else:
            out = io.StringIO()
            stats = pstats.Stats(str(self._raw_path), stream=out).strip_dirs()
            stats.sort_stats("tottime").print_stats(TOP)
            stats.sort_stats("cumulative").print_stats(TOP)
            text = out.getvalue()
        self.summary_path.write_text(text)
        return self.summary_path


def _py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def summary_of_samples(folded: str) -> str:
    """Text of the top frames of folded stacks, for each thread: by package, own and inclusive."""
    threads: dict[str, list[tuple[list[str], int]]] = {}
    for line in folded.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        roots = [frame for frame in frames if frame.startswith(("thread (", "process "))]
        names = [_function(frame) for frame in frames[len(roots) :]]
        if names:
            threads.setdefault(_thread(roots), []).append((names, int(samples)))
    parts = []
    for thread, stacks in sorted(threads.items(), key=lambda item: -_total(item[1])):
        parts.append(_thread_summary(thread, stacks))
    return "\n".join(parts)


def _thread(roots: list[str]) -> str:
    """A thread's name without numbers, so that the threads of a pool are summed up together."""
    processes = [root for root in roots if root.startswith("process ")]
    names = [re.sub(r"^thread \(\w+\): ", "", root) for root in roots if root not in processes]
    name = re.sub(r"\d+$", "N", " ".join(names))
    return f"pool process: {name}" if len(processes) > 1 else name


def _function(frame: str) -> str:
    return re.sub(r":\d+\)$", ")", frame)


def _total(stacks: list[tuple[list[str], int]]) -> int:
    return sum(samples for _, samples in stacks)


def _group(name: str) -> str:
    function, _, file = name.partition(" (")
    if function.rpartition(".")[2] in _SYSTEM_CALLS:
        return "system calls and waiting"
    for package in _PACKAGES:
        if file.startswith(package + "/") or f"/{package}/" in file:
            return package
    return "other"


def _thread_summary(thread: str, stacks: list[tuple[list[str], int]]) -> str:
    groups: Counter[str] = Counter()
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for names, samples in stacks:
        groups[_group(names[-1])] += samples
        own[names[-1]] += samples
        for name in set(names):
            inclusive[name] += samples
    total = _total(stacks)
    lines = [f"== {thread or 'main'}: {total} samples, wall clock"]
    for title, counter in (("by package", groups), ("own", own), ("inclusive", inclusive)):
        lines.append(f"-- {title}, % of samples")
        for name, samples in counter.most_common(2 * TOP if counter is inclusive else TOP):
            # Inclusive, nearly all is the frames that every stack begins with.
            if samples * 200 >= total and (counter is not inclusive or samples < 0.97 * total):
                lines.append(f"{100 * samples / total:6.1f}  {name}")
    return "\n".join(lines) + "\n"
