"""The poller's decisions: who waits for which lipsync, when it is due, who asks, and what the answer means.

The rules of this file:

1. Nothing here waits, reads a clock or draws lots. Times are seconds on one clock that never goes back, and
   come as arguments.
2. An id that somebody awaits is in one place at a time (`Place`). A request is an `Errand`, carried by one of
   those who wait for its ids. Until it is settled its ids are in flight; once it is settled, none is.
3. A waiter of one id has at most one errand, and it is about that id. So whoever waits for an id that is not in
   flight is free to carry it, and what is due always finds a carrier among those present.
4. Nobody is woken here. Who has something to do or to hear is listed in `Board.rung`, and the shell rings.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from heygen_async._ids import MAX_STATUS_IDS, MAX_STATUS_QUERY, query_size
from heygen_async._polling.hearsay import Hearsay, patience
from heygen_async._polling.lanes import Lane, Lanes
from heygen_async._polling.pages import Pages
from heygen_async._polling.waiting import (
    Awaited,
    Errand,
    LipsyncPage,
    ManyWaiter,
    Moment,
    Outcome,
    Place,
    Status,
    Waiter,
    Way,
)
from heygen_async.errors import (
    AuthenticationError,
    HeyGenError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    WaitTimeout,
)
from heygen_async.models import TERMINAL, Lipsync

if TYPE_CHECKING:
    from heygen_async.policies import PollPolicy

_SLICE: Final = 1000
"""The most ids handled in one go, so that the event loop is not held up."""

_MAX_OMISSIONS: Final = 3
"""How many answers in a row may leave out an id before it is fetched on its own."""

_RECENT: Final = 64
"""How many finished jobs the typical length is taken from."""


class Board:
    """Who waits for what, and what is to be asked.

    Args:
        policy: How often to look, and how many status requests may be in the air.
    """

    def __init__(self, policy: PollPolicy) -> None:
        self.policy = policy
        self.has_statuses = True
        """Whether the account has the bulk status request, as far as is known."""
        self.looks = 0
        """Status requests in the air."""
        # An id is on the board for as long as something holds it: its waiters, a lane, an errand. One that nobody
        # waits for is not asked about, and is forgotten when its turn comes, at the latest.
        self._index: WeakValueDictionary[str, Awaited] = WeakValueDictionary()
        self._lanes = Lanes()
        self._shared = Lane()  # of all who wait for one id
        self._lanes.open(self._shared)
        self._rung: list[Waiter] = []
        self._pages = Pages()
        self._lengths: deque[float] = deque(maxlen=_RECENT)
        self._typical = 0.0
        self._hearsay = Hearsay()
        self._net = policy.with_webhooks()

    # Who waits

    def join(self, waiter: Waiter, lipsync_id: str, now: float, *, age: float | None = None) -> Awaited:
        """Let *waiter* wait for *lipsync_id*, which is *age* seconds old if that is known."""
        awaited = self._index.get(lipsync_id)
        if awaited is None:
            awaited = self._index[lipsync_id] = self._newcomer(waiter, lipsync_id, now, age)
        elif age is not None:
            awaited.born = min(awaited.born, now - age)
        lane = self._lane(waiter)
        is_listed = any(self._lane(other) is lane for other in awaited.waiters)
        awaited.waiters[waiter] = None
        lane.waiting += 1
        if isinstance(waiter, ManyWaiter):
            waiter.pending[lipsync_id] = awaited
        if awaited.place is Place.WANTED:
            self._want(awaited)
        elif awaited.place is Place.QUEUED and not is_listed:
            self._lanes.push(lane, awaited.due, awaited)
        return awaited

    def leave(self, waiter: Waiter, awaited: Awaited, now: float) -> None:
        """Let *waiter* of one id go; the errand that it had is due now, for another."""
        self._part(waiter, awaited)
        if waiter.errand is not None:
            self.give_back(waiter.errand, Moment(now))

    def enter(self, many: ManyWaiter) -> None:
        """Let *many* be called upon, and hand it what was left for it."""
        many.here = True
        self._lanes.open(many.lane)
        self._resume(many)

    def exit(self, many: ManyWaiter) -> None:
        """Stop calling upon *many*. What it carries goes on."""
        many.here = False
        self._lanes.close(many.lane)

    def drop(self, many: ManyWaiter, now: float) -> None:
        """Give back all errands of *many*, which is away but goes on waiting."""
        many.to_start.clear()
        for errand in tuple(many.carried):
            self.give_back(errand, Moment(now))

    def leave_all(self, many: ManyWaiter, now: float) -> None:
        """Let *many*, which is away, go for good."""
        for awaited in many.pending.values():
            self._part(many, awaited)
        many.pending.clear()
        self.drop(many, now)

    def notify(self, lipsync_id: str) -> None:
        """Have *lipsync_id* fetched now, for there is word of it. Nothing happens if nobody waits for it."""
        awaited = self._index.get(lipsync_id)
        if awaited is None:
            return
        awaited.told = True
        if awaited.place is Place.IN_FLIGHT:
            awaited.hurried = True
        elif awaited.place is Place.QUEUED:
            self._want(awaited)

    def expect_notifications(self) -> None:
        """Leave it to `notify` to tell what has ended, for as long as it does."""
        self._hearsay.expect()

    def end_all(self, error: Exception, now: float) -> None:
        """End every wait with *error*."""
        for awaited in list(self._index.values()):
            self._done(awaited, error, now)

    def awaited(self) -> list[Awaited]:
        """Return every id that somebody waits for."""
        return [awaited for awaited in self._index.values() if awaited.waiters]

    def rung(self) -> list[Waiter]:
        """Return those who have got something to do or to hear since this was last called."""
        rung, self._rung = self._rung, []
        return rung

    # What is due

    def next_due(self) -> float | None:
        """Return when there is next something to `take`; `None` if not before something else happens."""
        return None if self._is_full() else self._lanes.first_due()

    def take(self, now: float) -> None:
        """Hand out, as errands, what is due at *now*, as far as there are seats."""
        if not self.has_statuses:
            self._want_all(list(itertools.islice(self._pop_until(now), _SLICE)))
            return
        while not self._is_full() and (chunk := self._next_chunk(now)):
            self._start(Way.LOOK, chunk)

    def _is_full(self) -> bool:
        return self.looks >= self.policy.max_bulk

    def _next_chunk(self, now: float) -> list[Awaited]:
        chunk = list(itertools.islice(self._pop_until(now), 1))
        room = MAX_STATUS_QUERY - sum(awaited.size for awaited in chunk)
        # The other seats are free of charge: whoever is due next takes them.
        for awaited in self._pop_until(math.inf) if chunk else ():
            room -= awaited.size
            if room < 0:
                self._enqueue(awaited, awaited.due)
                break
            chunk.append(awaited)
            if len(chunk) == MAX_STATUS_IDS:
                break
        return chunk

    def _pop_until(self, until: float) -> Iterator[Awaited]:
        """Yield what is due by *until* and has somebody present, in order; pass over a slice of others at most."""
        stale = 0
        while (first := self._lanes.first_due()) is not None and first <= until and stale < _SLICE:
            if self._is_live(*(entry := self._lanes.pop())):
                awaited = entry[2]
                awaited.place = Place.IN_FLIGHT
                yield awaited
            else:
                stale += 1

    # What came of it

    def heard(self, errand: Errand, words: Mapping[str, Status], at: Moment) -> None:
        """Settle a look, which told of each id the status in *words*."""
        finished = []
        for awaited in self._land(errand):
            word = words.get(awaited.id)
            if word in TERMINAL:
                awaited.status = word
                finished.append(awaited)
            elif word is not None:
                self._goes_on(awaited, word, at)
            elif awaited.failures.omitted() < _MAX_OMISSIONS:
                self._rest(awaited, at)
            else:
                finished.append(awaited)  # or as good as: only its own GET can tell
        self._want_all(finished)

    def fetched(self, errand: Errand, lipsync: Lipsync, at: Moment) -> None:
        """Settle a fetch, which brought *lipsync*."""
        for awaited in self._land(errand):
            self._got(awaited, lipsync, at)
        self._resume(errand.carrier)

    def paged(self, errand: Errand, page: LipsyncPage, at: Moment) -> None:
        """Settle a page of the list, and pass on what it has of those wanted and of others that are awaited."""
        left = {awaited.id: awaited for awaited in self._land(errand)}
        saved = 0
        for lipsync in page.items:
            awaited = left.pop(lipsync.id, None)
            # One that has ended saves a look and a fetch even if nobody had asked yet.
            saved += awaited is not None or (lipsync.is_terminal and lipsync.id in self._index)
            awaited = awaited or self._idle(lipsync.id)
            if awaited is not None:
                self._got(awaited, lipsync, at)
        self._after_page(errand, page, list(left.values()), saved)

    def failed(self, errand: Errand, error: Exception, at: Moment) -> None:
        """Settle an errand that ended in *error*: no id but its own is touched, unless the key is refused."""
        landed = self._land(errand)
        if isinstance(error, AuthenticationError):
            self.end_all(error, at.now)
        elif errand.way is Way.PAGE and isinstance(error, HeyGenError):
            self._after_page(errand, None, landed, 0)
        elif errand.way is Way.LOOK and isinstance(error, NotFound | PermissionDenied):
            self.has_statuses = False
            for awaited in landed:
                self._enqueue(awaited, at.now)
        elif errand.way is Way.LOOK and isinstance(error, InvalidRequest):
            self._want_each(landed)  # one of these ids is at fault: each is asked about on its own
        else:
            for awaited in landed:
                self._suffer(awaited, error, at)
        self._resume(errand.carrier)

    def give_back(self, errand: Errand, at: Moment) -> None:
        """Settle an errand whose carrier was called away before there was an answer: it is due now."""
        for awaited in self._land(errand):
            if errand.way is Way.LOOK:
                self._enqueue(awaited, at.now)
            else:
                self._want(awaited)

    def _land(self, errand: Errand) -> list[Awaited]:
        """Mark *errand* as settled; return those of its ids that have to be put somewhere now."""
        if errand.settled:
            return []
        errand.settled = True
        errand.carrier.relieve(errand)
        self.looks -= errand.way is Way.LOOK
        if self._pages.reading is errand:
            self._pages.reading = None
        return [awaited for awaited in errand.awaited if awaited.place is Place.IN_FLIGHT]

    def _goes_on(self, awaited: Awaited, word: Status, at: Moment) -> None:
        awaited.failures.clear()
        awaited.ran = True
        if word != awaited.status:
            awaited.status = word
            self._rung.extend(waiter for waiter in awaited.waiters if waiter.watching)
        self._rest(awaited, at)

    def _got(self, awaited: Awaited, lipsync: Lipsync, at: Moment) -> None:
        if lipsync.is_terminal:
            self._done(awaited, lipsync, at.now)
            return
        if lipsync.created_at is not None and at.wall is not None:
            age = (at.wall - lipsync.created_at).total_seconds()
            awaited.born = min(awaited.born, at.now - age)
        self._goes_on(awaited, lipsync.status, at)

    def _suffer(self, awaited: Awaited, error: Exception, at: Moment) -> None:
        delay = awaited.failures.failed(error, self.policy)
        if delay is None:
            self._done(awaited, error, at.now)
        else:
            self._rest(awaited, at, at_least=delay)

    # Where an id goes next

    def _newcomer(self, waiter: Waiter, lipsync_id: str, now: float, age: float | None) -> Awaited:
        # Of an unknown age it may have ended long ago. A new job need not be looked at before it is due.
        due = now if age is None else max(now, now - age + self._interval([waiter], 0.0))
        size = query_size(lipsync_id)
        return Awaited(lipsync_id, born=now - (age or 0.0), due=due, size=size, young=due > now)

    def _interval(self, waiters: Iterable[Waiter], age: float, *, told: bool = False) -> float:
        """Return the seconds to the next look, as often as the most eager of *waiters* would have it."""
        policies = (waiter.policy or self.policy for waiter in waiters)
        interval = min((policy.interval(age, self._typical) for policy in policies), default=self.policy.slowest)
        # Of a job that there was word of no more will come, though it has not ended.
        if self._hearsay.is_believed and not told:
            return max(interval, patience(self._net, age, self._typical))
        return interval

    def _rest(self, awaited: Awaited, at: Moment, *, at_least: float = 0.0) -> None:
        """Queue *awaited* for its next look, unless there was word of it meanwhile."""
        self._expire(awaited, at.now)
        if awaited.hurried:
            awaited.hurried = False
            self._want(awaited)
            return
        interval = self._interval(awaited.waiters, at.now - awaited.born, told=awaited.told) * at.spread
        self._enqueue(awaited, at.now + max(interval, at_least))

    def _expire(self, awaited: Awaited, now: float) -> None:
        for waiter in [waiter for waiter in awaited.waiters if waiter.soft and waiter.deadline <= now]:
            self._part(waiter, awaited)
            waiter.tell(awaited, WaitTimeout(awaited.id, last_status=awaited.status))
            self._rung.append(waiter)

    def _enqueue(self, awaited: Awaited, due: float) -> None:
        awaited.place = Place.QUEUED
        awaited.due = due
        for lane in dict.fromkeys(map(self._lane, awaited.waiters)):
            self._lanes.push(lane, due, awaited)
            self._lanes.tidy(lane, self._is_live)

    def _is_live(self, lane: Lane, due: float, awaited: Awaited) -> bool:
        """Return whether an entry of *lane* still says when an id is due for somebody there."""
        if awaited.place is not Place.QUEUED or awaited.due != due:
            return False
        return any(self._lane(waiter) is lane for waiter in awaited.waiters)

    def _lane(self, waiter: Waiter) -> Lane:
        return waiter.lane if isinstance(waiter, ManyWaiter) else self._shared

    def _part(self, waiter: Waiter, awaited: Awaited) -> None:
        if waiter in awaited.waiters:
            del awaited.waiters[waiter]
            self._leave_lane(waiter)

    def _leave_lane(self, waiter: Waiter) -> None:
        lane = self._lane(waiter)
        lane.waiting -= 1
        self._lanes.tidy(lane, self._is_live)

    def _idle(self, lipsync_id: str) -> Awaited | None:
        awaited = self._index.get(lipsync_id)
        return awaited if awaited is not None and awaited.place is not Place.IN_FLIGHT else None

    def _done(self, awaited: Awaited, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Lipsync):
            self._learn(awaited, now)
        awaited.place = Place.DONE
        del self._index[awaited.id]
        for waiter in awaited.waiters:
            self._leave_lane(waiter)
            waiter.tell(awaited, outcome)
        self._rung.extend(awaited.waiters)
        awaited.waiters = {}

    def _learn(self, awaited: Awaited, now: float) -> None:
        """Learn from a job that has ended how long such jobs take, and whether there is word of their ends."""
        if awaited.ran or awaited.told:
            self._lengths.append(now - awaited.born)
            self._typical = sorted(self._lengths)[len(self._lengths) // 2]
        if awaited.told:
            self._hearsay.confirmed(now)
        elif (awaited.ran or awaited.young) and self._hearsay.missed(awaited.born):
            self._hasten(now)

    def _hasten(self, now: float) -> None:
        """Bring forward what was left to others to tell of."""
        for awaited in list(self._index.values()):
            due = now + self._interval(awaited.waiters, now - awaited.born)
            if awaited.place is Place.QUEUED and awaited.due > due:
                self._enqueue(awaited, due)

    # Who carries it

    def _want_all(self, wanted: Sequence[Awaited]) -> None:
        """Have all of *wanted* fetched: off a page of the list if that may bring enough of them, else singly."""
        page = self._pages.join(len(wanted))
        if page is not None:
            page.awaited.extend(wanted)
            for awaited in wanted:
                awaited.place = Place.IN_FLIGHT
        elif self._pages.worth_it(len(wanted)):
            self._begin_page(wanted)
        else:
            self._want_each(wanted)

    def _begin_page(self, wanted: Sequence[Awaited]) -> None:
        # Without bulk requests the list is how running jobs are looked at, and they are among the newest.
        self._start(Way.PAGE, wanted, self._pages.begin(at_the_newest=not self.has_statuses))

    def _after_page(self, errand: Errand, page: LipsyncPage | None, left: list[Awaited], saved: int) -> None:
        if self._pages.learn(errand, page, saved=saved, left=len(left)):
            self._start(Way.PAGE, left, self._pages.cursor)
        else:
            self._want_each(left)

    def _want_each(self, wanted: Iterable[Awaited]) -> None:
        for awaited in wanted:
            self._want(awaited)

    def _want(self, awaited: Awaited) -> None:
        """Have *awaited* fetched by one of its own waiters, or by the first of them that comes free."""
        awaited.place = Place.WANTED
        carrier = self._carrier(Way.FETCH, [awaited])
        if carrier is not None:
            self._send(Errand(Way.FETCH, [awaited], carrier))
            return
        for waiter in awaited.waiters:
            if isinstance(waiter, ManyWaiter):
                waiter.wanted.append(awaited)

    def _resume(self, waiter: Waiter) -> None:
        """Hand *waiter*, which is free again, what was wanted while it was not."""
        if not isinstance(waiter, ManyWaiter) or not waiter.here:
            return
        if self._pages.worth_it(len(waiter.wanted)):
            self._begin_page(list(itertools.islice(self._left_for(waiter), _SLICE)))
        while waiter.is_free(Way.FETCH) and (awaited := next(self._left_for(waiter), None)):
            self._send(Errand(Way.FETCH, [awaited], waiter))

    def _left_for(self, many: ManyWaiter) -> Iterator[Awaited]:
        while many.wanted:
            awaited = many.wanted.popleft()
            if awaited.place is Place.WANTED:
                awaited.place = Place.IN_FLIGHT  # it may be noted twice
                yield awaited

    def _start(self, way: Way, awaited: Sequence[Awaited], token: str | None = None) -> None:
        carrier = self._carrier(way, awaited)
        if carrier is None:
            self._want_each(awaited)
        else:
            self._send(Errand(way, list(awaited), carrier, token))

    def _carrier(self, way: Way, awaited: Iterable[Awaited]) -> Waiter | None:
        """Return the waiter that will be there longest, of those that are free."""
        free = (waiter for one in awaited for waiter in one.waiters if waiter.is_free(way))
        return max(free, key=_deadline, default=None)

    def _send(self, errand: Errand) -> None:
        for awaited in errand.awaited:
            awaited.place = Place.IN_FLIGHT
        self.looks += errand.way is Way.LOOK
        if errand.way is Way.PAGE:
            self._pages.reading = errand
        errand.carrier.give(errand)
        self._rung.append(errand.carrier)


def _deadline(waiter: Waiter) -> float:
    return waiter.deadline
