"""One function alone holds the sender, and whatever it sends was looked at again in the claim.

Shown twice: on the syntax tree, where nothing else may name the network's methods or hold a network, and at
run time, where a network looks at who calls it and at what was claimed. Bugs that are planted must be found.
"""

from __future__ import annotations

import ast
import email
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from crashing import Life
from holding import everything_holds
from syntax import ROOT, File, house, parsed
from world import TOML, World, moment, project

from hetki.dialogues.destination import Destination
from hetki.dialogues.message import Message
from hetki.engine import deliver as delivering
from hetki.engine.engine import Engine
from hetki.store.network import SystemNet
from hetki.store.ports import Net, Sent

DELIVER, WORKER = "hetki/engine/deliver.py", "hetki/server/worker.py"
#: Every use of a method that is called as one of the network's: file, function, expression.
SENDS = {(DELIVER, "_send", "net.post"), (DELIVER, "_send", "net.mail")}
NAMESAKES = {
    ("hetki/engine/deciding.py", "decide_all", "ledger.post"),  # into the outbox
    ("hetki/simulation/restaurants.py", "receive_mail", "self._receiver.mail"),  # the receiving end
}
#: The files that may name a network at all; those of the simulation have no way out.
HOLDERS = {
    *(DELIVER, WORKER, "hetki/store/ports.py", "hetki/store/network.py"),
    *("hetki/simulation/world.py", "hetki/simulation/demo.py"),
}
NETWORKS = {"Net", "SystemNet", "LocalNet"}


# --- on the syntax tree -------------------------------------------------------------------------------


def nodes(file: File) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Every node with the name of the function around it, and its parent."""

    def below(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            yield function, child, node
            name = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            yield from below(child, name)

    return below(file.tree, "")


def others_that_send(files: list[File]) -> list[str]:
    """The network's methods are called by one function, and neither kept nor got by their names."""
    found, breaches = set(), []
    for file in files:
        for function, node, parent in nodes(file):
            if isinstance(node, ast.Attribute) and node.attr in ("post", "mail"):
                found.add((file.path, function, ast.unparse(node)))
                if not (isinstance(parent, ast.Call) and parent.func is node):
                    breaches.append(f"{file.path}: {function} keeps {ast.unparse(node)}")
            is_name = isinstance(node, ast.Constant) and node.value in ("post", "mail")
            is_key = isinstance(parent, ast.Dict) and node in parent.keys  # as in a description of HTTP
            if is_name and not is_key and file.room in ("store", "engine", "server", "cli"):
                breaches.append(f"{file.path}: {function} names a method of the network")
    breaches += [f"{each}: calls the network's method" for each in found - SENDS - NAMESAKES]
    return breaches + [f"{each}: is not there" for each in SENDS - found]


def others_that_hold(files: list[File]) -> list[str]:
    """A network is made by the worker, handed on to `deliver`, from there to `_send`, and nowhere else."""
    breaches = []
    for file in files:
        for function, node, parent in nodes(file):
            named = getattr(node, "id", getattr(node, "attr", None))
            if isinstance(node, ast.alias):
                named = node.name
            where = f"{file.path}:{getattr(node, 'lineno', 0)}: {function}"
            if named in NETWORKS and file.path not in HOLDERS:
                breaches.append(f"{where} names {named}")
            if named == "SystemNet" and file.path == WORKER and not isinstance(node, ast.alias):
                if function != "_work_under" or "net=SystemNet(declared.inside)" not in ast.unparse(
                    next(call for _, call, _ in nodes(file) if _is_call(call, "partial", "net"))
                ):
                    breaches.append(f"{where} makes a network")
            if file.path in (DELIVER, WORKER) and isinstance(node, ast.Name) and node.id == "net":
                to = {"deliver": "_send", "_deliver": "deliver", "_send": None}.get(function, "")
                handed = isinstance(parent, ast.Call) and getattr(parent.func, "id", "") == to
                if not (handed or (to is None and isinstance(parent, ast.Attribute))):
                    breaches.append(f"{where} holds a network")
    return breaches


def _is_call(node: ast.AST, name: str, keyword: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == name
        and keyword in [each.arg for each in node.keywords]
    )


def ways_past_the_claim(files: list[File]) -> list[str]:
    """`_send` is called by `deliver` alone, with what `_claim` gave, which looks in its transaction."""
    breaches = []
    for file in files:
        for function, node, _ in nodes(file):
            is_named = isinstance(node, ast.Name) and node.id in ("_send", "_claim") and file.path == DELIVER
            is_imported = isinstance(node, ast.alias) and node.name in ("_send", "_claim")
            is_private = isinstance(node, ast.Attribute) and node.attr in ("_send", "_claim")
            is_reached = is_private and "deliver" in ast.unparse(node)
            if (is_named and function != "deliver") or is_imported or is_reached:
                breaches.append(f"{file.path}: {function}: {ast.unparse(node)}")
    [file] = [each for each in files if each.path == DELIVER]
    functions = {each.name: each for each in file.functions()}
    given = [ast.unparse(each) for each in ast.walk(functions["deliver"]) if _assigns(each, "message")]
    if given != ["message, n_stopped = _claim(engine, destination)"]:
        breaches.append(f"deliver takes a message from elsewhere: {given}")
    calls = [each for each in ast.walk(functions["deliver"]) if isinstance(each, ast.Call)]
    sends = [ast.unparse(each) for each in calls if getattr(each.func, "id", "") == "_send"]
    if sends != ["_send(engine, net, declared, message)"]:
        breaches.append(f"deliver sends {sends}")
    return breaches + _claims_without_a_look(functions["_claim"])


def _assigns(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    found = [inner for target in targets if target is not None for inner in ast.walk(target)]
    return any(
        isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Store) for each in found
    )


def _claims_without_a_look(claim: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """A message leaves `_claim` by one return: in the transaction, behind the look, and marked as claimed."""
    inside = [each for each in ast.walk(claim) if isinstance(each, ast.With)]
    given = [
        each for each in ast.walk(claim) if isinstance(each, ast.Return) and "None" not in ast.unparse(each)
    ]
    if [ast.unparse(each.items[0]) for each in inside] != ["transaction(engine.db)"] or len(given) != 1:
        return ["_claim has another transaction, or another way out"]
    loops = [each for each in ast.walk(inside[0]) if isinstance(each, ast.For)]
    if len(loops) != 1 or given[0] not in list(ast.walk(loops[0])):
        return ["_claim gives a message from outside its transaction"]
    *skips, look, judged = loops[0].body
    if any(not isinstance(each, ast.If) or ast.unparse(each.body) != "continue" for each in skips):
        return ["_claim does more than to pass over a message before it looks"]
    if ast.unparse(look) != "stop, until = second_look(engine, message, now)" or not isinstance(
        judged, ast.If
    ):
        return ["_claim does not look again"]
    waits = judged.orelse[0]
    if not isinstance(waits, ast.If) or (ast.unparse(judged.test), ast.unparse(waits.test)) != (
        "stop",
        "until is not None",
    ):
        return ["_claim does not heed what it saw"]
    first, *_, last = waits.orelse
    if last is not given[0] or "'claimed'" not in ast.unparse(first):
        return ["_claim gives what is not marked as claimed"]
    return []


RULES = (others_that_send, others_that_hold, ways_past_the_claim)
#: Planted: a file that is added, or what is changed in a real one.
PLANTED: dict[str, tuple[str, ...]] = {
    "another file sends": ("hetki/server/x.py", "def f(net): return net.post('u', {}, b'', 1)"),
    "another file has one": ("hetki/engine/x.py", "from hetki.store import network\nnetwork.SystemNet()"),
    "another file imports one": ("hetki/cli/x.py", "from hetki.store.network import SystemNet as Other"),
    "it is got by name": ("hetki/engine/x.py", "def f(a): return getattr(a, 'mail')()"),
    "the way in is imported": ("hetki/engine/x.py", "from hetki.engine.deliver import _send as go"),
    "the way in is reached": ("hetki/server/x.py", "from hetki.engine import deliver\ndeliver._send(1, 2)"),
    "the worker keeps it": (WORKER, "    delivered = ", "    f(net)\n    delivered = "),
    "the worker sends": (WORKER, "    delivered = ", "    net.mail()\n    delivered = "),
    "the worker has a second": (WORKER, "def _lake(", "def _other(): f(SystemNet())\n\ndef _lake("),
    "it is handed on": (DELIVER, "    declared = ", "    other(net)\n    declared = "),
    "a method is kept": (DELIVER, "    now = engine.clock.now()\n    try:", "    f = net.post\n    try:"),
    "another function sends": (DELIVER, "def secret_of", "def f(a): _send(a)\n\ndef secret_of"),
    "a second message": (DELIVER, "    counts[_rec", "    message = f()\n        counts[_rec"),
    "no transaction": (DELIVER, "with transaction(engine.db):\n        prog", "with f():\n        prog"),
    "no look": (DELIVER, "stop, until = second_look(engine, message, now)", 'stop, until = "", None'),
    "a look that is not heeded": (DELIVER, "            if stop:", "            if stop and now:"),
    "a claim that is not kept": (DELIVER, '"claimed", "", now + CLAIM_S', '"waiting", "", now + CLAIM_S'),
    "a way out": (DELIVER, " stop, until = s", " if now: return message, 0\n            stop, until = s"),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_one_function_alone_holds_the_sender(rule: Callable[[list[File]], list[str]]) -> None:
    assert rule(house()) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_way_out_is_found_in_the_source(name: str) -> None:
    path, was, *becomes = PLANTED[name]
    texts = {each: (ROOT / "src" / each).read_text("utf-8") for each in (DELIVER, WORKER)}
    if becomes:
        assert texts[path].count(was) == 1, "the patch no longer fits"
        texts[path] = texts[path].replace(was, becomes[0])
    else:
        texts[path] = was
    files = [parsed(each, text) for each, text in texts.items()]
    assert any(rule(files) for rule in RULES)


# --- at run time --------------------------------------------------------------------------------------


class Watching:
    """A network that lets through what `deliver` claimed and looked at, and fails for all else.

    `looks` are the ids that the last look let through, each until it is sent; `n_sent` counts what was sent.
    """

    def __init__(self, inner: Net, looker: Callable[[], sqlite3.Connection]) -> None:
        self.inner = inner
        self.looker = looker
        self.looks: set[str] = set()
        self.n_sent: Counter[str] = Counter()
        self.wrong: list[str] = []

    def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Sent:
        self._judge(headers["webhook-id"])
        return self.inner.post(url, headers, body, timeout_s)

    def mail(self, server: str, sender: str, recipient: str, message: bytes, timeout_s: float) -> Sent:
        self._judge(email.message_from_bytes(message)["Message-ID"].strip("<>").partition("@")[0])
        return self.inner.mail(server, sender, recipient, message, timeout_s)

    def _judge(self, message_id: str) -> None:
        self.n_sent[message_id] += 1
        frame, codes = sys._getframe(2), []
        while frame is not None and len(codes) < 2:
            codes.append(frame.f_code)
            frame = frame.f_back  # type: ignore[assignment]
        if codes != [REAL_SEND.__code__, delivering.deliver.__code__]:
            self.wrong.append(f"{message_id} was sent by {[each.co_name for each in codes]}")
        if message_id not in self.looks:
            self.wrong.append(f"{message_id} was not looked at again")
        self.looks.discard(message_id)
        row = (
            self.looker().execute("SELECT status FROM outbox WHERE message_id = ?", (message_id,)).fetchone()
        )
        if row != ("claimed",):
            self.wrong.append(f"{message_id} is {row}, not claimed, for everybody else")

    def look(self, engine: Engine, message: Message, now: int) -> tuple[str, int | None]:
        """The real second look, remembered if it was made inside a transaction and found nothing."""
        found = REAL_LOOK(engine, message, now)
        if engine.db.in_transaction and found == ("", None):
            self.looks.add(message.message_id)
        return found


REAL_LOOK, REAL_SEND = delivering.second_look, delivering._send


def watched_lives(patch: pytest.MonkeyPatch, seeds: range) -> Iterator[Watching]:
    """Crash lives (tests/crashing.py) on such a network: faults, repeats, withdrawals, late events."""
    for seed in seeds:
        life = Life(seed)
        watching = Watching(life.net, lambda life=life: life.disk.connect("state.db"))  # type: ignore[misc]
        patch.setattr(delivering, "second_look", watching.look)
        life.net = watching  # type: ignore[assignment]
        life.live()
        everything_holds(life)
        yield watching


def test_whatever_is_sent_was_claimed_and_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    n_sent: Counter[int] = Counter()
    for watching in watched_lives(monkeypatch, range(40)):
        assert watching.wrong == []
        n_sent.update(watching.n_sent.values())
    assert sum(n_sent.values()) > 40 and max(n_sent) > 1, "some are sent again"


HELP = moment("help", "a: Help Searched where n_results = 0", more="expires: 2 days")


def no_look(patch: pytest.MonkeyPatch, world: World) -> None:
    """The claim takes what is due."""
    patch.setattr(delivering, "second_look", lambda engine, message, now: ("", None))


def no_claim(patch: pytest.MonkeyPatch, world: World) -> None:
    """What is due is sent without a claim."""

    def take(engine: Engine, destination: str) -> tuple[Message | None, int]:
        ready = engine.ledger.ready(destination, engine.clock.now(), 1)
        return (ready[0], 0) if ready else (None, 0)

    patch.setattr(delivering, "_claim", take)


def another_caller(patch: pytest.MonkeyPatch, world: World) -> None:
    """A function of somebody else calls the network, with what was claimed."""
    patch.setattr(delivering, "_send", elsewhere)


def elsewhere(engine: Engine, net: Net, destination: Destination, message: Message) -> Sent:
    return net.post("http://app/", {"webhook-id": message.message_id}, b"{}", 1)


@pytest.mark.parametrize("bug", [None, no_look, no_claim, another_caller])
def test_a_planted_way_out_is_found_when_it_is_used(
    bug: Callable[[pytest.MonkeyPatch, World], None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(project(HELP))
    world.live("10:00 web u=anna Help Searched n_results=0")
    watching = Watching(world.net, lambda: world.disk.connect("state.db"))
    monkeypatch.setattr(delivering, "second_look", watching.look)
    if bug:
        bug(monkeypatch, world)
    delivering.deliver(world.engine, watching, "app", 1)
    assert sum(watching.n_sent.values()) == 1
    assert bool(watching.wrong) is (bug is not None)


# --- a refused address is a failed delivery -----------------------------------------------------------


def test_a_name_that_leads_inside_is_a_failed_delivery_with_its_reason() -> None:
    """Declared as any other host; what it resolves to is known only when it is sent."""
    opened = 'url = "http://localhost:9/app"\ninside = ["localhost"]'
    toml = TOML.replace(opened, 'url = "https://app.example/hook"')
    world = World(project(HELP | {"hetki.toml": toml}))
    world.live("10:00 web u=anna Help Searched n_results=0")
    declared = world.engine.project.destinations["app"]
    assert declared.faults("app") == []
    answers = iter((["10.0.0.7"], ["93.184.216.34", "169.254.169.254"]))
    net = SystemNet(declared.inside, resolve=lambda name: next(answers))
    for reason in ("not sent: its address is private", "not sent: its address is metadata of a cloud"):
        done = delivering.deliver(world.engine, net, "app")
        assert (done.n_waiting, done.n_sent) == (1, 0)
        ((status, detail, due_at),) = world.rows("SELECT status, detail, due_at FROM outbox")
        assert (status, detail) == ("waiting", reason)
        assert isinstance(due_at, int)
        world.clock.move(due_at)
    assert [row[0] for row in world.rows("SELECT detail FROM attempts ORDER BY n_attempt")] == [
        "not sent: its address is private",
        "not sent: its address is metadata of a cloud",
    ]
