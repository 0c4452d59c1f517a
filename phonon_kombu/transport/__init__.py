"""The Kombu transport."""

from .channel import Channel, SentinelChannel
from .transport import SentinelTransport, TLSTransport, Transport

__all__ = ["Channel", "SentinelChannel", "SentinelTransport", "TLSTransport", "Transport"]
