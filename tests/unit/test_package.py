"""What is installed: everything that the package needs at run time, found without help.

``tox -e wheel`` runs this on the built wheel, with the source tree out of sight and
``PHONON_TEST_INSTALLED`` set.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from importlib.resources import files
from pathlib import Path

import phonon_kombu


def run_python(program: str) -> str:
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(sys.prefix),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.strip()


def test_the_wheel_is_what_is_tested() -> None:
    if "PHONON_TEST_INSTALLED" in os.environ:
        assert Path(phonon_kombu.__file__).is_relative_to(sys.prefix)
    assert version("phonon_kombu") == phonon_kombu.__version__


def test_scripts_and_type_marker_are_installed() -> None:
    package = files("phonon_kombu")
    assert package.joinpath("py.typed").is_file()
    scripts = [
        f"{directory.name}/{file.name}"
        for directory in package.joinpath("store", "lua").iterdir()
        if directory.is_dir()
        for file in directory.iterdir()
    ]
    assert {"job/put.lua", "job/claim.lua", "job/finish.lua", "include/now.lua"} <= set(scripts)
    assert all(name.endswith(".lua") for name in scripts)


def test_phonon_urls_work_where_nothing_is_imported_by_hand() -> None:
    said = run_python(
        "import sys\n"
        "from celery import Celery\n"
        "app = Celery('shop', broker='phonon://127.0.0.1:1/0')\n"
        "assert 'phonon_kombu.transport' not in sys.modules\n"
        "connection = app.connection_for_write()\n"
        "print(connection.transport_cls, connection.get_transport_cls().__module__)\n"
    )
    scheme, module = said.split()
    assert scheme == "phonon"
    assert module.startswith("phonon_kombu.transport")


def test_importing_the_package_is_cheap() -> None:
    heavy = run_python(
        "import sys, phonon_kombu\n"
        "print(*{'redis', 'celery', 'fakeredis', 'rich', 'click'} & set(sys.modules))"
    )
    assert heavy == ""


def test_entry_points_lead_somewhere() -> None:
    found = {
        (point.group, point.name): point.load()
        for group in ("celery.commands", "kombu.serializers")
        for point in entry_points(group=group)
        if point.value.startswith("phonon_kombu")
    }
    assert set(found) == {("celery.commands", "phonon"), ("kombu.serializers", "phonon")}


def test_hard_dependencies_are_few() -> None:
    hard = [line for line in requires("phonon_kombu") or [] if "extra ==" not in line]
    names = {re.split(r"[^\w-]", line)[0] for line in hard}
    assert names == {"kombu", "celery", "redis", "packaging"}
