"""The first seconds of a scheduler that was restarted: who is awaited, what goes on where.

Never starts anything: it matches what submitters name with what nodes have, keeps waiting what may
run somewhere, and says when nobody is waited for any more. After that it only answers latecomers.

    start         nothing is placed: nodes come back, then clients (or the other way round)
    nodes back    or `recovery_wait_s` later: placing begins; a task that may have run at a node
                  that is missing is charged, or waits for that node if it may not be retried
    clients back  or `client_grace_s` later: what is of clients that have not come is stopped
    nodes given up   `lost_after` + `lease_margin_s`: what waits for one fails
    end           what nobody has named is stopped; `Recovered` to all
    later         those who still tell are waited for, up to `register_timeout_s` after the last
                  word of one of them, and `client_silence_s` after the start
"""

from collections.abc import Callable
from typing import Any, Final

from ..protocol.frames import Role
from ..protocol.ids import ObjectId, PeerId, TaskId, home_of
from ..protocol.messages import Cancel, Define, Forget, Notice, StopMode, Submit
from ..protocol.recovery import (
    Holding,
    Inventory,
    Phase,
    Recovered,
    Registered,
)
from .attempts import Attempts
from .deliveries import Deliveries
from .doubts import Doubts
from .kept import Kept
from .matching import Matching
from .objects import Objects
from .placement import Board
from .roster import Roster, Standing
from .state import Peer, PeerError, State
from .tasks import (
    FINISHED,
    TaskRecord,
)
from .work import Work

NEVER_S: Final = float("inf")
#: so many cancels of tasks that nobody has named yet are remembered
CANCELS_MAX: Final = 100_000


class Recovery:
    """See the module.

    Args:
        state: shared.
        board: the nodes.
        work: all tasks.
        attempts: what nodes have.
        objects: all values.
        roster: the nodes that are written down.
    """

    __slots__ = (
        "_cancels", "_client_due_s", "_clients_given_up", "_end_s", "_ending", "_heard_s", "_kept",
        "_last_s", "_late", "_missing_due_s", "_named", "_objects", "_roster", "_state",
        "_wait_due_s", "_work", "doubts", "matching", "open", "say_again",
    )  # fmt: skip

    def __init__(
        self,
        state: State,
        board: Board,
        work: Work,
        attempts: Attempts,
        objects: Objects,
        roster: Roster,
        deliveries: Deliveries,
    ) -> None:
        self._state = state
        self._work = work
        self._objects = objects
        self._roster = roster
        #: handles a message that was held back; set by the core
        self.say_again: Callable[[Peer, Any], None] = _nobody_listens
        #: whether there is anything to recover: not in the first life of all
        self.open = state.epoch > 1
        state.claims.open = self.open
        state.out.homes_may_come = self.open
        state.recovering = self.open and bool(roster.count(Standing.AWAITED))
        # The timetable; the first turn sets it.
        self._wait_due_s = self._client_due_s = self._missing_due_s = NEVER_S
        self._end_s = self._last_s = NEVER_S
        #: when one of those who tell what they have was last heard
        self._heard_s = 0.0
        #: nobody is waited for any more, but not all that follows from it is done
        self._ending = False
        #: those who had not told all by then; they hear that it is over when they have
        self._late: dict[PeerId, None] = {}
        #: clients that nodes have something of, with these nodes
        self._named: dict[PeerId, dict[PeerId, None]] = {}
        self._clients_given_up = False
        self._kept = Kept()
        self.doubts = Doubts(state, work, roster, deliveries)
        self.matching = Matching(state, board, work, attempts, roster, self._may_be_named)
        #: tasks to be cancelled as soon as they are named: by force, with their children
        self._cancels: dict[bytes, Cancel] = {}

    # ----------------------------------------------------------------------------------- timetable

    def begin(self, now_s: float) -> None:
        """Time begins to count."""
        settings = self._state.settings
        lost_after_s = settings.lost_after_intervals * settings.heartbeat_interval_s
        self._wait_due_s = now_s + settings.recovery_wait_s
        self._client_due_s = now_s + settings.client_grace_s
        self._missing_due_s = now_s + lost_after_s + settings.lease_margin_s
        latest_s = max(settings.client_grace_s, lost_after_s)
        self._end_s = now_s + latest_s + settings.lease_margin_s
        #: those who still tell what they have are waited for, up to this
        self._last_s = max(self._end_s, now_s + settings.client_silence_s)
        self._heard_s = now_s
        waits = ", ".join(self._roster.names(Standing.AWAITED)) or "nobody"
        self._state.tell(f"restarted in epoch {self._state.epoch}; waits for {waits}", "recovery")

    def was_late(self, late_s: float) -> None:
        """The scheduler itself was away: nobody could come back meanwhile."""
        self._wait_due_s += late_s
        self._client_due_s += late_s
        self._missing_due_s += late_s
        self._end_s += late_s
        self._last_s += late_s
        self._heard_s += late_s

    def heard(self, peer: Peer) -> None:
        """A peer says something; it may be one of those who tell what they have."""
        if peer.id in self._state.claims.telling:
            self._heard_s = self._state.now_s

    def _over_s(self) -> float:
        """Return when nobody is waited for any more."""
        if not self._state.claims.telling:
            return self._end_s
        patience_s = self._state.settings.register_timeout_s
        return max(self._end_s, min(self._last_s, self._heard_s + patience_s))

    def due_s(self) -> float:
        """Return when `turn` has something to do."""
        if self.matching.ripe or self.doubts.news:
            return self._state.now_s
        due_s = self._over_s()
        if self._state.recovering:
            due_s = min(due_s, self._wait_due_s)
        if not self._clients_given_up:
            due_s = min(due_s, self._client_due_s)
        if self.doubts.in_time:
            due_s = min(due_s, self._missing_due_s)
        return due_s

    def turn(self) -> None:
        """Do what is due."""
        state, now_s = self._state, self._state.now_s
        if self._end_s == NEVER_S:
            self.begin(now_s)
        self._deliver_ripe()
        if state.recovering:
            awaited = self._roster.count(Standing.AWAITED, Standing.TELLING)
            # A creation that began before the state of its actor is whole would begin from nothing.
            is_told = not awaited and not state.hosts.checkpoints.arriving
            if is_told or now_s >= self._wait_due_s:
                lacking = f"without {', '.join(self.waits_for())}" if awaited else "with all nodes"
                state.recovering = False
                self.doubts.changed()
                state.tell(f"placing begins {lacking}", "recovery")
        if not self._clients_given_up and now_s >= self._client_due_s:
            self._give_up_clients()
        if self.doubts.in_time and now_s >= self._missing_due_s:
            self.doubts.in_time = False
            self.doubts.changed()
        state.awaits_nodes = self.doubts.in_time and bool(self._roster.count(Standing.AWAITED))
        if now_s >= self._over_s() and not self._ending:
            self._end()
        if self.doubts.news:
            self.doubts.judge()
        if self._ending and not self.doubts.news:
            self._close()

    def _deliver_ripe(self) -> None:
        if self.matching.ripe:
            ripe, self.matching.ripe = self.matching.ripe, []
            for node, ended in ripe:
                if node.peer.here:
                    self.say_again(node.peer, ended)

    def _end(self) -> None:
        """Whoever was to come back has: see what becomes of what nobody has named."""
        state = self._state
        self._ending = True
        self._late.update(dict.fromkeys(state.claims.telling))
        state.claims.telling.clear()
        state.recovering = False
        self.doubts.changed()
        for client in self._kept.clients():
            self._release(client)
        for claim in state.claims.all():
            self.matching.give_up(claim, "nobody has named it")

    def _close(self) -> None:
        """All that follows is done, so nobody is missing any more."""
        state = self._state
        self._ending = False
        self._roster.forget_missing()
        self._named.clear()
        self._cancels.clear()
        self.open = False
        self.doubts.changed()
        state.claims.close()
        state.out.end_of_absence()
        for row in self._objects.forget_absent():
            self._work.arrived(row)
        late, self._late = self._late, {}
        for peer in state.peers.values():
            if peer.entered and peer.id not in late:
                state.out.letter(peer.id, Recovered())
        state.awaits_nodes = False
        state.hosts.end_of_absence()
        state.tell("recovery is over", "recovery")

    def _give_up_clients(self) -> None:
        """Clients that have not come back by now are gone."""
        self._clients_given_up = True
        for client in list(self._named):
            if client not in self._state.peers:
                self._client_gone(client)
        for client in self._kept.clients():
            if client not in self._state.peers:
                self._release(client)

    def _home_gone(self, client: PeerId) -> None:
        """What a client keeps is waited for no more."""
        self._state.claims.home_gone(client)
        for row in self._objects.forget_peer(client):
            self._work.arrived(row)

    def _client_gone(self, client: PeerId) -> None:
        self._home_gone(client)
        self._roster.lost(client)
        for claim in self._state.claims.of_home(client):
            self.matching.give_up(claim, "its client has not come back")
        for node_id in self._named.pop(client, ()):
            node = self._state.nodes.get(node_id)
            if node is not None and node.former.pop(client, 0) is None:
                self._state.out.discard_client(node_id, client)
        self._state.tell(f"client {client.hex()} has not come back", "recovery", "warning")

    # --------------------------------------------------------------------------------- peers' words

    def inventory(self, peer: Peer, message: Inventory) -> None:
        """A node tells what it has over from an earlier life."""
        node = peer.node
        assert node is not None, "only a node that has joined gets here"
        for client_bytes in message.clients:
            client = PeerId(client_bytes)
            node.former[client] = None
            may_come = self.open and not self._clients_given_up
            if self._state.client(client) is not None or client in self._state.peers:
                continue
            if may_come and client not in self._state.claims.gone:
                self._named.setdefault(client, {})[node.id] = None
            else:
                if self.open:
                    self._home_gone(client)
                self._roster.lost(client)
                del node.former[client]
                self._state.out.discard_client(node.id, client)
        for row in message.rows:
            self.matching.claim(node, row)
        if message.last:
            self._state.tell(f"node {node.name!r} has told what it has", "recovery")

    def holding(self, peer: Peer, message: Holding) -> None:
        """A peer holds refs, which it got in an earlier life."""
        for id_, count in message.rows:
            self._state.out.hold(peer.id, ObjectId(id_), count)

    def registered(self, peer: Peer, _message: Registered) -> None:
        """A peer has told all."""
        if not self.open:
            self._roster.told(peer.id)
            self._state.out.letter(peer.id, Recovered())
            return
        self._late.pop(peer.id, None)
        if self._state.claims.telling.pop(peer.id, None) is None:
            self._named_all(peer.id)
            return
        self.doubts.changed()
        self._state.tell(f"{peer.role} {peer.name!r} has registered again", "recovery")
        if peer.role == Role.CLIENT:
            self._release(peer.id)
        else:
            self._roster.registered(peer.id)
        self._named_all(peer.id)

    def _named_all(self, home: PeerId) -> None:
        """A peer has named all its tasks: what else is claimed of it is of no use.

        What is kept of it for its clients it has named to nobody yet: none of that is charged.
        """
        peer = self._state.peers.get(home)
        tells = home in self._state.claims.telling or self._kept.has_of(home)
        if peer is not None and not tells:
            if home not in self._late:
                self._roster.told(home)
            for claim in self._state.claims.of_home(home):
                self.matching.give_up(claim, "its submitter does not name it")

    def met(self, peer: Peer, epoch: int) -> None:
        """A peer begins a link life; it last lived in this epoch of the scheduler, if not 0."""
        if self.open and epoch not in (0, self._state.epoch):
            if self._ending:
                self._late[peer.id] = None
            else:
                self._state.claims.telling[peer.id] = peer.role
                self._heard_s = self._state.now_s
                self.doubts.changed()
        if peer.role == Role.NODE:
            self._release(peer.id)  # a node took its id for that of a client

    def came(self, peer: Peer) -> None:
        """A peer has introduced itself: it may be the home of values that are waited for."""
        self.doubts.changed()
        if peer.id not in self._state.claims.telling:
            self._release(peer.id)
        self._state.out.home_came(peer.id)
        self._objects.home_came(peer.id)

    def forget(self, peer: Peer, until_s: float) -> None:
        """A peer is gone; what it ran of actors may act until then, if that is not 0."""
        claims = self._state.claims
        if not self.open:
            return
        claims.telling.pop(peer.id, None)
        self._late.pop(peer.id, None)
        self.doubts.changed()
        if peer.node is not None:
            for claim in claims.all():
                if claim.node is peer.node:
                    claims.remove(claim)
                    claims.given_up[claim.id] = claim.attempt, claim.node.name
                    if until_s:
                        self._state.hosts.fences.lost(claim.id, claim.node, until_s, named=False)
            self._kept.forget(peer.id)
        else:
            self._named.pop(peer.id, None)
            self._release(peer.id)
        for claim in claims.of_home(peer.id):
            self.matching.give_up(claim, "its submitter is gone")

    # ------------------------------------------------------------------------------------ held back

    def holds(self, peer: Peer, message: Any) -> bool:
        """Keep what a node says for a client that has yet to come; return whether it is kept.

        Raises:
            PeerError: too much is kept of this node.
        """
        self.heard(peer)
        if peer.node is None or not isinstance(message, Define | Submit | Forget):
            return False
        if isinstance(message, Forget):
            return self._kept.add_forget(peer, message)
        client = PeerId(message.client)
        if client in self._state.hosts.wards or not self._awaits_client(client):
            return False
        kept_bytes = self._kept.add(client, peer, message)
        bytes_max = self._state.settings.recovery_bytes_max
        if kept_bytes > bytes_max:
            raise PeerError(
                f"told {kept_bytes} bytes for clients that have yet to come back; "
                f"recovery_bytes_max is {bytes_max}"
            )
        return True

    def _awaits_client(self, client: PeerId) -> bool:
        if self._ending:
            return False  # nobody would say it again
        claims, peer = self._state.claims, self._state.peers.get(client)
        if peer is not None:
            tells = client in claims.telling or not peer.entered
            return tells and peer.role == Role.CLIENT
        return not self._clients_given_up and client not in claims.gone

    def _release(self, client: PeerId) -> None:
        """Take in what was kept for a client, which has come, or will not come."""
        nodes: dict[PeerId, None] = {}
        for peer, message in self._kept.take(client):
            nodes[peer.id] = None
            if peer.here:
                self.say_again(peer, message)
        for node in nodes:
            self._named_all(node)

    def _may_be_named(self, home: PeerId) -> bool:
        """Whether a submitter may still name tasks of an earlier life."""
        if not self.open or home in self._state.claims.gone:
            return False
        peer = self._state.peers.get(home)
        if peer is not None:
            return home in self._state.claims.telling or self._kept.has_of(home)
        return home not in self._named or not self._clients_given_up

    # --------------------------------------------------------------------------------------- cancel

    def cancel(self, peer: Peer, message: Cancel) -> None:
        """Remember to cancel tasks that nobody has named yet."""
        dropped = 0
        for id_ in message.ids:
            if self._state.find(TaskId(id_)) is not None:
                continue
            if self._may_be_named(home_of(TaskId(id_))):
                if len(self._cancels) >= CANCELS_MAX and id_ not in self._cancels:
                    dropped += 1
                    continue
                self._cancels[id_] = message
                claim = self._state.claims.find(id_)
                gently = message.exit or message.restart
                # What has ended is asked for when it is named: its node would forget it by then.
                runs = claim is not None and claim.ended is None and claim.phase != Phase.ENDED
                if claim is not None and runs and not gently:
                    mode = StopMode.FORCE if message.force else StopMode.SOFT
                    self._state.out.stop(claim.node.id, claim.id, claim.attempt, mode)
        if dropped:
            self._say_dropped(peer, dropped)

    def _say_dropped(self, peer: Peer, count: int) -> None:
        state = self._state
        state.counters["cancels_dropped"] += count
        text = (
            f"{count} cancels were dropped: the scheduler was restarted and remembers no more than "
            f"{CANCELS_MAX} of tasks that nobody has told it of yet; cancel again"
        )
        state.tell(f"{peer.role} {peer.name!r}: {text}", "recovery")
        if peer.node is None:
            state.out.letter(peer.id, Notice(text))

    def is_known_of(self, id_: TaskId) -> bool:
        """Return whether anybody has said something of a task before its submitter named it."""
        claims = self._state.claims
        return id_ in claims.given_up or id_ in self._cancels or claims.find(id_) is not None

    def remember_cancel(self, record: TaskRecord) -> None:
        """Cancel a task that was to be before it was named."""
        cancel = self._cancels.pop(record.id, None) if self._cancels else None
        if cancel is None or record.state == FINISHED:
            return
        if cancel.exit or cancel.restart:
            self._work.actors.asked([record.id], ends=cancel.exit)
        else:
            self._work.cancel([record.id], cancel.force, cancel.recursive, False)

    # --------------------------------------------------------------------------------------- inside

    def waits_for(self) -> list[str]:
        """Return the names of the nodes that placing waits for."""
        if not self._state.recovering:
            return []
        return self._roster.names(Standing.AWAITED, Standing.TELLING)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            **self._state.claims.sizes(),
            **self._kept.sizes(),
            **self.doubts.sizes(),
            "ripe": len(self.matching.ripe),
            # As long as it is open these are full of what may come.
            "cancels_kept": 0 if self.open else len(self._cancels),
            "named_clients": 0 if self.open else len(self._named),
            "late": len(self._late),
        }

    def check_invariants(self) -> None:
        """Assert that what is kept is kept for somebody."""
        self._state.claims.check_invariants()
        self._roster.check_invariants()
        self._kept.check_invariants()
        for client in self._kept.clients():
            assert self._awaits_client(client)
        for peer_id, role in self._state.claims.telling.items():
            assert self._state.peers[peer_id].role == role
        assert self.open or not (self._kept.clients() or self._cancels or self._state.recovering)


def _nobody_listens(_peer: Peer, _message: Any) -> None:
    raise AssertionError("the core has not introduced itself")
