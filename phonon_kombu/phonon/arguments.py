"""What callers give, checked. All raise :exc:`~phonon_kombu.errors.ConfigurationError`."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError


def checked_hosts(hosts: Any) -> list[str]:
    """The hosts that a caller named, checked."""
    if hosts is None:
        return ["localhost"]
    given = [hosts] if isinstance(hosts, str) else hosts
    if not isinstance(given, list | tuple | set | frozenset) or not given:
        raise ConfigurationError(f"hosts={hosts!r}: it must be a host, or a list of hosts")
    if not all(isinstance(host, str) and host for host in given):
        raise ConfigurationError(f"hosts={hosts!r}: a host is a name or a URL")
    return list(given)


def checked_name(name: Any) -> str:
    """The name of a resource that a caller gave, checked."""
    if not isinstance(name, str):
        raise ConfigurationError(f"{name!r} is no name: it must be text")
    return name


def positive(name: str, value: Any) -> float:
    """A time that a caller gave, checked."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigurationError(f"{name}={value!r}: it must be a positive number of seconds")
    return value
