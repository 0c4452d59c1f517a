"""What a picture of a queue says: the state of each job, and what must hold in every picture."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

from phonon_kombu.store.keys import LEVELS
from tests.lua.machine import Around

Picture = dict[str, Any]
LISTS = tuple("ids" if level == 0 else f"ids.{level}" for level in range(LEVELS))


def is_mark(owner: str) -> bool:
    """Whether it is no owner, but what is left of a claim that was taken from a dead one."""
    return owner.startswith("late:")


def tidy(picture: Picture) -> Picture:
    """The picture without the marks of jobs that are no more: the next recovery drops them."""
    items, found = picture.get("items", {}), dict(picture)
    found["owners"] = {
        id: owner
        for id, owner in picture.get("owners", {}).items()
        if not is_mark(owner) or id in items
    }
    return {name: value for name, value in found.items() if value}


def entries(picture: Picture) -> Counter[str]:
    """How often each id stands in the ids lists."""
    return Counter(id for name in LISTS for id in picture.get(name, ()))


def states_of(picture: Picture, id: str, count: Counter[str] | None = None) -> list[str]:
    """All states in which the picture shows the job: one, if all is well.

    `count` is :func:`entries` of the picture, for those who ask for many jobs.
    """
    found = [part for part in ("scheduled", "claimed", "stalled") if id in picture.get(part, ())]
    count = entries(picture) if count is None else count
    ready = count[id] - picture.get("ghosts", {}).get(id, 0)
    found += ["ready"] * ready
    if id not in picture.get("items", ()):
        found.append("absent")
    return found


def check(picture: Picture, stats: list[int] | None = None) -> None:
    """Assert what holds in every picture: each job is in exactly one state, each part has
    entries for just the jobs that it is about, and `stats` count the same."""
    items = set(picture.get("items", ()))
    part = {
        name: set(picture.get(name, ()))
        for name in (
            "published", "claimed", "cancelled", "stalled", "scheduled", "owners", "reasons",
            "priorities", "deadlines", "ghosts",
        )
    }  # fmt: skip
    count = entries(picture)
    part["owners"] &= items  # a mark may outlive its job, until the next recovery
    for id in items | set(count) | set().union(*part.values()):
        states = states_of(picture, id, count)
        assert len(states) == 1, f"{id} is {states} in {picture}"
    held = {id for id, owner in picture.get("owners", {}).items() if not is_mark(owner)}
    assert held <= part["claimed"]
    assert part["reasons"] == part["stalled"]
    assert part["published"] == items - part["stalled"]
    assert part["cancelled"] <= items - part["stalled"]
    assert part["priorities"] <= items
    assert part["deadlines"] <= items
    assert all(n > 0 for n in picture.get("ghosts", {}).values())
    ready = items - part["scheduled"] - part["claimed"] - part["stalled"]
    ghosts = sum(picture.get("ghosts", {}).values())
    assert sum(count.values()) - ghosts == len(ready)
    listed = [set(picture.get(name, ())) for name in LISTS]
    for id in ready:
        level = picture.get("priorities", {}).get(id, 0)
        assert id in listed[level], f"{id} is not in the list of its level {level}"
    if stats is not None:
        assert stats[:4] == [
            len(ready), len(part["scheduled"]), len(part["claimed"]), len(part["stalled"])
        ]  # fmt: skip
        assert stats[4:6] == [picture.get("publishes", 0), picture.get("finishes", 0)]


class Change:
    """A picture being changed into the one that is expected. Empty parts vanish by themselves."""

    def __init__(self, picture: Picture, now: Around) -> None:
        self.parts: Picture = copy.deepcopy(picture)
        self.now = now

    def set(self, part: str, id: str, value: Any) -> Change:
        """Set the entry of `id` in a hash or a sorted set."""
        self.parts.setdefault(part, {})[id] = value
        return self

    def drop(self, id: str, *parts: str) -> Change:
        """Drop the entry of `id` from these parts, where it must be."""
        for part in parts:
            if part == "stalled":
                self.parts[part].remove(id)
            else:
                del self.parts[part][id]
        return self

    def stall(self, id: str, reason: str) -> Change:
        """Mark `id` stalled."""
        self.parts.setdefault("stalled", set()).add(id)
        return self.set("reasons", id, reason)

    def front(self, *ids: str, level: int = 0) -> Change:
        """Put ids in front of a list: the first of them will be the first to be taken."""
        self.parts.setdefault(LISTS[level], []).extend(reversed(ids))
        return self

    def back(self, *ids: str, level: int = 0) -> Change:
        """Put ids at the end of a list, one by one."""
        for id in ids:
            self.parts.setdefault(LISTS[level], []).insert(0, id)
        return self

    def take(self, id: str, level: int = 0) -> Change:
        """Take the entry of `id` that is nearest to the front out of a list."""
        names: list[str] = self.parts[LISTS[level]]
        del names[len(names) - 1 - names[::-1].index(id)]
        return self

    def count(self, part: str, by: int = 1) -> Change:
        """Add to a counter."""
        self.parts[part] = self.parts.get(part, 0) + by
        return self

    def haunt(self, id: str, by: int = 1) -> Change:
        """Add to the ghosts of `id`."""
        ghosts = self.parts.setdefault("ghosts", {})
        ghosts[id] = ghosts.get(id, 0) + by
        if not ghosts[id]:
            del ghosts[id]
        return self

    def bury(self, reason: str, id: str, item: str | None = None) -> Change:
        """Add a job to the dead list."""
        entry = (reason, self.now, id, f"item of {id}" if item is None else item)
        self.parts.setdefault("dead", []).append(entry)
        return self

    def wake(self, there: bool = True) -> Change:
        """Set or clear the wake."""
        self.parts["wake"] = {"w": 0} if there else {}
        return self

    def gone(self, id: str) -> Change:
        """Drop `id` from everything that every job has."""
        for part in ("cancelled", "priorities", "deadlines"):
            self.parts.get(part, {}).pop(id, None)
        return self.drop(id, "items", "published")

    def picture(self) -> Picture:
        """The result."""
        return {part: value for part, value in self.parts.items() if value}


Changes = Callable[[Change], Any]


def live(picture: Picture) -> Picture:
    """The picture without ghosts, wake and marks: of an id's entries in a list, those nearest to
    the front are its ghosts."""
    ghosts = Counter(picture.get("ghosts", {}))
    found = {name: value for name, value in picture.items() if name not in ("ghosts", "wake")}
    for name in LISTS:
        kept = []
        for id in reversed(picture.get(name, ())):
            if ghosts[id] > 0:
                ghosts[id] -= 1
            else:
                kept.append(id)
        found[name] = kept[::-1]
    owners = picture.get("owners", {})
    found["owners"] = {id: owner for id, owner in owners.items() if not is_mark(owner)}
    return {name: value for name, value in found.items() if value}
