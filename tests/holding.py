"""What must hold of a life on the faulty disk, once it has come to its end (`crashing.py`).

Each check is a function that asserts one promise: nothing acknowledged is missing, no effect is doubled,
the ledger is honest about what went out, and everything derived can be made again, byte for byte.
"""

from __future__ import annotations

import io
import json
from collections import Counter

import pyarrow.parquet as pq
from crash_scene import repaired
from crashing import Life
from forgotten import Erasures, erasures_hold, no_byte_is_left

from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine
from hetki.engine.folding import read_event
from hetki.engine.rebuilding import rebuild
from hetki.engine.verifying import verify
from hetki.events.event import Event
from hetki.store.journal import Kind
from hetki.store.lake import refresh
from hetki.store.ledger import RESTORED


def everything_holds(life: Life) -> None:
    """All that is promised, of one life."""
    engine = life.engine(0)
    erasures = Erasures(engine, engine.journal.read(0, 10**9))
    acknowledged_is_stored(life, engine, erasures)
    every_occurrence_is_handled_once(engine)
    every_answer_has_one_message(engine, erasures)
    the_ledger_is_honest(life, engine, erasures)
    each_deed_is_told_once(engine, erasures)
    erasures_hold(life, engine, erasures)
    everything_can_be_made_again(life, engine, erasures)
    no_byte_is_left(life, erasures)


def acknowledged_is_stored(life: Life, engine: Engine, erasures: Erasures) -> None:
    """Every acknowledged event is in the journal, can be read unless it was erased, and is folded once."""
    events = [each for each in erasures.entries if each.kind is Kind.EVENT]
    told = {each.event_id: read_event(each) for each in events}
    stored = {each.message_id for each in told.values() if each is not None and each.source != "hetki"}
    missing = life.acknowledged - stored
    assert all(erasures.may_hide(life.told[each]) for each in missing), "an acknowledged event is missing"
    assert stored <= life.told.keys(), "an event that nobody told of"
    named = [(each.source, each.message_id) for each in told.values() if each]
    assert len(named) == len(set(named))
    folded = dict(engine.db.execute("SELECT event_id, position FROM events"))
    first: dict[bytes, int] = {}
    for entry in events:
        first.setdefault(entry.event_id, entry.position)
    assert folded == first, "each event is folded once, where it was accepted first"
    counts = engine.state.counts()
    assert (counts.get("events", 0), counts.get("duplicates", 0)) == (len(told), len(events) - len(told))
    bodies = [each for each in erasures.entries if each.kind is Kind.REJECTED and each.body is not None]
    rejected = {each.event_id.hex() for each in bodies}
    listed = dict(engine.db.execute("SELECT rejected_id, replayed_at FROM rejected"))
    assert set(listed) == rejected, "a rejected body that is not listed"
    done = {repaired(each) for each, replayed_at in listed.items() if replayed_at is not None}
    assert all(erasures.may_hide(life.told[each]) for each in done - stored), (
        "it is marked as repaired, and was not accepted"
    )


def every_occurrence_is_handled_once(engine: Engine) -> None:
    """What was caught is decided or missed, and what was and is not there any more was retracted."""
    decided = [row[0] for row in engine.db.execute("SELECT occurrence_id FROM decisions")]
    missed = [row[0] for row in engine.db.execute("SELECT occurrence_id FROM missed")]
    handled = Counter(decided + missed)
    assert set(handled.values()) <= {1}, "an occurrence that was decided twice"
    caught = {row[0] for row in engine.db.execute("SELECT occurrence_id FROM occurrences")}
    assert caught <= set(handled), "an occurrence that nobody decided"
    retracted = {
        row[0] for row in engine.db.execute("SELECT occurrence_id FROM revisions WHERE kind = 'retracted'")
    }
    assert set(handled) - caught <= retracted, "what was decided is gone, and nothing says why"


def every_answer_has_one_message(engine: Engine, erasures: Erasures) -> None:
    """A decision has one message if it says something, an assignment if it drew one."""
    kept = "SELECT decision_id FROM outbox WHERE recipient <> ''"  # else it was being sent when it was erased
    posted = Counter(row[0] for row in engine.db.execute(kept))
    assigned = {row[0] for row in engine.db.execute("SELECT decision_id FROM assignments")}
    speaks, draws = set(), set()
    for (decision_id,) in engine.db.execute("SELECT decision_id FROM decisions").fetchall():
        decision = engine.ledger.decision(decision_id)
        assert decision is not None
        if decision.send_at is not None:
            speaks.add(decision_id)
        if decision.assigned_now:
            draws.add(decision_id)
    assert set(posted) == speaks and set(posted.values()) <= {1}, "one message for each answer"
    assert draws <= assigned, "an assignment that is not kept"
    without = {each for each in assigned - draws if engine.ledger.decision(each) is not None}
    assert not without and (assigned == draws or erasures.commands), "an assignment that nobody drew"


def the_ledger_is_honest(life: Life, engine: Engine, erasures: Erasures) -> None:
    """What is marked as sent has had its effect; what has had one is marked, or has an attempt to show."""
    outbox = engine.db.execute("SELECT message_id, status, detail, n_attempts FROM outbox").fetchall()
    attempts = Counter(row[0] for row in engine.db.execute("SELECT message_id FROM attempts"))
    went_well = Counter(row[0] for row in engine.db.execute("SELECT message_id FROM attempts WHERE ok"))
    effects = life.receiver.effects
    without = set(effects) - {row[0] for row in outbox}
    without -= life.vault.forgotten
    assert all(erasures.may_be_gone(life, each) for each in without), "an effect without a message"
    for message_id, status, detail, n_attempts in outbox:
        assert status in ("sent", "failed", "cancelled", "expired"), status
        assert n_attempts == attempts[message_id]
        assert went_well[message_id] == (status == "sent"), "one receipt for what was sent"
        if status == "sent":
            assert message_id in effects, "it is marked as sent, and was not"
        elif message_id in effects.keys() - life.vault.forgotten:
            says_so = "may have gone out" in detail or detail == RESTORED
            assert attempts[message_id] or says_so, "it was sent, and nothing says so"


def each_deed_is_told_once(engine: Engine, erasures: Erasures) -> None:
    """One event tells of each message that was sent, however often that was tried."""
    told = {each.event_id: read_event(each) for each in erasures.entries if each.kind is Kind.EVENT}
    own = [each for each in told.values() if isinstance(each, Event) and each.source == "hetki"]
    names = Counter((each.name, json.loads(each.properties)["decision_id"]) for each in own)
    assert set(names.values()) <= {1}, "one deed is told as two events"
    ends = Counter(whose for _, whose in names)
    assert set(ends.values()) <= {1}, "a message is told to have been sent, and to have failed"
    kept = "SELECT decision_id FROM outbox WHERE status = 'sent' AND recipient <> ''"
    sent = {row[0] for row in engine.db.execute(kept)}
    assert {whose for name, whose in names if name == "Message Sent"} >= sent, "a deed that is not told"


def everything_can_be_made_again(life: Life, engine: Engine, erasures: Erasures) -> None:
    """The chain is whole, a rebuild is the live state, and nothing is left to be done."""
    assert verify(engine).n_rows == engine.journal.head()[0]
    rebuilt = rebuild(engine)
    assert rebuilt.before == rebuilt.after, "what was live is not what a rebuild makes"
    assert deliver(engine, life.net, "app").n_sent == 0
    if life.has_lake:
        refresh(engine.disk, engine.journal, engine.state)
        names = engine.disk.names("lake/events/*/*/*.parquet")
        files = [pq.ParquetFile(io.BytesIO(engine.disk.read(name))) for name in names]
        ids = [file.read(["event_id"], use_threads=False).column(0).to_pylist() for file in files]
        lake = sorted(each for some in ids for each in some)
        events = [each for each in erasures.entries if each.kind is Kind.EVENT and each.body is not None]
        assert lake == sorted({each.event_id.hex() for each in events})
