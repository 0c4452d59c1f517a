"""Handlers of notices, and the thread that calls them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

from ..errors import ConfigurationError
from ..store.client import fork_epoch
from .notices import ARGUMENTS, GAP, Notice, Topic, topic_of
from .subscription import Subscription

logger = logging.getLogger("phonon_kombu.thoonk")

Handler = Callable[..., Any]


class Handlers:
    """Who wants to be told of what."""

    def __init__(self) -> None:
        self._entries: list[tuple[Topic, Handler]] = []

    def add(self, name: str, handler: Handler, feed: str | None) -> None:
        """Raises :exc:`~phonon_kombu.errors.ConfigurationError`."""
        if not callable(handler):
            raise ConfigurationError(f"{handler!r} is no handler: it cannot be called")
        self._entries.append((topic_of(name, feed), handler))

    def remove(self, name: str, handler: Handler, feed: str | None) -> None:
        """Raises :exc:`~phonon_kombu.errors.ConfigurationError` if it was never added."""
        try:
            self._entries.remove((topic_of(name, feed), handler))
        except ValueError:
            raise ConfigurationError(f"{handler!r} is no handler of {name!r}") from None

    def topics(self) -> list[Topic]:
        """What all of them want."""
        return [topic for topic, _ in self._entries if topic.kind != GAP]

    def calls(self, notice: Notice) -> Iterator[tuple[Handler, list[Any]]]:
        """The handlers of a notice, and what each is to be given."""
        arguments = [getattr(notice, name) for name in ARGUMENTS[notice.kind]]
        for topic, handler in list(self._entries):
            if topic.kind == notice.kind and topic.feed in (None, notice.feed):
                yield handler, arguments


class Listener:
    """A thread of a session that calls handlers, one after the other, as notices come."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._handlers = Handlers()
        self._subscription: Subscription | None = None
        self._thread: threading.Thread | None = None
        #: Those that listen or have listened; not one whose handler has closed the session.
        self._threads: WeakSet[threading.Thread] = WeakSet()
        self._epoch = fork_epoch()

    def register(self, name: str, handler: Handler, feed: str | None) -> None:
        self._mind_fork()
        with self._lock:
            self._handlers.add(name, handler, feed)
        try:
            self._listen()
        except BaseException:
            self.remove(name, handler, feed)
            raise

    def remove(self, name: str, handler: Handler, feed: str | None) -> None:
        self._mind_fork()
        with self._lock:
            self._handlers.remove(name, handler, feed)
            if self._subscription is not None:
                self._subscription.change(self._handlers.topics())

    def start(self) -> None:
        """Listen, whether or not there is a handler yet."""
        self._listen()

    def _listen(self) -> None:
        with self._lock:
            if self._thread is None and threading.current_thread() in self._threads:
                return  # a handler, while the session closes: nobody would close a new one
            if self._thread is None or not self._thread.is_alive():
                subscription = Subscription(self._session, self._handlers.topics())
                self._subscription = subscription
                self._thread = threading.Thread(
                    target=self._run, args=(subscription,), name="thoonk-listener", daemon=True
                )
                self._threads.add(self._thread)
                self._thread.start()
                return
            subscription, thread = self._subscription, self._thread  # type: ignore[assignment]
            subscription.change(self._handlers.topics())
        if thread is not threading.current_thread():
            subscription.wait_confirmed()

    def _run(self, subscription: Subscription) -> None:
        try:
            for notice in subscription:
                for handler, arguments in self._handlers.calls(notice):
                    try:
                        handler(*arguments)
                    except Exception:
                        logger.exception("handler %r of %s failed", handler, notice)
        except Exception:
            logger.exception("the listener of %r ends", self._session)
        finally:
            subscription.close()

    def close(self) -> None:
        """Stop listening; handlers stay registered and hear again when one more is registered."""
        self._mind_fork()
        with self._lock:
            subscription, thread = self._subscription, self._thread
            self._subscription = self._thread = None
            self._threads.discard(threading.current_thread())
        if subscription is not None:
            subscription.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)

    def _mind_fork(self) -> None:
        """In a forked child there is no such thread, and the connection is the parent's."""
        if self._epoch != fork_epoch():
            self._epoch = fork_epoch()
            self._lock = threading.Lock()
            if self._subscription is not None:
                self._subscription.after_fork()
            self._subscription = self._thread = None
            self._threads = WeakSet()
