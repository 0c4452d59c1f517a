"""What may stand in a URL, and a clear word about what may not.

Checked before kombu, Celery or redis-py take the URL apart, whose errors are of all kinds. No
message shows what might be a part of a password.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ..errors import ConfigurationError, shortened

#: The forms of a URL: scheme -> an example.
FORMS = {
    "phonon": "phonon://host:6379/0",
    "phonons": "phonons://host:6379/0",
    "phonon+socket": "phonon+socket:///path/to/redis.sock?virtual_host=0",
    "phonon+sentinel": "phonon+sentinel://host:26379/0;phonon+sentinel://other:26379/0",
    "phonon+embedded": "phonon+embedded:///path/to/directory",
}

#: How certificates may be checked, as kombu spells it.
CERT_REQS = ("CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE", "required", "optional", "none")

Judge = Callable[[str], str]


def _any(value: str) -> str:
    return ""


def _number(value: str) -> str:
    try:
        good = 0 <= float(value) <= 10**9
    except ValueError:
        good = False
    return "" if good else "be a positive number"


def _whole(value: str) -> str:
    return "" if value.isascii() and value.isdigit() and len(value) < 10 else "be a whole number"


def _database(value: str) -> str:
    return "be the number of a database" if _whole(value.strip("/") or "0") else ""


def _one_of(*choices: str) -> Judge:
    return lambda value: "" if value in choices else f"be one of {', '.join(choices)}"


_switch = _one_of("true", "false", "True", "False", "yes", "no", "1", "0")

_TLS: dict[str, Judge] = {
    "ssl_cert_reqs": _one_of(*CERT_REQS),
    "ssl_check_hostname": _one_of("true", "false", "True", "False"),
    "ssl_ca_certs": _any,
    "ssl_ca_path": _any,
    "ssl_ca_data": _any,
    "ssl_certfile": _any,
    "ssl_keyfile": _any,
    "ssl_password": _any,
    "ssl_ciphers": _any,
}

_TCP: dict[str, Judge] = {
    **_TLS,
    "credential_provider": _any,
    "connect_timeout": _number,
    "heartbeat": _number,
    "login_method": _any,
}

_SOCKET: dict[str, Judge] = {
    "virtual_host": _database,
    "credential_provider": _any,
    "client_name": _any,
}

#: Arguments of a broker's URL: those that kombu's Redis transport takes.
OF_A_BROKER: dict[str, dict[str, Judge]] = {
    "phonon": _TCP,
    "phonons": _TCP,
    "phonon+socket": _SOCKET,
    "phonon+sentinel": {"credential_provider": _any},
    "phonon+embedded": {},
}

_CONNECTION: dict[str, Judge] = {
    "virtual_host": _database,
    "db": _database,
    "credential_provider": _any,
    "username": _any,
    "password": _any,
    "client_name": _any,
    "socket_timeout": _number,
    "socket_connect_timeout": _number,
    "socket_keepalive": _switch,
    "socket_read_size": _whole,
    "retry_on_timeout": _switch,
    "max_connections": _whole,
    "health_check_interval": _whole,
    "protocol": _one_of("2", "3"),
    "encoding": _any,
    "decode_responses": _switch,
}

#: Arguments of a result backend's URL: those that Celery's Redis backend takes.
OF_A_BACKEND: dict[str, dict[str, Judge]] = {
    "phonon": _CONNECTION,
    "phonons": {**_CONNECTION, **_TLS},
    "phonon+socket": {
        name: judge
        for name, judge in _CONNECTION.items()
        if name not in ("socket_connect_timeout", "socket_keepalive")
    },
    "phonon+sentinel": _CONNECTION,
    "phonon+embedded": {},
}


def check_broker(url: str, options: Collection[str] = ()) -> None:
    """See that a broker's URL makes sense; of other schemes nothing is said.

    Arguments:
        options: names of transport options, which are often written into URLs.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    _check(url, OF_A_BROKER, options)


def check_backend(url: str) -> None:
    """See that one URL of a result backend makes sense; Celery leaves out the ``phonon+``.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    if ";" in url.partition("?")[0]:
        raise ConfigurationError(
            "a list of URLs: a result backend talks to one server, name one, or its sentinels"
        )
    if url.startswith("phonon://") and "ssl_" in url.partition("?")[2]:
        raise ConfigurationError("arguments of TLS in a phonon:// URL: write phonons://")
    scheme = url.partition("://")[0]
    _check(url if scheme in FORMS else f"phonon+{url}", OF_A_BACKEND, ())


def parts_of(url: str, names_a_file: bool = False) -> SplitResult:
    """The parts of any URL, whose port is a number.

    Arguments:
        names_a_file: what stands behind the host is a path, which may have any signs.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`, as :func:`unreadable`.
    """
    scheme, _, rest = url.partition("://")
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError:
        raise unreadable(scheme) from None
    if "@" in rest and "@" not in parts.netloc and not (names_a_file and not parts.netloc):
        raise unreadable(scheme)
    return parts


def unreadable(scheme: str) -> ConfigurationError:
    """The error for a URL of which no part can be shown: any may be one of a password."""
    cluster = "phonon+cluster://host1:7000,host2:7000"
    form = cluster if "cluster" in scheme else FORMS.get(scheme, FORMS["phonon"])
    return ConfigurationError(
        f"a URL that cannot be read: it looks like {form}, a port is a number from 1 to 65535, "
        "and signs in a password are written as %40 (for @)"
    )


def complaint(options: Iterable[tuple[str, Any]]) -> str:
    """What is wrong with arguments that redis-py refuses; empty if we cannot tell."""
    for name, value in options:
        wanted = {**_CONNECTION, **_TLS}.get(name, _any)(str(value))
        if wanted:
            return f"the argument {name}={shortened(value)} in a URL must {wanted}"
    return ""


def _check(url: str, legal: dict[str, dict[str, Judge]], options: Collection[str]) -> None:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in FORMS:
        if separator and scheme.startswith("phonon+"):
            raise ConfigurationError(f"no URL form {scheme}://; there are {_forms()}")
        return
    try:
        # With the meaning that a http:// URL has: redis-py, kombu and Celery do so too.
        parts = urlsplit(f"http://{rest}")
    except ValueError:
        parts = None
    names_a_file = scheme in ("phonon+socket", "phonon+embedded")
    if (
        parts is None
        or ("@" in rest and "@" not in parts.netloc)
        or (names_a_file and _port_of(parts) == 0)
    ):
        raise ConfigurationError(f"a {scheme}:// URL that cannot be read: {_advice(scheme)}")
    if names_a_file:
        if scheme == "phonon+socket" and (parts.hostname or not parts.path.strip("/")):
            raise ConfigurationError(
                f"a {scheme}:// URL without the path of a socket: it must look like {FORMS[scheme]}"
            )
    elif _port_of(parts) == 0:
        raise ConfigurationError(
            f"the port in a {scheme}:// URL must be a number from 1 to 65535: {_advice(scheme)}"
        )
    elif _database(parts.path):
        raise ConfigurationError(
            f"the URL names database {shortened(parts.path.strip('/'))}; Redis's databases are "
            f"numbers, as in {FORMS[scheme]}"
        )
    for name, value in parse_qsl(parts.query):
        judge = legal[scheme].get(name)
        if judge is None:
            raise ConfigurationError(
                f"unknown argument {shortened(name)} in a {scheme}:// URL"
                f"{_hint(name, scheme, legal[scheme], options)}"
            )
        wanted = judge(value)
        if wanted:
            raise ConfigurationError(
                f"the argument {name}={shortened(value)} in a {scheme}:// URL must {wanted}"
            )


def _port_of(parts: object) -> int | None:
    """The port, None for the usual one, 0 for one that cannot be."""
    try:
        port: int | None = parts.port  # type: ignore[attr-defined]
    except ValueError:
        return 0
    return port


def _advice(scheme: str) -> str:
    return f"it looks like {FORMS[scheme]}, and signs in a password are written as %40 (for @)"


def _hint(name: str, scheme: str, legal: Collection[str], options: Collection[str]) -> str:
    if name in ("db", "virtual_host"):
        if "virtual_host" in legal:
            return ". Did you mean 'virtual_host'?"
        if scheme == "phonon+embedded":
            return ": an embedded server's database is 0"
        return f": the number of the database is the path, as in {FORMS[scheme]}"
    if name in options:
        return f": set it in the transport options (Celery: broker_transport_options), {name!r}"
    close = difflib.get_close_matches(name, [*legal, *options], n=1)
    if close:
        return f". Did you mean {close[0]!r}?"
    if not legal:
        return ": there are none"
    return f"; there are {', '.join(sorted(legal))}"


def _forms() -> str:
    return ", ".join(f"{scheme}://" for scheme in FORMS)
