"""What a saga is told of the provider's answers: yes, no, not now, or that nobody knows."""

import msgspec
import pytest

from faultproof.errors import Failed, FaultproofError, OutcomeUnknown, TryAgain
from faultproof.shop import dependencies
from faultproof.shop.dependencies import CARRIERS, Provider
from tests.shop.servers import serving

pytestmark = pytest.mark.anyio


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def asked(reply: bytes | None) -> tuple[str | FaultproofError, list[bytes], int]:
    """What came of a call, the requests that the provider heard, and how often it was said that one is on its way."""
    heard, sent = list[bytes](), list[None]()

    def replies(request: bytes) -> bytes | None:
        heard.append(request)
        return reply

    async with serving(replies) as port:
        provider = Provider([port])
        try:
            return (
                await provider.call("/payment/charge_card", "k-1", lambda: sent.append(None), amount=5),
                heard,
                len(sent),
            )
        except FaultproofError as error:
            return error, heard, len(sent)
        finally:
            provider.close()


async def test_done_is_its_reference() -> None:
    said, (request,), sent = await asked(answer(200, b'{"reference": "r-1", "amount": 5}'))
    assert (said, sent) == ("r-1", 1)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /payment/charge_card HTTP/1.1\r\n")
    assert b"\r\nIdempotency-Key: k-1" in head
    assert msgspec.json.decode(body) == {"amount": 5}


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (answer(402, b"the card"), Failed, "/payment/charge_card answered 402: the card"),
        (answer(404, b"\xff"), Failed, "answered 404"),
        (answer(503, b""), TryAgain, "answered 503"),
        (answer(200, b""), OutcomeUnknown, "answered 200"),
        (answer(200, b"<html>"), OutcomeUnknown, "<html>"),
        (answer(200, b"[]"), OutcomeUnknown, "answered 200"),
        (answer(200, b'{"reference": 7}'), OutcomeUnknown, "answered 200"),
        (answer(200, b'{"reference": "\xff"}'), OutcomeUnknown, "answered 200"),
        (answer(200, b"[" * 60_000), OutcomeUnknown, "answered 200"),
        (answer(204, b""), OutcomeUnknown, "answered 204"),
        (answer(302, b""), OutcomeUnknown, "answered 302"),
        (answer(700, b""), OutcomeUnknown, "answered 700"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", OutcomeUnknown, "no answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n", OutcomeUnknown, "no answer"),
        (b"nonsense\r\n\r\n", OutcomeUnknown, "no answer"),
        (b"x" * 100_000, OutcomeUnknown, "no answer"),
        (None, OutcomeUnknown, "no answer"),
    ],
)
async def test_everything_else_is_an_error_that_says_what_is_known(
    reply: bytes | None, kind: type[FaultproofError], words: str
) -> None:
    said, heard, sent = await asked(reply)
    assert type(said) is kind
    assert words in str(said)
    assert len(str(said)) < 500
    assert (len(heard), sent) == (1, 1)  # whether to ask again is the saga's to decide


async def test_silence_is_unknown_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "CALL_S", 0.05)
    said, _, sent = await asked(b"")
    assert (type(said), 1 <= sent <= 2) == (OutcomeUnknown, True)  # the second one is a hedge


async def test_where_nobody_listens_nothing_was_asked() -> None:
    async with serving(lambda request: None) as port:
        pass
    sent = list[None]()
    with pytest.raises(OutcomeUnknown, match="no answer"):
        await Provider([port]).call("/payment/charge_card", "k-1", lambda: sent.append(None))
    assert sent == []


@pytest.mark.parametrize(("known", "cheapest"), [(CARRIERS, CARRIERS[2]), (CARRIERS[:2], CARRIERS[1])])
async def test_the_cheapest_of_the_carriers_that_answer_in_time_is_taken(known: tuple[str, ...], cheapest: str) -> None:
    def reply(request: bytes) -> bytes | None:
        carrier = request.split(b"/carriers/")[1].split(b"/")[0].decode()
        if carrier == CARRIERS[0]:
            return None
        return answer(200, b'{"price": %d}' % (300 if carrier == CARRIERS[2] else 400)) if carrier in known else b""

    async with serving(reply) as port:
        provider = Provider([port])
        assert await provider.cheapest("o-1", 3) == cheapest
        provider.close()


async def test_without_any_quote_the_saga_is_to_ask_again() -> None:
    async with serving(lambda request: answer(500, b"")) as port:
        provider = Provider([port])
        with pytest.raises(TryAgain, match="no carrier"):
            await provider.cheapest("o-1", 3)
        provider.close()
