"""The same fields under the module name of phonon's example: ``phonon.field.SumField()``."""

from __future__ import annotations

from .fields import *  # noqa: F403
from .fields import __all__ as __all__
