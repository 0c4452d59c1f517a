"""Fetches the source distributions that carry the upstream tests, and unpacks those tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

#: Directory in which downloads and the results of stock are kept between runs.
CACHE_VARIABLE = "PHONON_UPSTREAM_CACHE"
DOWNLOAD_TIMEOUT_SECONDS = 600

#: What a suite needs beside its tests: the files that configure pytest for it.
SETTINGS_FILES = ("setup.cfg", "pyproject.toml", "pytest.ini", "tox.ini")


class UpstreamUnavailable(Exception):
    """The upstream tests cannot be had: no pip, no index, or a source distribution without them."""


def default_cache() -> Path:
    """Return the cache directory: from the environment, else in .tox, else in the temporary one."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    tox = Path(__file__).resolve().parents[2] / ".tox"
    if tox.is_dir():
        return tox / ".upstream-cache"
    return Path(tempfile.gettempdir()) / f"phonon-upstream-{os.getuid()}"


def fetch(package: str, cache: Path) -> Path:
    """Return the sdist of the installed version of ``package``, downloaded unless it is in cache.

    pip fetches it, so that the index, proxies and hashes are those of this machine. It builds the
    metadata on the way, with build tools taken as wheels: only ``package`` itself is asked for as
    source.

    :raises UpstreamUnavailable: with the end of what pip said.
    """
    release = version(package)
    target = cache / f"{package}-{release}.tar.gz"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as scratch:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
            "--no-binary", package, "--dest", scratch, f"{package}=={release}",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise UpstreamUnavailable(
                f"pip did not fetch {package} {release} in {DOWNLOAD_TIMEOUT_SECONDS} s"
            ) from None
        archives = list(Path(scratch).glob("*.tar.gz"))
        if done.returncode or len(archives) != 1:
            raise UpstreamUnavailable(
                f"pip found no source distribution of {package} {release}:\n"
                f"{done.stdout[-500:]}{done.stderr[-2000:]}"
            )
        # Two runs at once may both download; either file is as good.
        os.replace(archives[0], target)
    return target


def unpack(archive: Path, directory: Path) -> None:
    """Unpack the tests of ``archive`` (``t/``) and their settings into ``directory``.

    The package itself is left in the archive: the tests are for the installed one.

    :raises UpstreamUnavailable: if the archive holds no ``t/integration``. (All of kombu's and
        celery's from 5.6.0 on do. Should one not, put a ``<package>-<version>.tar.gz`` made of its
        git tag, with one top directory, into the cache instead.)
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        wanted = []
        for member in tar.getmembers():
            _top, _, inner = member.name.partition("/")
            if inner in SETTINGS_FILES or inner == "t" or inner.startswith("t/"):
                member.name = inner
                wanted.append(member)
        tar.extractall(directory, members=wanted, filter="data")
    if not list(directory.glob("t/integration/test_*.py")):
        raise UpstreamUnavailable(f"{archive} carries no t/integration: see sdists.unpack")
