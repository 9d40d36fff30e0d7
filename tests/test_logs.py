"""No personal data in logs: random words in every field and channel are looked for in what is logged.

Real processes, with every logger at DEBUG and exceptions planted that carry the words in their texts. The
lines must be there, or nothing was looked at; the same records in the usual format must show the words.
"""

from __future__ import annotations

import ast
import json
import logging
import random
import re
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from keyed import entry
from serving import Command, eventually, post, start
from syntax import File, house, parsed

from hetki.errors import Fault, Invalid, Unavailable
from hetki.server import logs
from hetki.server.site import COOKIE
from hetki.server.visit import token_of

WORDS = random.Random(7)


def word(name: str) -> str:
    return f"{name[:2]}{WORDS.randbytes(8).hex()}"


#: Planted exceptions, each with a word of its own in its text, in the server and in its worker.
PLANTS = """
import asyncio, json, logging, os, sqlite3, sys, threading, warnings
told = " ".join(sys.orig_argv)
if " serve " in told or "spawn_main" in told:
    words = json.loads(os.environ["PLANTED"])
    planted = set()
    set_level = logging.Logger.setLevel
    logging.Logger.setLevel = lambda logger, level: set_level(logger, logging.DEBUG)

    def once(holder, name, error):
        real = getattr(holder, name)
        def fails(*given, **more):
            if name in planted:
                return real(*given, **more)
            planted.add(name)
            try:
                raise KeyError(words[name])
            except KeyError as cause:
                raise error(words[name] + repr(given)) from cause
        setattr(holder, name, fails)

    import hetki.engine.accept, hetki.server.ingest, hetki.server.people, hetki.store.network
    import hetki.server.worker as worker
    if "spawn_main" in told:
        once(worker, "advance_once", ValueError)
        once(worker, "refresh", RuntimeError)
        once(hetki.store.network.SystemNet, "post", RuntimeError)
    else:
        once(hetki.server.people, "customers", TypeError)
        accept = hetki.engine.accept.Acceptor.accept
        def accepts(self, parsed):
            if any(b"explode-commit" in each.properties for one in parsed for each in one.events):
                raise sqlite3.IntegrityError(f"UNIQUE constraint failed: {words['commit']} {parsed}")
            return accept(self, parsed)
        hetki.engine.accept.Acceptor.accept = accepts

        class Finalized:
            def __del__(self):
                raise ValueError(words["finalizer"])

        async def lost():
            raise ValueError(words["task"])

        def thread():
            raise ValueError(words["thread"])

        read = hetki.server.ingest.Ingest._read
        def reads(self, body, *more):
            if b"explode-read" in body:
                Finalized()
                warnings.warn(words["warning"])
                logging.getLogger("library").error("%s", words["library"])
                threading.Thread(target=thread).start()
                asyncio.get_running_loop().create_task(lost())
                raise ValueError(words["read"] + repr(body))
            return read(self, body, *more)
        hetki.server.ingest.Ingest._read = reads
"""
PLANTED = "advance_once refresh post customers commit finalizer task thread warning library read".split()
#: What must stand in the log for each plant, so that it is seen that it was logged.
LINES = {
    "advance_once": r"log=hetki\.worker loop=advance failed .*error=ValueError at=sitecustomize:\d+,hetki",
    "refresh": r"log=hetki\.worker loop=lake failed .*error=RuntimeError .* from error=KeyError at=sitecust",
    "post": r"log=hetki\.worker loop=app failed .*error=RuntimeError at=sitecustomize:\d+,hetki\.engine\.del",
    "customers": r"log=uvicorn\.error Exception in ASGI application error=TypeError at=sitecustomize",
    "commit": r"log=hetki\.server commit failed n_requests=1 error=IntegrityError at=sitecustomize",
    "finalizer": r"log=hetki\.logs finalizer=failed error=ValueError",
    "task": r"log=asyncio at=\S+ error=ValueError",
    "thread": r"log=hetki\.logs thread=ended error=ValueError",
    "warning": r"level=warning log=py\.warnings at=",
    "library": r"level=error log=library at=",
    "read": r"log=uvicorn\.error Exception in ASGI application error=ValueError at=sitecustomize",
    "declaration": r"log=hetki\.worker declarations=refused fault=moments/viewed\.yaml:",
    "debug": r"level=info log=uvicorn\.error Started server process",
}
FIELDS = (
    "user anonymous email phone name city query message device page external previous header rejected "
    "broken key cookie path search said_by declared text line agent"
).split()

FILES = {
    "hetki.toml": """
[hetki]
name = "Logged"
lateness_s = 0
[purposes.service]
title = "What you came for"
basis = "contract"
[destinations.app]
kind = "webhook"
url = "http://127.0.0.1:9/messages"
inside = ["localhost"]
secret = "env:APP_SECRET"
""",
    "initiatives/help.yaml": "initiative: help\ntitle: h\nowner: t\nhorizon: mainstream\n",
    "actions/call.yaml": (
        "action: call\ntitle: c\npurpose: service\ndestination: app\ntemplate: call\nvalue: {customer: 4}\n"
    ),
    "templates/call.liquid": "Hello {{ customer.name }}, {{ viewed.query }}.",
    "moments/viewed.yaml": """
moment: viewed
title: v
owner: t
initiative: help
purpose: service
identify: {need: "?", steps: [viewed: Help Searched], expires: 1 day}
design: {answers: [call]}
analyse: {solved: no Contact Started within 24 hours, holdout: 0%}
""",
    "sources/web.yaml": (
        f"source: web\nchannel: web\nwrite_keys: [{entry('key-web')}]\npurposes: [service]\n"
    ),
}


class Canaries:
    """A served project, and words in all that it is told."""

    def __init__(self, folder: Path) -> None:
        self.words = {name: word(name) for name in [*FIELDS, *(f"planted {each}" for each in PLANTED)]}
        self.folder = folder / "project"
        for name, text in FILES.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        plants = folder / "plants"
        plants.mkdir()
        (plants / "sitecustomize.py").write_text(PLANTS)
        environment = {
            "PYTHONPATH": ":".join([str(plants), *(each for each in sys.path if each)]),
            "PLANTED": json.dumps({each: self.words[f"planted {each}"] for each in PLANTED}),
            "APP_SECRET": "whsec_" + "c2VjcmV0" * 4,
        }
        self.server: Command = start(
            folder, "serve", "-C", str(self.folder), "--port", "0", environment=environment
        )
        self.address = self.server.address()

    def event(self, kind: str, /, **properties: object) -> dict[str, object]:
        its = self.words
        return {
            "type": "identify" if kind == "Customer Identified" else "track",
            "event": kind,
            "messageId": its["message"] + kind,
            "userId": its["user"],
            "anonymousId": its["anonymous"],
            "traits" if kind == "Customer Identified" else "properties": properties,
            "context": {
                "device": {"id": its["device"]},
                "externalIds": [{"type": "loyalty", "id": its["external"], "collection": "users"}],
                "page": {"path": its["page"]},
                "traits": {"email": f"{its['email']}@kauppa.fi", "phone": its["phone"]},
            },
        }

    def send(self, *events: object, key: str = "key-web") -> int:
        body = json.dumps({"batch": events, "writeKey": key}).encode()
        return post(self.address, f"/v1/batch?{self.words['path']}", body, {"x-more": self.words["header"]})[
            0
        ]

    def raw(self, said: bytes) -> bytes:
        with socket.create_connection(self.address, timeout=30) as one:
            one.sendall(said)
            return one.recv(65_536)

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str, str]:
        connection = HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.getheader("set-cookie", "")
        finally:
            connection.close()

    def told(self) -> str:
        """All that server and worker said but where the console is."""
        return "\n".join(line for line in self.server.text().splitlines() if not line.startswith("Console:"))

    def live(self) -> None:
        self.take_in()
        self.sign_in_and_act()
        for name in ("advance_once", "post", "refresh"):
            self.says(name)
        moment = self.folder / "moments" / "viewed.yaml"
        moment.write_text(moment.read_text().replace("1 day", f"1 {self.words['declared']}"))
        for name in LINES:
            self.says(name)

    def says(self, name: str) -> None:
        eventually(f"a line of {name}", lambda: re.search(LINES[name], self.told()) is not None)

    def take_in(self) -> None:
        its = self.words
        named = self.event("Customer Identified", name=its["name"], city=its["city"])
        rejected = {**self.event("Help Viewed"), "type": its["rejected"], "messageId": "x"}
        assert self.send(named, self.event("Help Searched", n_results=0, query=its["query"]), rejected) == 200
        assert self.send(self.event("Help Viewed", text="explode-commit " + its["text"])) == 503
        assert self.send(self.event("Help Viewed"), key=its["key"]) == 401
        assert post(self.address, "/v1/track", b'{"' + its["broken"].encode())[0] in (400, 401)
        read = json.dumps({**self.event("Help Viewed"), "writeKey": "key-web", "why": "explode-read"})
        assert self.ask("POST", "/v1/track", read, **{"content-type": "application/json"})[0] == 500
        assert b"400" in self.raw(b"GET " + its["line"].encode() + b" HTTP/9.x\r\n\r\n")

    def sign_in_and_act(self) -> None:
        its = self.words
        assert self.ask("GET", f"/{its['path']}", cookie=f"{COOKIE}={its['cookie']}")[0] == 303
        token = re.search(r"sign-in\?token=(\w+)", self.server.text())
        assert token is not None
        status, _, cookie = self.ask("GET", f"/sign-in?token={token[1]}")
        session = re.match(rf"{COOKIE}=(\w+)", cookie)
        assert status == 303 and session is not None
        signed = {"cookie": session[0], "user-agent": its["agent"]}
        found = f"/customers?q={quote(its['search'])}"
        assert self.ask("GET", found, **signed)[0] == 500
        assert self.ask("GET", found, **signed)[0] == 200
        assert self.ask("GET", f"/decisions/{its['path']}", **signed)[0] == 404
        assert self.ask("GET", f"/my/{its['path']}", **signed)[0] == 404
        form = urlencode({"token": token_of(session[1]), "said_by": its["said_by"], "customer": its["user"]})
        kind = {"content-type": "application/x-www-form-urlencoded"}
        for address in (f"/customers/{its['path']}/merge", f"/review/{its['path']}/answer"):
            assert self.ask("POST", address, form, **signed, **kind)[0] in (400, 404)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Canaries, str]]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("without /proc it is not known which processes run")
    canaries = Canaries(tmp_path_factory.mktemp("canaries"))
    try:
        canaries.live()
        yield canaries, canaries.told()
    finally:
        canaries.server.kill()


def test_no_word_of_a_customer_is_in_a_log(told: tuple[Canaries, str]) -> None:
    canaries, log = told
    assert [name for name, text in canaries.words.items() if text.lower() in log.lower()] == []


def test_what_happened_is_in_the_log_in_lines_of_ours(told: tuple[Canaries, str]) -> None:
    _, log = told
    assert [name for name, line in LINES.items() if not re.search(line, log)] == []
    assert [line for line in log.splitlines() if not re.match(r"level=\w+ log=[\w.]+ ", line)] == []


# --- the lines themselves


def told_of(
    logger: str, level: int, message: object, *given: object, error: BaseException | None = None
) -> str:
    caught = (type(error), error, error.__traceback__) if error else None
    return logs.Line().format(logging.LogRecord(logger, level, "a.py", 1, message, given, caught))


def test_a_fault_is_told_by_its_place_and_its_rule() -> None:
    fault = Fault("batch[0].userId", "'anna'", "text", "did you mean 'anna'")
    assert told_of("hetki.worker", logging.ERROR, "fault=%s", fault) == (
        "level=error log=hetki.worker fault=batch[0].userId: must be text"
    )
    assert "anna" not in told_of("hetki.worker", logging.ERROR, "loop=%s %s", "lake", Invalid(fault, fault))
    why = Unavailable(Fault("store", "disk I/O error", "a disk with room"))
    assert "got disk I/O error" in told_of("hetki.worker", logging.ERROR, "commit=failed %s", why)


def test_no_text_of_an_exception_and_no_second_line_is_told() -> None:
    """The usual format shows the word, three lines, and what is behind the exception."""
    try:
        try:
            raise KeyError("anna")
        except KeyError as cause:
            raise ValueError("anna\nlevel=error log=forged") from cause
    except ValueError as error:
        line = told_of("hetki.worker", logging.ERROR, "loop=%s failed", "lake", error=error)
        usual = logging.Formatter().format(
            logging.LogRecord("a", 1, "a.py", 1, "b", (), (type(error), error, error.__traceback__))
        )
    assert "anna" in usual and "KeyError" in usual
    here = rf"{__name__}:\d+"
    said = r"level=error log=hetki\.worker loop=lake failed"
    assert re.fullmatch(rf"{said} error=ValueError at={here} from error=KeyError at={here}", line)
    assert told_of("hetki.a", 40, "a=%s", "1\nlevel=error") == "level=error log=hetki.a a=1 level=error"


def loose(files: list[File]) -> list[str]:
    """Calls of a logger whose message is not a constant, or that say an exception in another way."""
    breaches = []
    for file in files:
        for node in ast.walk(file.tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func) == "trouble.tell":
                breaches += [
                    f"{file.path}:{node.lineno}: {ast.unparse(each.value)} is not looked at"
                    for each in ast.walk(node.args[0])
                    if isinstance(each, ast.FormattedValue)
                    and not SHOWS_NOTHING.match(ast.unparse(each.value))
                ]
            if ast.unparse(node.func.value) not in ("log", "logging", "logger"):
                continue
            if node.func.attr not in ("debug", "info", "warning", "error", "exception", "critical", "log"):
                continue
            where = f"{file.path}:{node.lineno}"
            if not (node.args and isinstance(node.args[0], ast.Constant)):
                breaches.append(f"{where}: the message is composed")
            breaches += [
                f"{where}: {ast.unparse(each)} is made a text before the line can look at it"
                for each in node.args[1:]
                if isinstance(each, ast.JoinedStr | ast.Call)
                and ast.unparse(each) not in CALLS_THAT_SHOW_NOTHING
            ]
    return breaches


SHOWS_NOTHING = re.compile(r"without_values\(|\w+\.(code|exitcode)$")
CALLS_THAT_SHOW_NOTHING = {"len(self._doors)", "len(group)", "len(found.kept)", "path_of(lost.exc_value)"}


def test_what_is_logged_is_a_constant_sentence() -> None:
    assert loose(house()) == []
    for planted in (
        "log.error(f'{x}')",
        "log.error('%s', str(error))",
        "log.info('a' + b)",
        "log.error(x)",
        "trouble.tell(f'{x}')",
    ):
        assert loose([parsed("hetki/server/a.py", planted)]), planted
