"""The matcher, as stories: a line of steps, a line of events, and what fires (see `streams`).

That any split is equal, and that the definition agrees, is in `test_matcher_random`.
"""

from __future__ import annotations

import msgspec
import pytest
from streams import FAR, events_of, fires, pattern_of, shown

from hetki.patterns import matcher, standing
from hetki.patterns.run import Run, packed
from hetki.settings import SECOND

AB = "a: A | b: B"
STORIES = """
one step is enough
    a: A
    0 A, 5 B, 9 A
    -> 0: a0; 9: a9
a later event fulfils the next step
    a: A | b: B
    0 A, 60 B
    -> 60: a0 b60
an earlier one does not
    a: A | b: B
    0 B, 60 A
    -> nothing
what stands between does not matter
    a: A | b: B
    0 A, 1 X, 2 C, 60 B
    -> 60: a0 b60
the first that fits is bound
    a: A | b: B
    0 A, 60 B, 70 B
    -> 60: a0 b60
every start has its own
    a: A | b: B
    0 A, 1 A, 60 B
    -> 60: a0 b60; 60: a1 b60
one event of several
    a: A or B
    0 B, 1 A, 2 C
    -> 0: a0; 1: a1
a where that is unknown is not true
    a: A where v >= 2
    0 A, 1 A v=1, 2 A v=2
    -> 2: a2
a where back to an earlier step
    a: A | b: B where k = a.k
    0 A k=x, 1 A k=y, 2 B k=y
    -> 2: a1 b2
a step compares its time
    a: A | b: B where occurred_at - a.occurred_at > 9
    0 A, 9 B, 10 B
    -> 10: a0 b10
within is inclusive
    a: A | b: B; within: 60 seconds
    0 A, 60 B
    -> 60: a0 b60
and ends there
    a: A | b: B; within: 60 seconds
    0 A, 61 B
    -> nothing
within is from the first event step to the last
    a: A | b: B | c: C; within: 60 seconds
    0 A, 50 B, 61 C
    -> nothing
one event binds one step and may start anew
    a: A | b: A
    0 A, 1 A, 2 A
    -> 1: a0 b1; 2: a1 b2
two partials bind the same event
    a: A | b: B | c: C
    0 A, 1 A, 2 B, 3 C
    -> 3: a0 b2 c3; 3: a1 b2 c3
## Absence between two steps
a bare absence holds
    a: A | no x: X | b: B
    0 A, 60 B
    -> 60: a0 b60
a bare absence is broken
    a: A | no x: X | b: B
    0 A, 30 X, 60 B
    -> nothing
only for the starts before
    a: A | no x: X | b: B
    0 A, 30 X, 40 A, 60 B
    -> 60: a40 b60
before the step it follows it means nothing
    a: A | b: B | no x: X | c: C
    0 A, 1 X, 2 B, 3 C
    -> 3: a0 b2 c3
a broken absence with a where
    a: A | no x: X where k = a.k | b: B
    0 A k=x, 1 X k=y, 2 X, 3 B
    -> 3: a0 b3
forbidden and next at once: it breaks
    a: A | no x: B where v = 1 | b: B
    0 A, 1 B v=1, 2 B v=2
    -> nothing
## Absence for a time, in the middle
the next step waits for the end
    a: A | no x: X, for 10 seconds | b: B
    0 A, 5 B, 11 B
    -> 11: a0 b11
strictly after the deadline
    a: A | no x: X, for 10 seconds | b: B
    0 A, 10 B, 12 B
    -> 12: a0 b12
an event at the deadline breaks
    a: A | no x: X, for 10 seconds | b: B
    0 A, 10 X, 12 B
    -> nothing
an event after it does not
    a: A | no x: X, for 10 seconds | b: B
    0 A, 11 X, 12 B
    -> 12: a0 b12
then an event of the same kind may follow
    a: A | no x: B, for 10 seconds | b: B
    0 A, 11 B
    -> 11: a0 b11
watched from an earlier step on
    a: A | b: B | no x: X, for 10 seconds after a | c: C
    0 A, 2 X, 3 B, 12 C
    -> nothing
and over before the next
    a: A | b: B | no x: X, for 10 seconds after a | c: C
    0 A, 3 B, 9 C, 11 X, 12 C
    -> 12: a0 b3 c12
what it forbids cannot bind either
    a: A | b: B | no x: B, for 10 seconds after a | c: C
    0 A, 3 B, 12 C
    -> nothing
## Absence at the end
silence
    a: A | no x: X, for 10 seconds
    0 A
    -> 10: a0
no silence
    a: A | no x: X, for 10 seconds
    0 A, 10 X
    -> nothing
too late to break it
    a: A | no x: X, for 10 seconds
    0 A, 11 X
    -> 10: a0
an event of the start's instant, after it in order, breaks
    a: A | no x: X, for 10 seconds
    0 A, 0 X
    -> nothing
one before it in order does not
    a: A | no x: X, for 10 seconds
    0 X, 0 A
    -> 10: a0
silence after two steps
    a: A | b: B | no x: X, for 10 seconds
    0 A, 5 X, 6 B
    -> 16: a0 b6
silence after the first of two
    a: A | b: B | no x: X, for 10 seconds after a
    0 A, 6 B
    -> 10: a0 b6
which was over before the second
    a: A | b: B | no x: X, for 10 seconds after a
    0 A, 11 X, 16 B
    -> 16: a0 b16
within does not cover the silence
    a: A | b: B | no x: X, for 1 hour; within: 9 seconds
    0 A, 9 B
    -> 3609: a0 b9
several absences must all hold
    a: A | no x: X, for 10 seconds | no y: Y, for 20 seconds
    0 A, 100 A, 115 Y, 200 A, 205 X
    -> 20: a0
the last deadline counts
    a: A | no x: X, for 20 seconds | no y: Y, for 10 seconds
    0 A, 15 Y
    -> 20: a0
a restart is a start
    a: A | no x: A, for 10 seconds
    0 A, 5 A
    -> 15: a5
two silences end in their order
    a: A | no x: X, by a.due
    0 A due=50, 1 A due=40
    -> 40: a1; 50: a0
## Absence by a time that an event named
by a promised time
    a: A | no x: X, by a.due
    0 A due=30
    -> 30: a0
kept in time
    a: A | no x: X, by a.due
    0 A due=30, 30 X
    -> nothing
kept too late
    a: A | no x: X, by a.due
    0 A due=30, 31 X
    -> 30: a0
no promise, no moment
    a: A | no x: X, by a.due
    0 A, 1 A due=soon
    -> nothing
promised for the past
    a: A | no x: X, by a.due
    50 A due=30, 51 X
    -> 50: a50
the last event is later than the promise
    a: A | b: B | no x: X, by a.due
    0 A due=30, 50 B, 51 X
    -> 50: a0 b50
watched from the promise on
    a: A | b: B | no x: X, by a.due
    0 A due=30, 10 X, 20 B
    -> nothing
a promise in the middle
    a: A | no x: X, by a.due | b: B
    0 A due=30, 30 B, 31 B
    -> 31: a0 b31
by the second step's time
    a: A | b: B | no x: X, by b.due
    0 A, 1 X, 2 B due=9
    -> 9: a0 b2
## Repetition
once per field
    a: A; repeat: once per a.k
    0 A k=x, 1 A k=y, 2 A k=x
    -> 0: a0; 1: a1
a missing key equals no other
    a: A; repeat: once per a.k
    0 A, 1 A
    -> 0: a0; 1: a1
1 and 1.0 are one key
    a: A; repeat: once per a.v
    0 A v=1, 1 A v=1.0, 2 A v=2
    -> 0: a0; 2: a2
once per period
    a: A; repeat: once per 10 seconds
    0 A, 9 A, 10 A, 15 A, 20 A
    -> 0: a0; 10: a10; 20: a20
a key beyond every whole number
    a: A; repeat: once per a.v
    0 A v=1e300, 1 A v=1e300, 2 A v=9.3e18
    -> 0: a0; 2: a2
what is suppressed does not count
    a: A; repeat: once per 10 seconds
    0 A, 6 A, 12 A
    -> 0: a0; 12: a12
in order of emission
    a: A | no x: X, by a.due; repeat: once per a.k
    0 A k=x due=50, 1 A k=x due=40
    -> 40: a1
a tie is the earlier start's
    a: A | b: B; repeat: once per b.k
    0 A, 1 A, 2 B k=x
    -> 2: a0 b2
## Several events for one step
three times
    f: 3 times A | b: B
    0 A, 1 X, 2 A, 3 B, 4 A, 5 B
    -> 5: f4 b5
every start counts anew
    f: 2 times A
    0 A, 1 A, 2 A
    -> 1: f1; 2: f2
within is from the first of them
    f: 3 times A; within: 5 seconds
    0 A, 2 A, 5 A, 6 A, 8 A
    -> 5: f5; 6: f6; 8: f8
two to three times goes on until the next step binds
    f: 2 to 3 times A | b: B
    0 A, 1 A, 2 A, 3 A, 4 B
    -> 4: f2 b4; 4: f3 b4; 4: f3 b4
at least twice goes on without an end
    f: at least 2 times A where k = 'x' | b: B
    0 A k=x, 1 A k=x, 2 A k=y, 3 A k=x, 4 B, 5 A k=x
    -> 4: f3 b4; 4: f3 b4
an event that fits the next step binds it
    f: at least 1 times A or B | b: B
    0 A, 1 A, 2 B, 3 B
    -> 2: f1 b2; 2: f1 b2; 3: f2 b3
a last step is complete with the fewest
    a: A | f: at least 2 times B
    0 A, 1 B, 2 B, 3 B
    -> 2: a0 f2
how many they were
    f: at least 2 times A | b: B where v = f.n
    0 A, 1 A, 2 A, 3 B v=3
    -> 3: f2 b3
the first of them, and the last
    f: 2 times A | b: B where k = f.first.k and v = f.last.v
    0 A k=x v=1, 1 A k=y v=2, 2 B k=x v=1, 3 B k=x v=2
    -> 3: f1 b3
a plain field is that of the last
    f: 2 times A | b: B where v = f.v
    0 A v=1, 1 A v=2, 2 B v=1, 3 B v=2
    -> 3: f1 b3
a bare absence holds until all have come
    a: A | no x: X | f: 2 times B
    0 A, 1 B, 2 X, 3 B
    -> nothing
and not while more are collected
    a: A | no x: X | f: 2 to 5 times B | c: C
    0 A, 1 B, 2 B, 3 X, 4 B, 5 C
    -> 5: a0 f4 c5
a silence counts from the one that fulfils the step
    f: 2 to 3 times A | no x: X, for 10 seconds | b: B
    0 A, 1 A, 5 A, 12 B
    -> 12: f5 b12
silence after three in vain
    f: 3 times A | no x: X, for 10 seconds
    0 A, 1 A, 2 A, 20 A, 21 A, 22 A, 30 X
    -> 12: f2
once per the first one's field
    f: 2 times A; repeat: once per f.first.k
    0 A k=x, 1 A k=x, 2 A k=y
    -> 1: f1
## In any order
both, in either order
    a: A & b: B
    0 A, 1 B
    -> 1: a0 b1
the other way round
    a: A & b: B
    0 B, 1 A
    -> 1: a1 b0
every start is followed by itself
    a: A & b: B
    0 A, 1 B, 2 A
    -> 1: a0 b1; 2: a2 b1
within holds in any order
    a: A & b: B; within: 5 seconds
    0 B, 6 A, 11 B
    -> 11: a6 b11
after a step and before another
    x: X | a: A & b: B | c: C
    0 X, 1 B, 2 C, 3 A, 4 C
    -> 4: x0 a3 b1 c4
an event binds one of them
    a: A & b: A where v = 1
    0 A v=1, 1 A v=1
    -> 1: a0 b1
one of them several times
    a: 2 times A & b: B
    0 A, 1 B, 2 A
    -> 2: a2 b1
a bare absence holds until all have come
    c: C | no x: X | a: A & b: B
    0 C, 1 A, 2 X, 3 B, 10 C, 11 B, 12 A
    -> 12: c10 a12 b11
a silence starts with the last of them
    a: A & b: B | no x: X, for 10 seconds; within: 5 seconds
    0 B, 5 A, 14 X, 20 A, 21 B
    -> 31: a20 b21
or with the one that is named
    c: C | a: A & b: B | no x: X, for 10 seconds after a
    0 C, 1 A, 5 B, 12 X
    -> 11: c0 a1 b5
which breaks before the others come
    c: C | a: A & b: B | no x: X, for 10 seconds after a
    0 C, 1 A, 5 X, 6 B
    -> nothing
a later step may refer to each
    a: A & b: B | c: C where k = a.k and v = b.v
    0 B v=2, 1 A k=x, 2 C k=x v=1, 3 C k=x v=2
    -> 3: a1 b0 c3
once per a field of one of them
    a: A & b: B; repeat: once per a.k
    0 B, 1 B, 2 A k=x, 3 A k=y, 4 B
    -> 2: a2 b0; 4: a3 b4
## With nothing between
the very next
    a: A | b: next B
    0 A, 1 B
    -> 1: a0 b1
another event that the moment names stands between
    a: A | b: next B | c: C
    0 A, 1 C, 2 B, 3 C
    -> nothing
one that it does not name means nothing
    a: A | b: next B
    0 A, 1 X, 2 B
    -> 2: a0 b2
the event itself, where its condition fails
    a: A | b: next B where v = 1
    0 A, 1 B v=2, 2 B v=1
    -> nothing
a new start ends the one before
    a: A | b: next B
    0 A, 1 A, 2 B
    -> 2: a1 b2
two of them with nothing between
    a: A | b: next 2 times in a row B | c: C
    0 A, 1 B, 2 C, 3 B, 4 C, 10 A, 11 B, 12 B, 13 X, 14 C
    -> 14: a10 b12 c14
what is collected stands between nothing
    f: 2 to 3 times A | b: next B
    0 A, 1 A, 2 A, 3 B
    -> 3: f2 b3; 3: f2 b3
next after a silence
    a: A | no x: X, for 5 seconds | b: next B
    0 A, 3 B, 6 B, 10 A, 16 A, 17 B
    -> 6: a0 b6
## Time between steps
in time, its end included
    a: A | b: B within 5 seconds | c: C
    0 A, 5 B, 99 C
    -> 99: a0 b5 c99
too late
    a: A | b: B within 5 seconds | c: C
    0 A, 6 B, 99 C
    -> nothing
from a step that is named
    a: A | b: B | c: C within 5 seconds of a
    0 A, 2 B, 6 C, 10 A, 12 B, 15 C
    -> 15: a10 b12 c15
from the step before
    a: A | b: B | c: C within 5 seconds
    0 A, 2 B, 7 C
    -> 7: a0 b2 c7
several in time
    a: A | f: 2 times B within 5 seconds
    0 A, 1 B, 6 B
    -> nothing
a limit ends the collecting
    a: A | f: 1 to 9 times B within 5 seconds of a | c: C
    0 A, 1 B, 6 B, 7 C
    -> 7: a0 f1 c7
## Silence before the start
nothing in the time before
    no x: X, for 10 seconds before a | a: A
    0 X, 5 A, 10 A, 11 A
    -> 11: a11
a silence that was never broken
    no x: X, for 10 seconds before a | a: A
    0 A
    -> 0: a0
the start itself does not break it
    no x: A, for 10 seconds before a | a: A
    0 A, 5 A, 16 A
    -> 0: a0; 16: a16
only what fits breaks it
    no x: X where v = 1, for 10 seconds before a | a: A | b: B
    0 X v=2, 1 A, 2 X v=1, 3 A, 4 B
    -> 4: a1 b4
of the same instant, before it in order
    no x: X, for 10 seconds before a | a: A
    5 X, 5 A, 20 A, 20 X
    -> 20: a20
## One try at a time
a start counts only while none is open
    a: A | b: B; match: one_open
    0 A, 1 A, 2 B, 3 B, 4 A, 5 B
    -> 2: a0 b2; 5: a4 b5
what ends one does not start the next
    a: A | b: A; match: one_open
    0 A, 1 A, 2 A, 3 A
    -> 1: a0 b1; 3: a2 b3
a broken one makes room
    a: A | no x: X | b: B; match: one_open
    0 A, 1 A, 2 X, 3 B, 4 A, 5 B
    -> 5: a4 b5
one that is out of time makes room
    a: A | b: B; within: 5 seconds; match: one_open
    0 A, 5 A, 6 A, 7 B
    -> 7: a6 b7
a silence is open up to its end
    a: A | no x: X, for 10 seconds; match: one_open
    0 A, 5 A, 10 A, 11 A
    -> 10: a0; 21: a11
three of them, and then the next three
    f: 3 times A; match: one_open
    0 A, 1 A, 2 A, 3 A, 4 A, 5 A
    -> 2: f2; 5: f5
## Ties of time are ordered by source, then sequence, then message id
a tie in order
    a: A | b: B
    5 A, 5 B
    -> 5: a5 b5
a tie ordered by source
    a: A | b: B
    5 A from=q, 5 B from=p
    -> nothing
## One that may be missing
it was there
    a: A | b: maybe B | c: C where k = b.k or b.k is null
    0 A, 1 B k=x, 2 C k=x
    -> 2: a0 b1 c2
it was not
    a: A | b: maybe B | c: C
    0 A, 2 C
    -> 2: a0 c2
an event that fits both binds the later
    a: A | b: maybe B where v = 1 | c: B or C
    0 A, 1 B v=1, 2 C
    -> 1: a0 c1
several of it, and no more than asked for
    a: A | b: 0 to 2 times B | c: C
    0 A, 1 B, 2 B, 3 B, 4 C, 10 A, 11 C
    -> 4: a0 b2 c4; 11: a10 c11
too few of it are none
    a: A | b: maybe 2 times B | c: C where b.n is null
    0 A, 1 B, 2 C, 10 A, 11 B, 12 B, 13 C
    -> 2: a0 c2
two that may be missing
    a: A | b: maybe B | x: maybe X | c: C
    0 A, 1 X, 2 B, 3 C, 10 A, 11 B, 12 X, 13 C
    -> 3: a0 x1 c3; 13: a10 b11 x12 c13
what must not stand before it must not stand before what comes instead
    a: A | no x: X | b: maybe B | no y: Y | c: C
    0 A, 1 X, 2 C, 10 A, 11 B, 12 X, 13 C, 20 A, 21 Y, 22 C, 30 A, 31 Y, 32 B, 33 C
    -> 13: a10 b11 c13
a silence before it is awaited without it, too
    a: A | no x: X, for 5 seconds | b: maybe B | c: C
    0 A, 3 C, 6 C
    -> 6: a0 c6
the very next, or none
    a: A | b: maybe next B | c: C
    0 A, 1 A, 2 B, 3 C
    -> 3: a0 c3; 3: a1 b2 c3
## In a time of their own
three within a time, then whenever
    f: 3 times A within 5 seconds | b: B
    0 A, 2 A, 6 A, 7 A, 60 B
    -> 60: f7 b60
more of them only within it
    f: at least 2 times A within 5 seconds | b: B where v = f.n
    0 A, 5 A, 6 A, 60 B v=2
    -> 60: f5 b60; 60: f6 b60
of a later step
    a: A | f: 2 times B within 5 seconds of f
    0 A, 60 B, 65 B, 70 A, 80 B, 86 B
    -> 65: a0 f65
time passes what had too few
    a: A | b: maybe 2 times B | any(no x: X, for 5 seconds & y: Y) | c: C where b.n is null
    0 A, 1 B, 9 C
    -> 9: a0 c9
## Until
what ends the collecting
    f: at least 2 times A until X | b: B where v = f.n
    0 A, 1 A, 2 X, 3 A, 4 B v=2
    -> 4: f1 b4
before there are enough it ends the try
    f: 2 times A until X; within: 9 seconds
    0 A, 1 X, 2 A, 3 A
    -> 3: f3
an event that ends the collecting may bind the next step
    f: at least 1 times A until B | b: B
    0 A, 1 B
    -> 1: f0 b1
what would be one more and ends it, ends it
    f: at least 1 times A until A where v = 5 | b: B where v = f.n
    0 A v=1, 1 A v=2, 2 A v=5, 3 A v=1, 4 B v=2
    -> 4: f1 b4
## In a row, and a step that refers to itself
in a row
    f: 3 times in a row A | b: B
    0 A, 1 A, 2 B, 3 A, 4 A, 5 A, 6 B
    -> 6: f5 b6
more in a row until something else stands between
    a: A | f: at least 1 times in a row B | c: C where v = f.n
    0 A, 1 B, 2 B, 3 A, 4 B, 5 C v=2
    -> 5: a0 f2 c5
each more than the one before
    f: 3 times A where v > f.v or f.v is null
    0 A v=1, 1 A v=1, 2 A v=2, 3 A v=3
    -> 3: f3; 3: f3
## Whichever is first
the event
    a: A | any(b: B & no x: X, for 10 seconds) | c: C
    0 A, 5 B, 6 C
    -> 6: a0 b5 c6
the silence
    a: A | any(b: B & no x: X, for 10 seconds) | c: C
    0 A, 5 C, 11 C
    -> 11: a0 c11
a broken silence leaves the event
    a: A | any(b: B & no x: X, for 10 seconds) | c: C
    0 A, 5 X, 11 C, 12 B, 13 C
    -> 13: a0 b12 c13
at the end an event
    a: A | any(b: B & no x: X, for 10 seconds)
    0 A, 5 B, 11 X
    -> 5: a0 b5
at the end a silence
    a: A | any(b: B & no x: X, for 10 seconds)
    0 A, 11 B
    -> 10: a0
one of two events, each with its name
    a: A | any(b: B & x: X) | c: C where b.k = 'x' or x.k = 'x'
    0 A, 1 X k=x, 2 C, 10 A, 11 B k=y, 12 C
    -> 2: a0 x1 c2
one of two silences
    a: A | any(no x: X, for 10 seconds & no y: Y, for 10 seconds)
    0 A, 1 X, 20 A, 21 X, 22 Y
    -> 10: a0
the first of them
    a: A | any(b: B & c: C)
    0 B, 1 A, 2 C
    -> 2: a1 c2
too few when the other came are none
    a: A | any(b: 2 times B & c: C) | y: Y where b.k is null
    0 A, 1 B k=x, 2 C, 3 Y
    -> 3: a0 c2 y3
a silence that goes on in the next
    a: A | any(b: B & no x: X, for 5 seconds) | no y: Y, for 5 seconds
    0 A, 20 A, 22 B, 40 A, 46 Y
    -> 10: a0; 27: a20 b22
## A silence beside an event, in any order
first the event
    a: A | b: B & no x: X, for 10 seconds | c: C
    0 A, 5 B, 6 C, 11 C
    -> 11: a0 b5 c11
first the silence
    a: A | b: B & no x: X, for 10 seconds
    0 A, 15 B
    -> 15: a0 b15
it is broken
    a: A | b: B & no x: X, for 10 seconds
    0 A, 5 B, 9 X
    -> nothing
both at the end
    a: A | b: B & no x: X, for 10 seconds
    0 A, 5 B
    -> 10: a0 b5
## For any time: a silence that begins again when it is broken
at last there is quiet
    a: A | no x: X, for any 10 seconds
    0 A, 5 X, 14 X
    -> 24: a0
before the next step
    a: A | no x: X, for any 10 seconds | b: B
    0 A, 5 X, 12 B, 16 B
    -> 16: a0 b16
as a part
    a: A | any(b: B & no x: X, for any 10 seconds) | c: C
    0 A, 5 X, 14 C, 16 C
    -> 16: a0 c16
## Groups that start again
each time it is passed
    a: A | again[b: B then c: C]
    0 A, 1 B, 2 C, 3 B, 4 B, 5 C
    -> 2: a0 b1 c2; 5: a0 b3 c5
the steps after it are for each
    a: A | again[b: B] | c: C
    0 A, 1 B, 2 B, 3 C, 4 C
    -> 3: a0 b1 c3; 3: a0 b2 c3
a reminder for every period of silence
    a: A | again[no x: X, for 10 seconds]; within: 35 seconds
    0 A
    -> 10: a0; 20: a0; 30: a0; 40: a0
until it is broken
    a: A | again[no x: X, for 10 seconds]
    0 A, 25 X
    -> 10: a0; 20: a0
a silence, then an event, again and again
    a: A | again[no x: X, for 10 seconds then b: B]
    0 A, 5 B, 11 B, 15 B, 22 B
    -> 11: a0 b11; 22: a0 b22
whichever is first, again and again
    a: A | again[any(b: B & no x: X, for 10 seconds)] | c: C; within: 20 seconds
    0 A, 4 B, 15 C
    -> 15: a0 b4 c15; 15: a0 c15
## Every way: match all
a later event that fits may be meant too
    a: A | b: any B; match: all
    0 A, 1 B, 2 B
    -> 1: a0 b1; 2: a0 b2
without any the first that fits
    a: A | b: B; match: all
    0 A, 1 B, 2 B
    -> 1: a0 b1
each number of events
    a: A | f: 1 to 3 times B | c: C where v = f.n; match: all
    0 A, 1 B, 2 B, 3 B, 4 B, 5 C v=2, 6 C v=3
    -> 5: a0 f2 c5; 6: a0 f3 c6
the last of them, too
    a: A | f: 1 to 2 times B; match: all
    0 A, 1 B, 2 B, 3 B
    -> 1: a0 f1; 2: a0 f2
with it and without it
    a: A | b: maybe B | c: C; match: all
    0 A, 1 B, 2 C
    -> 2: a0 c2; 2: a0 b1 c2
a last one may come yet
    a: A | b: maybe B; match: all
    0 A, 5 B
    -> 0: a0; 5: a0 b5
any of those between
    a: A | f: 2 times any B | c: C; match: all
    0 A, 1 B, 2 B, 3 B, 4 C
    -> 4: a0 f2 c4; 4: a0 f3 c4
until ends every way
    a: A | f: at least 1 times B until X | c: C where v = f.n; match: all
    0 A, 1 B, 2 X, 3 B, 4 C v=1, 5 C v=2
    -> 4: a0 f1 c4
"""


def told(text: str) -> list[tuple[str, str, dict[str, str], str, list[str]]]:
    """Stories as (title, steps, options, events, what fires)."""
    lines = [line for line in text.splitlines() if line and not line.startswith("##")]
    stories = []
    for title, declared, events, fired in (lines[n : n + 4] for n in range(0, len(lines), 4)):
        steps, *options = declared.split(";")
        named = dict(each.strip().split(": ", 1) for each in options)
        expected = fired.strip().removeprefix("-> ")
        stories.append((title, steps, named, events, [] if expected == "nothing" else expected.split("; ")))
    return stories


@pytest.mark.parametrize(
    ("steps", "options", "line", "expected"),
    [story[1:] for story in told(STORIES)],
    ids=[story[0] for story in told(STORIES)],
)
def test_story(steps: str, options: dict[str, str], line: str, expected: list[str]) -> None:
    assert fires(pattern_of(steps, **options), line) == expected


def test_who_is_judged_at_the_first_step() -> None:
    pattern = pattern_of(AB, who="customer.plan = 'private'")
    run = Run()
    first, second, third = events_of("0 A, 1 A, 2 B")
    assert matcher.observe(pattern, run, first, {"plan": "private"}) == []
    assert matcher.observe(pattern, run, second, {"plan": "company"}) == []
    assert shown(matcher.observe(pattern, run, third, {"plan": "company"})) == ["2: a0 b2"]
    assert packed(run) is None


def test_an_absence_waits_for_late_events() -> None:
    pattern = pattern_of("a: A | no x: X, for 10 seconds")
    run, matches = matcher.step(pattern, Run(), events_of("0 A"), 14 * SECOND, lateness_s=5)
    assert matches == [] and matcher.next_due(run) == 10 * SECOND
    later, matches = matcher.step(pattern, run, [], 15 * SECOND, lateness_s=5)
    assert shown(matches) == ["10: a0"] and packed(later) is None
    assert matches[0].deadline == 10 * SECOND
    # The pure form left what it was given: it can be moved again, and gives the same.
    assert shown(matcher.step(pattern, run, [], 15 * SECOND, lateness_s=5)[1]) == ["10: a0"]


def test_captured_values_are_those_that_are_read() -> None:
    pattern = pattern_of("a: A | b: B where k = a.k", repeat="once per b.v")
    (match,) = matcher.step(pattern, Run(), events_of("0 A k=x v=1, 2 B k=x v=7"), FAR, 0)[1]
    assert [bound.values for bound in match.bound] == [{"k": "x"}, {"v": 7.0}]
    assert match.repeat_key == 7.0


def test_a_number_beyond_64_bits_can_be_stored() -> None:
    assert standing.storable({"n": [10**30, 5], "m": 2**63}) == {"n": [None, 5], "m": None}


def test_every_event_of_a_step_is_kept() -> None:
    pattern = pattern_of("f: at least 2 times A | b: B where k = f.first.k and v = f.n and v <> f.v")
    line = "0 A k=x v=1, 1 A k=y v=2, 2 A v=4, 3 B k=x v=3"
    match = matcher.step(pattern, Run(), events_of(line), 9 * SECOND, 0)[1][0]
    several = match.bound[0]
    assert [each.occurred_at // SECOND for each in several.all] == [0, 1, 2]
    assert several.values == {"v": 4.0, "first.k": "x", "n": 3}
    assert several.first.event_id == match.start_id


@pytest.mark.parametrize("group", ["b: any B", "b: 1 to 2 times B", "b: any B then no x: X, for 1 second"])
def test_every_way_has_an_identity_of_its_own_also_by_the_rounds_before(group: str) -> None:
    pattern = pattern_of(f"a: A | again[{group}]", match="all")
    _, matches = matcher.step(pattern, Run(), events_of("0 A, 1 B, 3 B, 5 B, 7 B"), FAR, 0)
    assert len(matches) > 6
    assert len({(each.start_id, each.way) for each in matches}) == len(matches)


def test_fields_of_the_events_in_between_are_not_kept() -> None:
    pattern = pattern_of("f: at least 2 times A where k <> f.k or f.k is null | b: B where k = f.first.k")
    run, _ = matcher.step(pattern, Run(), events_of("0 A k=x, 1 A k=y, 2 A k=z"), FAR, 0)
    kept = [each.values for each in run.partials[0].bound[0].all]
    assert kept == [{}, {}, {"k": "z", "first.k": "x"}]


def test_the_start_is_the_event_that_opened_it() -> None:
    pattern = pattern_of("a: A & b: B")
    events = events_of("0 B, 1 A, 2 B")
    matches = matcher.step(pattern, Run(), events, FAR, 0)[1]
    assert [match.start_id for match in matches] == [events[0].event_id, events[1].event_id]


def test_what_breaks_a_silence_before_the_start_is_kept_and_withdrawn() -> None:
    pattern = pattern_of("no x: X, for 10 seconds before a | a: A")
    run, _ = matcher.step(pattern, Run(), events_of("0 X"), FAR, 0)
    assert packed(run) is not None
    matcher.withdraw(run, SECOND)
    assert packed(run) is None


def test_withdrawn_consent_drops_what_is_open() -> None:
    pattern = pattern_of("a: A | b: B | no x: X, for 10 seconds")
    run = Run()
    for each in events_of("0 A, 1 B, 20 A, 21 B, 22 A"):
        matcher.observe(pattern, run, each, {})
    matcher.withdraw(run, 25 * SECOND)
    assert shown(matcher.settle(pattern, run, FAR * SECOND)) == ["11: a0 b1"]
    assert packed(run) is None


def test_withdrawal_at_the_very_deadline_drops_it() -> None:
    pattern = pattern_of("a: A | no x: X, for 10 seconds")
    run = Run()
    matcher.observe(pattern, run, events_of("0 A")[0], {})
    matcher.withdraw(run, 10 * SECOND)
    assert packed(run) is None


def test_open_partials_are_bounded_and_counted() -> None:
    starts = ", ".join(f"{n} A" for n in range(matcher.OPEN_MAX + 2))
    run, matches = matcher.step(pattern_of(AB), Run(), events_of(f"{starts}, 100 B"), 100 * SECOND, 0)
    assert [match.bound[0].occurred_at // SECOND for match in matches] == list(range(2, matcher.OPEN_MAX + 2))
    assert run.n_dropped == 2


def test_the_bound_counts_only_what_is_open_then() -> None:
    starts = ", ".join(f"{n} A" for n in range(matcher.OPEN_MAX))
    line = f"{starts}, 75 A, 76 B"
    dead = matcher.step(pattern_of(AB, within="11 seconds"), Run(), events_of(line), 80 * SECOND, 0)
    assert dead[0].n_dropped == 0 and shown(dead[1]) == ["76: a75 b76"]
    # Silences that are over, and only wait for late events, are not open either.
    over = matcher.step(
        pattern_of("a: A | no x: X, for 5 seconds"), Run(), events_of(line), 80 * SECOND, 1000
    )
    assert over[0].n_dropped == 0 and len(over[0].partials) == matcher.OPEN_MAX + 1


def test_a_silence_that_ends_at_this_instant_is_still_open() -> None:
    starts = ", ".join("0 A" for _ in range(matcher.OPEN_MAX))
    pattern = pattern_of("a: A | no x: X, for 5 seconds")
    assert matcher.step(pattern, Run(), events_of(f"{starts}, 5 A"), 5 * SECOND, 1000)[0].n_dropped == 1
    assert matcher.step(pattern, Run(), events_of(f"{starts}, 6 A"), 6 * SECOND, 1000)[0].n_dropped == 0


def test_an_event_without_a_part_in_the_pattern_changes_nothing() -> None:
    run = Run()
    first, other = events_of("0 A, 9999 X")
    matcher.observe(pattern_of(AB), run, first, {})
    before = msgspec.msgpack.encode(run)
    assert matcher.observe(pattern_of(AB), run, other, {}) == []
    assert msgspec.msgpack.encode(run) == before


def test_a_run_does_not_depend_on_how_often_it_was_looked_at() -> None:
    pattern = pattern_of(AB, within="9 seconds")
    dead, _ = matcher.step(pattern, Run(), events_of("0 A"), 0, 0)
    assert matcher.step(pattern, dead, [], FAR * SECOND, 0)[0] == dead
    # What is over leaves with the next event that has a part in the pattern.
    assert packed(matcher.step(pattern, dead, events_of("10 B"), 10 * SECOND, 0)[0]) is None


def test_an_idle_run_is_nothing_and_a_waiting_one_is_small() -> None:
    assert packed(matcher.step(pattern_of(AB), Run(), events_of("0 X, 1 B"), FAR, 0)[0]) is None
    run, _ = matcher.step(pattern_of("a: A | no x: X, for 1 day"), Run(), events_of("0 A"), SECOND, 0)
    assert len(msgspec.msgpack.encode(packed(run))) < 80
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(run), type=Run) == run
