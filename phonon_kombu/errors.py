"""Every error that phonon_kombu raises by name.

::

    PhononError
    ├── ConfigurationError (also ValueError)    a URL or an option that makes no sense
    ├── ServerError                             this Redis cannot serve us, or not now
    │   ├── ServerTooOld                        older than Redis 6.2
    │   ├── LayoutMismatch                      the data was written by a newer layout
    │   ├── ScriptRefused                       an ACL forbids a script or one of its keys
    │   ├── ScriptKilled                        SCRIPT KILL, or the server is busy with a script
    │   └── OutOfMemory                         maxmemory reached under noeviction
    ├── EmbeddedServerError                     no private Redis could be started
    ├── JobError                                the job machine refuses an operation
    │   ├── Exists                              another job has this id
    │   ├── NotFound                            no job has this id, no queue this name
    │   ├── NotClaimed                          the job is not claimed (by the caller)
    │   ├── NotStalled                          the job is not stalled
    │   ├── Unbound                             the queue is not bound to the exchange (any more)
    │   ├── QueueFull                           x-max-length reached, and it rejects publishes
    │   └── Ruled                               the queue has rules that a plain put does not know
    ├── FeedError                               a feed refuses an operation
    │   ├── FeedExists                          create_feed: there is one already
    │   ├── FeedNotFound                        there is no feed of this name (any more)
    │   └── ItemNotFound                        no item of the feed has this id
    ├── NotConfirmed                            a publish was not confirmed in time
    ├── FieldError (also ValueError)            a field of a model refuses a value
    │   ├── FieldOverflow                       a number would leave what it can hold
    │   ├── FieldFull                           a list or a set would outgrow its bound
    │   └── FieldMismatch                       what is stored comes from another type of field
    ├── RecordError                             a record is not in a state that allows it
    │   ├── NotHeld                             this process does not hold it (any more)
    │   ├── Closing                             its aggregate is being completed
    │   └── RegistryFull                        too many records in this process's memory
    ├── LockError                               a lock is not ours
    │   ├── AlreadyLocked                       it could not be acquired in time
    │   └── LockLost                            its time was over before it was released
    ├── MalformedItem                           an item that is no message
    └── ItemTooLarge (also ValueError)          above Redis's limit for one value

A script refuses with one upper-case word; :data:`REFUSALS` maps it to its class.
"""

from __future__ import annotations


class PhononError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(PhononError, ValueError):
    """A URL, a transport option or a queue argument makes no sense."""


class ServerError(PhononError):
    """The Redis server cannot do what is asked."""


class ServerTooOld(ServerError):
    """The server is older than Redis 6.2, the first with all the commands we use."""


class LayoutMismatch(ServerError):
    """The keys in this database were laid out by a release that this one cannot read."""


class ScriptRefused(ServerError):
    """The ACL of the user forbids a script, a command in it, or one of its keys."""


class ScriptKilled(ServerError):
    """A script was killed, or the server is busy with somebody's script."""


class OutOfMemory(ServerError):
    """The server has reached ``maxmemory`` and may not evict: nothing was written."""


class EmbeddedServerError(PhononError):
    """No private Redis server could be started or reached."""


class JobError(PhononError):
    """The job machine refuses an operation: the job is not in a state that allows it."""


class Exists(JobError):
    """Another job with this id is in the queue."""


class NotFound(JobError):
    """No job with this id is in the queue, or there is no such queue."""


class NotClaimed(JobError):
    """The job is not claimed, or not by the caller."""


class NotStalled(JobError):
    """The job is not stalled."""


class Unbound(JobError):
    """The queue is not bound to the exchange: the binding was deleted or has expired."""


class QueueFull(JobError):
    """The queue has as many ready messages as its ``x-max-length`` allows, and was declared with
    ``x-overflow: reject-publish``: nothing was put."""


class Ruled(JobError):
    """The queue has rules: job/put must be used. Publishers do so by themselves."""


class NotConfirmed(PhononError):
    """A publish was not confirmed as `confirm_publish` asks, within `confirm_timeout_ms`.

    The message may have been put. Publishing the same message again does not put it twice.
    """


class FeedError(PhononError):
    """A feed refuses an operation."""


class FeedExists(FeedError):
    """There is a feed of this name already."""


class FeedNotFound(FeedError):
    """There is no feed of this name: it was never made, or it was deleted."""


class ItemNotFound(FeedError):
    """No item of the feed has this id."""


class FieldError(PhononError, ValueError):
    """A field of a model refuses a value; the message names both."""


class FieldOverflow(FieldError):
    """A number would leave the range that its field can hold; nothing was folded."""


class FieldFull(FieldError):
    """A list or a set would outgrow its ``max_size``; nothing was folded."""


class FieldMismatch(FieldError):
    """What is stored was folded by another type of field; nothing was folded."""


class RecordError(PhononError):
    """A record of a model is not in a state that allows this."""


class NotHeld(RecordError):
    """This process does not hold the record: it never did, or was taken for dead."""


class Closing(RecordError):
    """The record's aggregate is being completed; nothing is folded into it meanwhile."""


class RegistryFull(RecordError):
    """The registry holds twice as many records as it may: Redis is away, or too slow."""


class LockError(PhononError):
    """A lock is not in the hands of the caller."""


class AlreadyLocked(LockError):
    """Somebody else held the lock for as long as the caller would wait."""


class LockLost(LockError):
    """The lock's time was over: somebody else may have held it since."""


class MalformedItem(PhononError):
    """An item of a queue is no message that this transport can read."""


class ItemTooLarge(PhononError, ValueError):
    """A message is larger than Redis takes for one value (512 MB)."""


def shortened(value: object, most: int = 80) -> str:
    """`value` as it is written in Python, for a message that people read to its end."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 4]}...{text[-1]}"


#: The word with which a script refuses -> the exception to raise.
REFUSALS: dict[str, type[PhononError]] = {
    "EXISTS": Exists,
    "NOTFOUND": NotFound,
    "NOTCLAIMED": NotClaimed,
    "NOTSTALLED": NotStalled,
    "UNBOUND": Unbound,
    "FEEDEXISTS": FeedExists,
    "NOFEED": FeedNotFound,
    "NOITEM": ItemNotFound,
    "FIXED": ConfigurationError,
    "QUEUEFULL": QueueFull,
    "RULED": Ruled,
    "NOTHELD": NotHeld,
    "CLOSING": Closing,
    "OVERFLOW": FieldOverflow,
    "FIELDFULL": FieldFull,
    "MISMATCH": FieldMismatch,
}
