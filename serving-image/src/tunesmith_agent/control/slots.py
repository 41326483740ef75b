"""Slots of the engine for adapters: which version is loaded next, and which one makes room. Pure, no I/O."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Place(Enum):
    """State of a version that takes a slot."""

    LOADING = "loading"
    LOADED = "loaded"
    #: Gets no further requests; it is unloaded when the last one has ended.
    LEAVING = "leaving"
    UNLOADING = "unloading"


@dataclass(frozen=True, slots=True)
class Use:
    """Use of a version.

    Attributes:
        in_flight: requests in progress.
        last: time of the latest request, in any unit; 0 before the first one.
    """

    in_flight: int
    last: float


class EngineSlots(Generic[Name]):
    """Bookkeeping of the slots.

    Wanted versions get free slots in the order in which they were wanted, those that requests wait for first. Where no
    slot is free, the version that was used longest ago makes room: one without requests in progress, or, if requests
    wait, one that has some, as soon as they have ended. One that is held never does.

    Args:
        count: number of adapters that the engine keeps in memory.
        use: use of a version at the moment.
    """

    def __init__(self, count: int, use: Callable[[Name], Use]) -> None:
        self.count = count
        self._use = use
        self._places: dict[Name, Place] = {}
        self._holds: dict[Name, int] = {}
        self._wanted: dict[Name, bool] = {}
        #: Versions that leave for good.
        self._gone: set[Name] = set()

    def place(self, name: Name) -> Place | None:
        """State of a version; None if it takes no slot."""
        return self._places.get(name)

    def places(self) -> dict[Name, Place]:
        """All versions that take slots."""
        return dict(self._places)

    @property
    def settled(self) -> bool:
        """True if nothing waits for a slot or for the end of a request."""
        return not self._wanted and Place.LEAVING not in self._places.values()

    def adopt(self, name: Name) -> bool:
        """Give a slot to a version that the engine holds already; False if none is free."""
        if len(self._places) >= self.count:
            return False
        self._wanted.pop(name, None)
        self._places[name] = Place.LOADED
        return True

    def want(self, name: Name, *, urgent: bool = False) -> None:
        """Load a version when a slot is free; ``urgent`` where requests wait for it."""
        place = self._places.get(name)
        if place is Place.LEAVING and name in self._gone:
            place = self._places[name] = Place.LOADED
        self._gone.discard(name)
        if place in (Place.LOADING, Place.LOADED):
            return
        self._wanted[name] = urgent or self._wanted.get(name, False)

    def forget_want(self, name: Name) -> None:
        """Load a version no more, unless it is being loaded."""
        self._wanted.pop(name, None)

    def hold(self, name: Name) -> None:
        """Keep a loaded version in its slot until ``let_go``."""
        self._holds[name] = self._holds.get(name, 0) + 1

    def let_go(self, name: Name) -> None:
        """End one ``hold``."""
        self._holds[name] -= 1
        if not self._holds[name]:
            del self._holds[name]

    def take_load(self) -> Name | None:
        """Version to load now, into a free slot; None if there is none."""
        if len(self._places) >= self.count:
            return None
        waiting = [name for name in self._wanted if name not in self._places]
        name = next((name for name in waiting if self._wanted[name]), waiting[0] if waiting else None)
        if name is not None:
            del self._wanted[name]
            self._places[name] = Place.LOADING
        return name

    def loaded(self, name: Name) -> None:
        """Record the end of a load."""
        self._places[name] = Place.LEAVING if name in self._gone else Place.LOADED

    def take_leaver(self) -> Name | None:
        """Version that has to make room and gets no further requests; None if none has to, or none can."""
        leaving = sum(place in (Place.LEAVING, Place.UNLOADING) for place in self._places.values())
        needed = len(self._places) + len(self._wanted) - self.count - leaving
        urgent = sum(self._wanted.values()) > leaving
        spare = [
            (self._use(name), name)
            for name, place in self._places.items()
            if place is Place.LOADED and name not in self._holds
        ]
        idle = [(use.last, index) for index, (use, _) in enumerate(spare) if not use.in_flight]
        busy = [(use.last, index) for index, (use, _) in enumerate(spare) if use.in_flight]
        choice = idle or (busy if urgent else [])
        if needed <= 0 or not choice:
            return None
        name = spare[min(choice)[1]][1]
        self._places[name] = Place.LEAVING
        return name

    def take_returner(self) -> Name | None:
        """Version that was to make room and need not any more; None if there is none."""
        missing = sum(name not in self._places for name in self._wanted)
        if len(self._places) + missing > self.count:
            return None
        leaving = (name for name, place in self._places.items() if place is Place.LEAVING)
        name = next((name for name in leaving if name not in self._gone), None)
        if name is not None:
            self._wanted.pop(name, None)
            self._places[name] = Place.LOADED
        return name

    def take_unload(self) -> Name | None:
        """Version to unload now; None if there is none."""
        for name, place in self._places.items():
            if place is Place.LEAVING and name not in self._holds and not self._use(name).in_flight:
                self._places[name] = Place.UNLOADING
                return name
        return None

    def stay(self, name: Name) -> None:
        """Record that an unload failed: it is tried again."""
        self._places[name] = Place.LEAVING

    def leave(self, name: Name) -> None:
        """Make a version leave that is not served any more; one that is being loaded leaves after that."""
        self._wanted.pop(name, None)
        if name in self._places:
            self._gone.add(name)
        if self._places.get(name) is Place.LOADED:
            self._places[name] = Place.LEAVING

    def free(self, name: Name) -> None:
        """Record that the engine does not have a version."""
        self._places.pop(name, None)
        self._gone.discard(name)
