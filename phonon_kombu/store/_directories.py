"""The directories of embedded servers: whose they are, and who may write there.

What lies in one is read as configuration, as data and as an address to connect to.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from hashlib import sha256

from ..errors import EmbeddedServerError

#: The first file that an embedded server makes in its directory, by which it is known again.
MARK = "users.lock"


def default_directory(working: str | None = None) -> str:
    """The directory that processes of this user and working directory share; made if missing.

    ``working``: the real path of a working directory, if not the present one.

    Raises :class:`EmbeddedServerError` if somebody else owns it or may enter it: temporary
    directories are open to all, and what lies in ours is code to be run.
    """
    working = working or os.path.realpath(os.getcwd())
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in os.path.basename(working))
    digest = sha256(os.fsencode(working)).hexdigest()[:10]
    root = os.path.join(tempfile.gettempdir(), f"phonon-{os.getuid()}")
    path = os.path.join(root, f"{name[:16]}-{digest}")
    for directory in (root, path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, mode=0o700)
        found = os.lstat(directory)
        private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
        if not private or found.st_uid != os.getuid():
            raise EmbeddedServerError(
                f"{directory} is not a private directory of this user: remove it, "
                "or name another directory: phonon+embedded:///path/to/directory"
            )
    return path


def named_directory(path: str) -> str:
    """The directory that the user names; made if missing.

    Raises :class:`EmbeddedServerError` if it is not this user's own, if others may write to it,
    or if it holds files that are no embedded server's: they might be another Redis's.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
        names = os.listdir(path)
    except OSError as exc:
        raise EmbeddedServerError(f"cannot make the directory {path}: {exc}") from exc
    if found.st_uid != os.getuid():
        raise EmbeddedServerError(
            f"{path} is not a private directory of this user: it belongs to user "
            f"{found.st_uid}, this process runs as {os.getuid()}. Name another directory"
        )
    if found.st_mode & 0o022:
        raise EmbeddedServerError(
            f"{path} is not a private directory of this user: others may write to it "
            f"(mode {stat.S_IMODE(found.st_mode):o}). chmod go-w, or name another directory"
        )
    strange = sorted(name for name in names if name[0] != "." and name != "lost+found")
    if strange and MARK not in names:
        raise EmbeddedServerError(
            f"{path} holds files that are no embedded server's ({', '.join(strange[:3])}"
            f"{', ...' if strange[3:] else ''}): name an empty directory, or one that is not there"
        )
    return path
