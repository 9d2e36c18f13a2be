"""What a policy does to a call, in words, in the order in which it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

from faultproof.patterns.request_response.policy import Policy
from faultproof.primitives.endpoints import Endpoint

NAMES_MAX = 5
WIDTH = 110
MARGIN = 19


def explained(name: str, policy: Policy, endpoints: Sequence[Endpoint]) -> str:
    """A paragraph for each part."""
    paragraphs = [f"a call of {name!r} goes through, from the outside in:"]
    for part, words in _parts(policy, endpoints):
        paragraphs.append(fill(words, WIDTH, initial_indent=f"  {part:<{MARGIN - 2}}", subsequent_indent=" " * MARGIN))
    return "\n".join(paragraphs)


def _parts(policy: Policy, endpoints: Sequence[Endpoint]) -> Iterator[tuple[str, str]]:
    yield "deadline", f"{policy.deadline:g} s for all of it, or the caller's own where that is earlier; sent on"
    yield "shed", f"refused at once while {policy.calls:,} calls are under way"
    yield "retry", _retry(policy)
    yield "hedge", _hedge(policy)
    yield "pick", _pick(policy, endpoints)
    yield "breaker", _breaker(policy)
    yield "bulkhead", _bulkhead(policy)
    own = policy.attempt_timeout
    yield "attempt timeout", f"{own:g} s for each attempt" if own is not None else "none but the deadline"


def _retry(policy: Policy) -> str:
    retry = policy.retry
    if retry is None or retry.attempts == 1:
        return "off"
    what = (
        "what failed or has no answer"
        if policy.idempotent
        else "only what did not happen, unless the call is idempotent"
    )
    pause = f"pauses of up to {retry.base:g} s, twice that each time up to {retry.cap:g} s, and not before Retry-After"
    return f"{what}: up to {retry.attempts} attempts; {pause}; {_budget(policy)}"


def _hedge(policy: Policy) -> str:
    hedge = policy.hedge
    if hedge is None:
        return "off"
    first = "none" if hedge.at_first is None else f"{hedge.at_first:g} s"
    when = f"another attempt beside one that takes longer than {hedge.quantile * 100:g} % do ({first} until that is learnt)"
    return f"{when}, up to {hedge.attempts}; only while there are permits to spare; {_budget(policy)}"


def _budget(policy: Policy) -> str:
    return f"retries and hedges add at most {_share(policy.budget.ratio)} to the calls, and {policy.budget.burst:g}"


def _pick(policy: Policy, endpoints: Sequence[Endpoint]) -> str:
    how = {
        "least-loaded": "of two drawn at random the one with fewer calls in flight and less latency",
        "round-robin": "each in its turn",
        "ring": f"the key's, unless it has {policy.ring_bound:g} times its share in flight",
    }[policy.balance]
    names = ", ".join(endpoint.name for endpoint in endpoints[:NAMES_MAX])
    more = f" and {len(endpoints) - NAMES_MAX} more" if len(endpoints) > NAMES_MAX else ""
    out = ["is draining"]
    out += [f"is ejected (at most {_share(policy.outliers.share)} are)"] if policy.outliers is not None else []
    out += ["fails its health checks"] if policy.health is not None else []
    return f"{how}; of {names}{more}; without what {', '.join(out)}; one that was not tried, if there is one"


def _breaker(policy: Policy) -> str:
    breaker = policy.breaker
    if breaker is None:
        return "off"
    bad = f"{_share(breaker.error_rate)} failed, or {_share(breaker.slow_rate)} took {breaker.slow_after:g} s"
    span = f"for up to {breaker.open_for:g} s, twice that each time up to {breaker.open_most:g} s"
    counted = f"{breaker.minimum_calls} calls in {breaker.window:g} s"
    return f"one for each endpoint: open when of {counted} {bad}; {span}; then {breaker.probes} probes"


def _bulkhead(policy: Policy) -> str:
    bulkhead = policy.bulkhead
    if bulkhead is None:
        return "off"
    found_out = ", fewer while they take long" if bulkhead.adaptive is not None else ""
    waiting = f"{bulkhead.queue} wait for up to {bulkhead.wait:g} s, fairly by tenant"
    return f"{bulkhead.concurrency} attempts at once{found_out}; {waiting}"


def _share(part: float) -> str:
    return f"{part * 100:g} %"
