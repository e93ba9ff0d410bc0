"""Who holds a ref to which object, counted by deliveries.

Never keeps a value. The scheduler counts each time it sends a peer something that contains a ref
to an object; the peer counts what it receives and, when it holds the ref no more, releases that
number. So no message can be in flight that both sides forgot. While anyone holds an object, its
home keeps the value.
"""

from ..protocol.ids import ObjectId, PeerId, home_of


class Holders:
    """Counts of deliveries; says when an object begins and ceases to be shared."""

    __slots__ = ("_by_home", "_by_object", "_by_peer")

    def __init__(self) -> None:
        self._by_object: dict[ObjectId, dict[PeerId, int]] = {}
        # Two indexes, dicts used as ordered sets.
        self._by_peer: dict[PeerId, dict[ObjectId, None]] = {}
        self._by_home: dict[PeerId, dict[ObjectId, None]] = {}

    def __len__(self) -> int:
        return len(self._by_object)

    def deliver(self, object_id: ObjectId, peer: PeerId, times: int = 1) -> bool:
        """Count deliveries to a peer; return whether nobody held the object before."""
        holders = self._by_object.get(object_id)
        fresh = holders is None
        if holders is None:
            holders = self._by_object[object_id] = {}
            self._by_home.setdefault(home_of(object_id), {})[object_id] = None
        count = holders.get(peer, 0)
        if not count:
            self._by_peer.setdefault(peer, {})[object_id] = None
        holders[peer] = count + times
        return fresh

    def release(self, object_id: ObjectId, peer: PeerId, count: int) -> bool:
        """Take a peer's deliveries back; return whether nobody holds the object any more."""
        holders = self._by_object.get(object_id)
        held = 0 if holders is None else holders.get(peer, 0)
        if holders is None or not held:
            return False
        if held > count:
            holders[peer] = held - count
            return False
        self._remove(self._by_peer, peer, object_id)
        del holders[peer]
        if holders:
            return False
        self._forget(object_id)
        return True

    def of_home(self, home: PeerId) -> list[ObjectId]:
        """Return the objects of a home that anybody holds."""
        return list(self._by_home.get(home, ()))

    def homes(self) -> list[PeerId]:
        """Return the homes of all objects that anybody holds."""
        return list(self._by_home)

    def forget_home(self, home: PeerId) -> None:
        """A home will not come: refs to what it kept lead nowhere."""
        for object_id in self._by_home.pop(home, ()):
            for holder in self._by_object.pop(object_id):
                self._remove(self._by_peer, holder, object_id)

    def forget_peer(self, peer: PeerId) -> list[ObjectId]:
        """A peer is gone, and what it was home of; return other homes' objects nobody holds now."""
        self.forget_home(peer)
        unshared = []
        for object_id in self._by_peer.pop(peer, ()):
            holders = self._by_object[object_id]
            del holders[peer]
            if not holders:
                self._forget(object_id)
                unshared.append(object_id)
        return unshared

    def holders_of(self, object_id: ObjectId) -> dict[PeerId, int]:
        """Return who holds an object, with the deliveries counted."""
        return dict(self._by_object.get(object_id, ()))

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "holders": len(self._by_object),
            "holders_by_peer": len(self._by_peer),
            "holders_by_home": len(self._by_home),
        }

    def check_invariants(self) -> None:
        """Assert that the indexes agree."""
        pairs = sum(len(holders) for holders in self._by_object.values())
        assert pairs == sum(len(objects) for objects in self._by_peer.values())
        assert len(self._by_object) == sum(len(objects) for objects in self._by_home.values())
        assert all(self._by_peer.values())
        assert all(self._by_home.values())
        for object_id, holders in self._by_object.items():
            assert holders, "an object without holders is forgotten"
            assert object_id in self._by_home[home_of(object_id)]
            for peer, count in holders.items():
                assert count > 0
                assert object_id in self._by_peer[peer]

    def _forget(self, object_id: ObjectId) -> None:
        del self._by_object[object_id]
        self._remove(self._by_home, home_of(object_id), object_id)

    @staticmethod
    def _remove(
        index: dict[PeerId, dict[ObjectId, None]], peer: PeerId, object_id: ObjectId
    ) -> None:
        objects = index[peer]
        del objects[object_id]
        if not objects:
            del index[peer]
