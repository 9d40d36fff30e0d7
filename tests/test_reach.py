"""What goes out cannot reach inside: the corpus of spellings, addresses, resolvers and answers (SSRF).

Traps listen on other addresses of this machine than those that a destination has opened; a test that expects
a refusal also expects that no trap was touched.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from typing import ClassVar

import pytest

from hetki.dialogues import reach as reaching
from hetki.dialogues.destination import Destination
from hetki.dialogues.reach import Reach, endpoint, kind_of, reach
from hetki.engine.check import check
from hetki.engine.skeleton import skeleton
from hetki.errors import Invalid
from hetki.simulation.world import MemoryDisk
from hetki.store import network
from hetki.store.network import SystemNet, resolved
from hetki.store.ports import Sent

PUBLIC = "93.184.216.34"
LOCAL = ["127.0.0.1/32"]


def no_answer(detail: str) -> Sent:
    return Sent(False, 0, detail)


# --- addresses ----------------------------------------------------------------------------------------

INSIDE = """
    127.0.0.1 127.255.255.254 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1
    100.127.255.255 169.254.1.1 0.0.0.0 0.1.2.3 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
    169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192
    :: ::1 fc00::1 fd12:3456::1 fe80::1 febf::1 fec0::1 ff02::1 100::1 2001:db8::1 3fff::1 5f00::1 4000::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:a00:1 ::127.0.0.1 ::10.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::1 64:ff9b:1::8.8.8.8
    2002:7f00:1:: 2002:a00:1::1 2002:808:808::1 2001:0:7f00:1:: 2001:0:4136:e378:8000:63bf:3fff:fdd2
    2a00:1::5efe:10.0.0.1 2a00:1::200:5efe:10.0.0.1 fd00:ec2::254 fd20:ce::254 2001:10::1 2001:2::1
""".split()
OUTSIDE = """
    9.9.9.9 93.184.216.34 172.15.255.255 172.32.0.1 100.63.255.255 100.128.0.1 192.0.1.1 223.255.255.255
    2606:2800:220:1::1 2a00:1450:4001::1 2001:4860:4860::8888 ::ffff:9.9.9.9 64:ff9b::9.9.9.9
""".split()


@pytest.mark.parametrize("text", INSIDE)
def test_no_address_inside_is_fit(text: str) -> None:
    assert kind_of(ip_address(text)) and Reach().refusal("a.example", ip_address(text))


@pytest.mark.parametrize("text", OUTSIDE)
def test_a_public_address_is_fit(text: str) -> None:
    assert Reach().refusal("a.example", ip_address(text)) == ""


def test_what_is_fit_is_public_by_the_standard_library_too() -> None:
    """A second table of the same registries, over random addresses and the edges of every network."""
    dice = Random(5)
    networks = [network for network, _ in (*reaching._INSIDE, *reaching._NEVER)]
    edges = [int(each[end]) + step for each in networks for end, step in ((0, -1), (0, 0), (-1, 0), (-1, 1))]
    fours = [IPv4Address(each % 2**32) for each in (*edges, *(dice.randrange(2**32) for _ in range(3_000)))]
    sixes = [IPv6Address(each % 2**128) for each in (*edges, *(dice.randrange(2**128) for _ in range(3_000)))]
    sixes += [IPv6Address(dice.randrange(2**125) | 1 << 125) for _ in range(3_000)]
    fit = [each for each in (*fours, *sixes) if not kind_of(each)]
    assert len(fit) > 3_000
    assert [each for each in fit if not (_meant(each).is_global and not _meant(each).is_multicast)] == []


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    nat64 = address.packed.startswith(bytes.fromhex("0064ff9b" + "00" * 8)) and address.version == 6
    return IPv4Address(address.packed[12:]) if nat64 else getattr(address, "ipv4_mapped", None) or address


# --- what a destination opens -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inside, host, address, is_fit",
    [
        (["localhost"], "localhost", "127.0.0.1", True),
        (["localhost"], "localhost", "::1", True),
        (["localhost"], "127.0.0.1", "127.0.0.1", True),
        (["localhost"], "localhost", "10.0.0.1", False),  # a resolver that sends "localhost" elsewhere
        (["crm.shop"], "crm.shop", "10.0.0.1", True),
        (["CRM.shop"], "crm.shop", "fd00::7", True),
        (["crm.shop"], "crm.shop", "100.64.0.1", True),
        (["crm.shop"], "crm.shop", "169.254.1.1", False),
        (["crm.shop"], "crm.shop", "169.254.169.254", False),
        (["10.20.0.0/16"], "crm.shop", "10.20.3.4", True),
        (["10.20.0.0/16"], "crm.shop", "::ffff:10.20.3.4", True),
        (["10.20.0.0/16"], "crm.shop", "10.21.3.4", False),
        (["10.20.0.0/16"], "crm.shop", "127.0.0.1", False),
        (["169.254.0.0/16"], "crm.shop", "169.254.1.1", True),
        (["169.254.0.0/16"], "crm.shop", "169.254.169.254", False),
        (["100.64.0.0/10"], "crm.shop", "100.100.100.200", False),
        (["fc00::/7"], "crm.shop", "fd00:ec2::254", False),
        (["::1"], "crm.shop", "::1", True),
    ],
)
def test_what_is_opened_is_reached_and_nothing_else(
    inside: list[str], host: str, address: str, is_fit: bool
) -> None:
    assert (reach(inside, host).refusal(host, ip_address(address)) == "") is is_fit


@pytest.mark.parametrize(
    "text",
    """
    0.0.0.0/0 ::/0 8.8.8.8 10.0.0.0/7 10.0.0.1/8 224.0.0.0/4 240.0.0.0/4 other.shop ::ffff:10.0.0.0/104
    64:ff9b::/96 2002::/16 fe80::/10 * 127.1 0x7f.0.0.1
    """.split(),
)
def test_only_what_is_inside_can_be_opened(text: str) -> None:
    with pytest.raises(Invalid):
        reach([text], "crm.shop")


# --- what can be told without the network -------------------------------------------------------------

SPELLINGS = [*"""
    2130706433 0x7f000001 017700000001 0x7f.0.0.1 0177.0.0.1 0177.0.0.01 127.1 127.0.1 0 0x0 00000177.1
    127.0.0.1. 127.0.0.0x1 1.2.3.4.5 256.0.0.1 127.0.0.1%20 %31%32%37.0.0.1 ①②⑦.0.0.1 127。0。0。1
    [::1%25eth0] [fe80::1%25lo] [fe80::1%lo] [::ffff:127.0.0.1%25lo] [::1]. [127.0.0.1] [v1.fe80::a] [::1
    localhost. LOCALHOST\u3002 loc\u00adalhost ʟocalhost a..b .a -a.fi a-.fi ä.fi a_b.fi. a\\b a|b a,b a;b
""".split(), "a b", "a\tb", "a\nb", "a\r\nHost: b", "a\0b", "a" * 64 + ".fi", "a." * 130 + "fi"]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS, ids=ascii)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_other_spellings_of_hosts_are_refused_before_anything_is_looked_up(scheme: str, host: str) -> None:
    for url in (f"{scheme}://{host}/hook", f"{scheme}://{host}:8080/hook"):
        faults = Destination("webhook", url, "env:S", inside=("localhost",)).faults("d")
        assert [each.where for each in faults] == ["d.url"], url
        assert net_without_resolver(["localhost"]).post(url, {}, b"", 1) == no_answer("url refused")
    letters = Destination("email", server=f"{host}:25", sender="a@b.fi", inside=("localhost",))
    assert [each.where for each in letters.faults("d")] == ["d.server"]
    sent = net_without_resolver(["localhost"]).mail(f"{host}:25", "a@b.fi", "c@d.fi", b"", 1)
    assert sent == no_answer("server refused")


@pytest.mark.parametrize(
    "url",
    [*"""
    https://good.example@127.0.0.1/ https://127.0.0.1@good.example/ https://a:b@good.example/ https://@a.fi/
    https://good.example\\@127.0.0.1/ https://127.0.0.1\\.good.example/ https://good.example#@127.0.0.1/
    https://good.example/#x https:/127.0.0.1/ https:127.0.0.1 //good.example/ https:///good.example
    gopher://good.example/ file:///etc/passwd ftp://good.example/ dict://good.example:11211/ jar:https://a.fi!/
    https://good.example:0/ https://good.example:65536/ https://good.example:-1/ https://good.example:8o/
    https://good.example/ä https://good.example/"x" https://good.example/<x> https://[good.example]/
    https://a.fi:080/ https://a.fi:/ https://a.fi:4.43/ https://[::2]a/ https://a[::2]/
    """.split(), "https://good.example/ x", "https://good.example/\tx", "https://a.fi/\r\nX: y", " https://a.fi/"],
    ids=ascii,
)  # fmt: skip
def test_urls_that_two_programs_may_read_differently_are_refused(url: str) -> None:
    with pytest.raises(Invalid):
        endpoint(url)
    assert net_without_resolver().post(url, {}, b"", 1) == no_answer("url refused")


@pytest.mark.parametrize("text", INSIDE)
def test_an_address_inside_is_refused_by_check_and_when_it_is_sent(text: str) -> None:
    host = f"[{text}]" if ":" in text else text
    faults = Destination("webhook", f"https://{host}/", "env:S").faults("d")
    assert [each.where for each in faults] == ["d.url"] and "which is" in faults[0].got
    assert [
        each.where for each in Destination("email", server=f"{host}:25", sender="a@b.fi").faults("d")
    ] == ["d.server"]
    for sent in (
        net_without_resolver().post(f"https://{host}/", {}, b"", 1),
        net_without_resolver().mail(f"{host}:25", "a@b.fi", "c@d.fi", b"", 1),
    ):
        assert not sent.ok and sent.detail.startswith("not sent: its address is ")


def test_check_says_what_opens_a_destination_inside() -> None:
    disk = MemoryDisk()
    for name, text in skeleton().items():
        disk.write(name, text.replace('inside = ["localhost"]', "").encode())
    assert [str(each) for each in check(disk).faults] == [
        "hetki.toml:[destinations.app].url: got 'localhost', which is this machine, must be a public "
        'address. Hint: inside = ["localhost"] opens it.',
        "hetki.toml:[destinations.mail].server: got 'localhost', which is this machine, must be a public "
        'address. Hint: inside = ["localhost"] opens it.',
    ]


# --- one look-up, and the connection goes to what was looked at ---------------------------------------


def unasked(name: str) -> list[str]:
    raise AssertionError(f"{name} was looked up")


def net_without_resolver(inside: list[str] | None = None) -> SystemNet:
    return SystemNet(inside or (), context(), unasked)


_context: list[ssl.SSLContext] = []


def context() -> ssl.SSLContext:
    """One context for the whole file: loading the certificates of this machine takes long."""
    if not _context:
        _context.append(ssl.create_default_context())
    return _context[0]


class Resolver:
    """Gives one answer after the other, and the last one for ever; `asked` are the names."""

    def __init__(self, *answers: str) -> None:
        self.answers = [each.split() for each in answers]
        self.asked: list[str] = []

    def __call__(self, name: str) -> list[str]:
        self.asked.append(name)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Trap(ThreadingHTTPServer):
    """A service on one address of this machine that keeps what reaches it. It may answer with a redirect."""

    def __init__(self, address: str, port: int = 0) -> None:
        super().__init__((address, port), Caught)
        self.heads: list[dict[str, str]] = []
        self.redirect = ""


class Caught(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        trap = self.server
        assert isinstance(trap, Trap)
        trap.heads.append({"": self.path, **{name.lower(): text for name, text in self.headers.items()}})
        self.send_response(307 if trap.redirect else 200, "<b>inside</b>")
        if trap.redirect:
            self.send_header("Location", trap.redirect)
        self.end_headers()
        self.wfile.write(b"what nobody may read")

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Trap, Trap]]:
    """Two services on one port of two addresses: the destination, and one that must not be reached."""
    mine = Trap("127.0.0.1")
    other = Trap("127.0.0.2", mine.server_port)
    for each in (mine, other):
        threading.Thread(target=each.serve_forever, args=(0.01,), daemon=True).start()
    yield mine, other
    for each in (mine, other):
        each.shutdown()
        each.server_close()


@pytest.fixture
def traps(two: tuple[Trap, Trap]) -> Iterator[tuple[Trap, Trap]]:
    for each in two:
        each.heads, each.redirect = [], ""
    yield two


def test_a_name_is_looked_up_once_and_a_second_answer_is_never_asked_for(
    traps: tuple[Trap, Trap], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the second answer leads to a service inside."""
    mine, other = traps
    monkeypatch.setattr(network.socket, "getaddrinfo", unasked)
    resolver = Resolver("127.0.0.1", "127.0.0.2")
    net = SystemNet(LOCAL, context(), resolver)
    url = f"http://rebinds.example:{mine.server_port}/hook?a=1"
    assert endpoint(url).host == "rebinds.example"
    assert net.post(url, {"webhook-id": "m1"}, b"{}", 5) == Sent(True, 200, "200 OK")
    assert resolver.asked == ["rebinds.example"]
    [head] = mine.heads
    assert (head[""], head["host"]) == ("/hook?a=1", f"rebinds.example:{mine.server_port}")
    assert net.post(url, {}, b"{}", 5) == no_answer("not sent: its address is this machine")
    assert resolver.asked == ["rebinds.example"] * 2 and other.heads == []


@pytest.mark.parametrize("answer", ["127.0.0.1 127.0.0.2", "127.0.0.2 127.0.0.1", f"{PUBLIC} 127.0.0.2", ""])
def test_all_addresses_of_a_name_must_be_fit(traps: tuple[Trap, Trap], answer: str) -> None:
    mine, other = traps
    url = f"http://both.example:{mine.server_port}/"
    sent = SystemNet(LOCAL, context(), Resolver(answer)).post(url, {}, b"{}", 1)
    assert sent == no_answer("not sent: its address is this machine" if answer else "the name has no address")
    assert mine.heads == other.heads == []


class Watched(socket.socket):
    """A socket that keeps where it was to connect, and connects to nobody outside."""

    dialled: ClassVar[list[tuple[str, int]]] = []

    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        Watched.dialled.append(address)
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError(111, "Connection refused")
        super().connect(address)


def test_the_connection_goes_to_the_addresses_that_were_looked_at_in_turn(
    traps: tuple[Trap, Trap], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, _ = traps
    monkeypatch.setattr(network.socket, "socket", Watched)
    Watched.dialled = []
    answer = Resolver(f"2606:2800:220:1::1 {PUBLIC} 127.0.0.1")
    port = mine.server_port
    assert SystemNet(LOCAL, context(), answer).post(f"http://app.example:{port}/", {}, b"{}", 5).ok
    assert Watched.dialled == [("2606:2800:220:1::1", port), (PUBLIC, port), ("127.0.0.1", port)]
    sent = SystemNet((), context(), Resolver(PUBLIC)).mail("mail.example:25", "a@b.fi", "c@d.fi", b"", 5)
    assert sent == no_answer("connection refused") and Watched.dialled[3:] == [(PUBLIC, 25)]


def test_plain_http_goes_to_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, traps: tuple[Trap, Trap]
) -> None:
    mine, _ = traps
    monkeypatch.setattr(network, "is_this_machine", lambda host: False)
    sent = SystemNet(LOCAL, context(), Resolver("127.0.0.1")).post(
        f"http://app.example:{mine.server_port}/", {}, b"{}", 5
    )
    assert sent == no_answer("http without TLS goes to this machine only") and mine.heads == []


@pytest.mark.parametrize("to", ["http://127.0.0.2:{port}/", "//127.0.0.2:{port}/", "/again", "http://[::1]/"])
def test_a_redirect_leads_nowhere_and_no_answer_is_kept(traps: tuple[Trap, Trap], to: str) -> None:
    mine, other = traps
    mine.redirect = to.format(port=mine.server_port)
    url = f"http://127.0.0.1:{mine.server_port}/"
    sent = SystemNet(["localhost"], context()).post(url, {}, b"{}", 5)
    assert sent == Sent(False, 307, "307 Temporary Redirect")  # neither its words, nor its body
    assert len(mine.heads) == 1 and other.heads == []


def test_a_proxy_of_the_environment_is_not_asked(
    traps: tuple[Trap, Trap], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = traps
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.2:{mine.server_port}")
    assert SystemNet(["localhost"], context()).post(f"http://127.0.0.1:{mine.server_port}/", {}, b"", 5).ok
    assert len(mine.heads) == 1 and other.heads == []


def test_a_resolver_that_never_answers_is_left_at_the_deadline() -> None:
    said = threading.Event()

    def silent(name: str) -> list[str]:
        said.wait(30)
        return [PUBLIC]

    net = SystemNet((), context(), silent)
    try:
        assert net.post("https://slow.example/", {}, b"", 0.1) == no_answer("timed out")
        assert net.mail("slow.example:25", "a@b.fi", "c@d.fi", b"", 0.1) == no_answer("timed out")
    finally:
        said.set()


def test_the_resolver_of_this_machine_is_the_one_that_is_asked() -> None:
    assert set(resolved("localhost")) <= {"127.0.0.1", "::1"} and resolved("localhost")


# --- what a hostile destination says ------------------------------------------------------------------


@pytest.fixture
def talker() -> Iterator[Talker]:
    server = Talker()
    yield server
    server.close()


class Talker:
    """A destination that says the same again and again while somebody listens; `n_said` counts bytes."""

    def __init__(self) -> None:
        self.first, self.again = b"", b""
        self.n_said = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self._run, daemon=True)

    def says(self, first: bytes, again: bytes) -> None:
        self.first, self.again = first, again
        self.thread.start()

    def _run(self) -> None:
        try:
            line, _ = self.socket.accept()
            with line:
                line.sendall(self.first)
                while True:
                    self.n_said += line.send(self.again)
        except OSError:
            return

    def close(self) -> None:
        self.socket.close()


@pytest.mark.parametrize(
    "first, again",
    [
        (b"", b"220-welcome\r\n"),
        (b"220 hi\r\n", b"250-SIZE\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"", b"x"),
    ],
)
def test_an_endless_answer_is_not_gathered(talker: Talker, first: bytes, again: bytes) -> None:
    talker.says(first, again * 10_000)
    net = SystemNet(["localhost"], context())
    if first.startswith(b"HTTP"):
        sent = net.post(f"http://{talker.address}/", {}, b"", 10)
    else:
        sent = net.mail(talker.address, "a@b.fi", "c@d.fi", b"", 10)
    assert not sent.ok and sent.detail != "timed out" and "welcome" not in sent.detail
    talker.thread.join(5)
    assert talker.n_said < 50_000_000


def test_a_handshake_that_drips_is_cut_at_the_deadline(talker: Talker) -> None:
    """Each byte comes well within the time of a single read."""
    said = threading.Event()

    def drip() -> None:
        with talker.socket.accept()[0] as line:
            for each in b"\x16\x03\x03\x40\x00\x02" + b"\0" * 500:
                if said.wait(0.05):
                    return
                line.send(bytes([each]))

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    sent = SystemNet(["localhost"], context()).post(f"https://{talker.address}/", {}, b"", 0.4)
    said.set()
    thread.join(5)
    assert sent == no_answer("timed out")
