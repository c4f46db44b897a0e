"""Who is turned away at the console's door, and what every answer says to a browser."""

import asyncio
import re

import pytest
from starlette.types import Message

from fedmkt.console.door import Door, DoorLimits
from fedmkt.console.forms import MOST_FIELDS, parse_form
from fedmkt.errors import ConfigError
from tests.fuzz.mutate import mutants

HEAD = [(b"host", b"127.0.0.1:8470")]
ORIGIN = (b"origin", b"http://127.0.0.1:8470")


async def inside(scope, receive, send) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside " + body})


def knock(
    method: str, headers, *messages: Message, limits: DoorLimits | None = None, app=inside
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send one request as ASGI; after its messages nothing more comes."""
    waiting, sent = list(messages) or [{"type": "http.request", "body": b""}], list[Message]()

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/", "headers": headers, "query_string": b""}
    asyncio.run(Door(app, lambda: 8470, limits)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b"evil.example:8470"],
        [b"127.0.0.1"],
        [b"127.0.0.1:1"],
        [b"127.0.0.1:8470.evil.example"],
        [b"[::1]:8470"],
        [b"127.0.0.1:8470", b"localhost:8470"],
    ],
)
def test_another_name_for_this_machine_is_turned_away(hosts: list[bytes]) -> None:
    status, _, body = knock("GET", [(b"host", host) for host in hosts])
    assert (status, body) == (421, b"this console has another address\n")


@pytest.mark.parametrize("host", [b"127.0.0.1:8470", b"localhost:8470"])
def test_our_own_names_are_let_in(host: bytes) -> None:
    assert knock("GET", [(b"host", host)])[0] == 200
    assert knock("POST", [(b"host", host), (b"origin", b"http://" + host)])[0] == 200


@pytest.mark.parametrize(
    "more",
    [
        [],
        [(b"origin", b"null")],
        [(b"origin", b"http://evil.example")],
        [(b"origin", b"http://127.0.0.1:9999")],
        [(b"origin", b"https://127.0.0.1:8470")],
        [ORIGIN, ORIGIN],
    ],
)
def test_a_form_of_another_site_is_turned_away_unread(more) -> None:
    status, _, body = knock("POST", HEAD + more)
    assert (status, body) == (403, b"a form of another site\n")


@pytest.mark.parametrize("site", [b"same-site", b"cross-site"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_another_site_or_port_asks_for_is_turned_away(method: str, site: bytes) -> None:
    status, _, body = knock(method, [*HEAD, ORIGIN, (b"sec-fetch-site", site)])
    assert (status, body) == (403, b"asked for by another site: type the address\n")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "OPTIONS", "CONNECT"])
def test_other_methods_are_turned_away(method: str) -> None:
    assert knock(method, HEAD)[0] == 405


def test_a_body_that_is_too_long_is_turned_away_by_what_it_says_and_by_what_it_is() -> None:
    limits = DoorLimits(body_bytes=10)
    said = [*HEAD, ORIGIN, (b"content-length", b"11")]
    assert knock("POST", said, limits=limits)[0] == 413
    assert knock("POST", [*HEAD, ORIGIN, (b"content-length", b"-1")], limits=limits)[0] == 413
    pieces = [{"type": "http.request", "body": b"12345", "more_body": True}] * 3
    assert knock("POST", [*HEAD, ORIGIN], *pieces, limits=limits)[0] == 413
    assert (
        knock("POST", [*HEAD, ORIGIN], pieces[0], {"type": "http.request", "body": b"67890"}, limits=limits)[
            2
        ]
        == b"inside 1234567890"
    )


def test_a_head_that_is_too_long_and_a_body_without_a_length_are_turned_away() -> None:
    assert knock("GET", [*HEAD, (b"cookie", b"x" * (16 << 10))])[0] == 431
    chunked = [*HEAD, ORIGIN, (b"transfer-encoding", b"chunked")]
    for headers in (chunked, [*chunked, (b"content-length", b"4")]):
        assert knock("POST", headers)[0] == 411


def test_a_body_that_comes_too_slowly_is_turned_away() -> None:
    piece = {"type": "http.request", "body": b"1", "more_body": True}
    assert knock("POST", [*HEAD, ORIGIN], piece, limits=DoorLimits(body_seconds=0.05))[0] == 408


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    async def slow(scope, receive, send) -> None:
        await asyncio.sleep(60)

    assert knock("GET", HEAD, limits=DoorLimits(answer_seconds=0.05), app=slow)[0] == 503


@pytest.mark.parametrize(("method", "headers"), [("GET", HEAD), ("GET", []), ("POST", HEAD)])
def test_every_answer_tells_the_browser_to_run_keep_and_embed_nothing(method: str, headers) -> None:
    _, said, _ = knock(method, headers)
    policy = said[b"content-security-policy"].decode()
    for part in (
        "default-src 'none'",
        "style-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ):
        assert part in policy
    assert "unsafe" not in policy and "script-src" not in policy
    assert (said[b"cache-control"], said[b"x-content-type-options"]) == (b"no-store", b"nosniff")
    assert (said[b"x-frame-options"], said[b"cross-origin-opener-policy"]) == (b"DENY", b"same-origin")
    assert said[b"referrer-policy"] == b"same-origin"


def part(name: str, content: bytes, more: str = "") -> bytes:
    return (
        f'--xyz\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"
    )


def test_both_kinds_of_form_are_read() -> None:
    form = parse_form(
        "application/x-www-form-urlencoded; charset=utf-8", b"reason=a%20b%E4%B8%AD&read=yes&empty="
    )
    assert (form.text("reason"), form.text("read"), form.text("empty"), form.text("absent")) == (
        "a b中",
        "yes",
        "",
        "",
    )
    body = (
        part("reason", "中".encode()) + part("key", b"\x00\r\n--xy", '; filename="a b.key"') + b"--xyz--\r\n"
    )
    form = parse_form("multipart/form-data; boundary=xyz", body)
    assert (form.text("reason"), form.data("key")) == ("中", b"\x00\r\n--xy")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"reason=x"),
        ("", b""),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=xyz", b""),
        ("multipart/form-data; boundary=xyz", part("reason", b"x")),
        ("multipart/form-data; boundary=xyz", b"before" + part("reason", b"x") + b"--xyz--\r\n"),
        ("multipart/form-data; boundary=xyz", part("reason", b"x") * 2 + b"--xyz--\r\n"),
        ("multipart/form-data; boundary=xyz", part("../../etc", b"x") + b"--xyz--\r\n"),
        ("multipart/form-data; boundary=xyz", b"--xyz\r\nX: y\r\n\r\nz\r\n--xyz--\r\n"),
        (
            "multipart/form-data; boundary=xyz",
            b"".join(part("abcdefghijklm"[i], b"x") for i in range(13)) + b"--xyz--",
        ),
        ("application/x-www-form-urlencoded", b"a=1&a=2"),
        ("application/x-www-form-urlencoded", b"&".join(b"%c=1" % (97 + i) for i in range(13))),
        ("application/x-www-form-urlencoded", b"a=%ff"),
        ("application/x-www-form-urlencoded", b"A=1"),
        ("application/x-www-form-urlencoded", b"a=\xff"),
    ],
)
def test_a_body_that_is_no_form_of_ours_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_form(kind, body)


MIXED = part("token", b"ab" * 32) + part("key", b"-----BEGIN", '; filename="ann.key"') + b"--xyz--\r\n"


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("multipart/form-data; boundary=xyz", MIXED),
        ("application/x-www-form-urlencoded", b"token=abab&reason=not+yet%2C+%E4%B8%AD"),
    ],
)
def test_mutated_forms_are_read_or_refused_in_words_and_each_field_is_a_known_kind(
    kind: str, seed: bytes
) -> None:
    accepted = 0
    for data in mutants([seed], 500, seed=7):
        try:
            form = parse_form(kind, data)
        except ConfigError:
            continue
        accepted += 1
        assert len(form.fields) <= MOST_FIELDS and all(
            re.fullmatch("[a-z_]{1,30}", name) for name in form.fields
        )
        assert sum(map(len, form.fields.values())) <= len(data)
    assert 0 < accepted < 500
