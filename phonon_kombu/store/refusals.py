"""What a server refuses a command with, as the errors of this package."""

from __future__ import annotations

from redis import exceptions as redis_errors

from .. import errors

#: Refusals of the server that end when the connection is made anew, by the first word.
HEALABLE = ("READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "TRYAGAIN")

#: How servers say in a script that the ACL forbids something: 7 and newer, 6.2.
FORBIDDEN = ("ACL failure", "The user executing the script can't")


class Healable(redis_errors.ConnectionError):
    """The server refuses for now (failing over, loading): connect again."""


def translate(error: redis_errors.ResponseError) -> Exception:
    """The named error for a reply of the server."""
    text = str(error)
    word = text.split(" ", 1)[0].rstrip(":")
    if word in errors.REFUSALS:
        return errors.REFUSALS[word](text[len(word) :].strip() or word)
    name = type(error).__name__
    # Redis 6.2 wraps what a command in a script is refused with: "ERR ... -READONLY You can't".
    wrapped = any(f"-{refusal} " in text for refusal in HEALABLE)
    if (
        word in HEALABLE
        or wrapped
        or name in ("ReadOnlyError", "MasterDownError", "ClusterDownError")
    ):
        return Healable(f"{text} (the server cannot write at the moment, connecting again)")
    if word == "OOM" or "OOM command not allowed" in text or name == "OutOfMemoryError":
        return errors.OutOfMemory(
            "the server has reached its maxmemory and nothing was written: give it more memory, "
            "or let workers catch up"
        )
    if (
        word == "NOPERM"
        or name == "NoPermissionError"
        or "NOPERM" in text
        or any(w in text for w in FORBIDDEN)
    ):
        return errors.ScriptRefused(
            f"the server's ACL forbids this user a command or key: {text} "
            "(docs/howto/acl.md has the rules)"
        )
    if "DB index is out of range" in text:
        return errors.ConfigurationError("the server has no database of the number in the URL")
    if word in ("BUSY", "UNKILLABLE") or "Script killed" in text:
        return errors.ScriptKilled(f"a script was killed or keeps the server busy: {text}")
    return error
