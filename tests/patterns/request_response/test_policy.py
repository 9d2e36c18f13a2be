"""Policies: what contradicts itself is refused, from Python and from TOML, by name; and the presets are usable."""

import re
from collections.abc import Callable
from dataclasses import fields

import pytest

import faultproof as fp
from faultproof.errors import InvalidInput
from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.patterns.request_response import Budget, Client, Policy, presets, upstream_from_toml
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.compartments import TenantPolicy
from faultproof.primitives.health import HealthPolicy
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff

ENDPOINT = '\n[[endpoints]]\nname = "a"\nurl = "http://127.0.0.1:1"\n'


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Policy(attempt_timeout=11.0), "`attempt_timeout` is 11 s, and the whole call has 10 s"),
        (lambda: Policy(hedge=HedgePolicy()), "`idempotent` is False"),
        (lambda: Policy(hedge=HedgePolicy(), idempotent=True, budget=Budget(ratio=0.05)), "`budget.ratio` is 0.05"),
        (lambda: Policy(hedge=HedgePolicy(at_first=2.0), idempotent=True, deadline=2.0), "never be hedged"),
        (lambda: Policy(deadline=0), "`deadline`"),
        (lambda: Policy(deadline=float("nan")), "`deadline`"),
        (lambda: Policy(calls=0), "`calls`"),
        (lambda: Policy(balance="random"), "least-loaded, round-robin, ring"),  # type: ignore[arg-type]
        (lambda: Policy(ring_bound=1.0), "`ring_bound`"),
        (lambda: Policy(retry=Backoff(base=2.0, cap=1.0)), "`cap` must be at least `base`"),
        (lambda: Budget(ratio=2.0), "`ratio`"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(build: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        build()


def test_a_file_says_what_the_values_say() -> None:
    text = """
        name = "payments"
        [policy]
        deadline = 2
        attempt_timeout = 0.5
        idempotent = true
        balance = "ring"
        outliers = false
        hedge = { at_first = 0.1 }
        [policy.bulkhead]
        concurrency = 8
        tenants.gold = { weight = 2.0 }
    """
    upstream = upstream_from_toml(text + ENDPOINT)
    assert upstream.name == "payments"
    assert [(one.name, one.url, one.weight) for one in upstream.endpoints] == [("a", "http://127.0.0.1:1", 1)]
    assert upstream.policy == Policy(
        deadline=2.0,
        attempt_timeout=0.5,
        idempotent=True,
        balance="ring",
        outliers=None,
        hedge=HedgePolicy(at_first=0.1),
        bulkhead=BulkheadPolicy(concurrency=8, tenants={"gold": TenantPolicy(weight=2.0)}),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[policy]\nretries = 3" + ENDPOINT, "[policy] has an unknown key 'retries'"),
        ("[policy]\nretry = { tries = 3 }" + ENDPOINT, "[policy.retry] has an unknown key 'tries'"),
        (
            "[policy.bulkhead]\ntenants.a = { share = 1 }" + ENDPOINT,
            "[policy.bulkhead.tenants.a] has an unknown key 'share'",
        ),
        ("colour = 1" + ENDPOINT, "the policy file has an unknown key 'colour'"),
        (ENDPOINT + "port = 3", "[endpoints] has an unknown key 'port'"),
        ("", "missing required field `endpoints`"),
        ("endpoints = []", "there are no endpoints"),
        ('[[endpoints]]\nname = "a"\nurl = "nowhere"', "`url` must be an address"),
        ('[[endpoints]]\nname = "a"', "missing required field `url`"),
        ('[policy]\ndeadline = "2"' + ENDPOINT, "$.policy.deadline"),
        ("[policy]\ndeadline = true" + ENDPOINT, "$.policy.deadline"),
        ("[policy]\ndeadline = inf" + ENDPOINT, "`deadline`"),
        ("[policy]\nbudget = false" + ENDPOINT, "$.policy.budget"),
        ("[policy]\nretry = true" + ENDPOINT, "$.policy.retry"),
        ('[policy]\nbalance = "random"' + ENDPOINT, "$.policy.balance"),
        ("[policy]\nattempt_timeout = 20" + ENDPOINT, "`attempt_timeout` is 20 s"),
        ("policy = 1" + ENDPOINT, "$.policy"),
        ("[[policy]]" + ENDPOINT, "$.policy"),
        ("= 1", "no TOML"),
        ("a = " + "[" * 100_000, "no TOML"),
        ("#" + "x" * 2_000_000, "at most 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        upstream_from_toml(text)


@pytest.mark.parametrize(
    "part",
    [f.name for f in fields(Policy) if f.default is None or f.name in ("retry", "breaker", "outliers", "bulkhead")],
)
def test_every_part_that_may_be_left_out_is_left_out_by_false_and_no_other(part: str) -> None:
    if part == "attempt_timeout":
        with pytest.raises(InvalidInput, match="attempt_timeout"):
            upstream_from_toml(f"[policy]\n{part} = false{ENDPOINT}")
    else:
        assert getattr(upstream_from_toml(f"[policy]\n{part} = false{ENDPOINT}").policy, part) is None


async def _well(endpoint: fp.Endpoint) -> bool:
    return True


@pytest.mark.parametrize("name", ["STARTUP", "GROWTH", "SCALE", "HYPERSCALE"])
def test_a_preset_makes_a_client(name: str) -> None:
    policy = getattr(presets, name)
    client = Client([fp.Endpoint("a")], policy, check=_well if policy.health else None)
    assert client.explain().count("\n") >= 8


def test_each_preset_adds_to_the_one_before_it() -> None:
    parts = (BreakerPolicy, OutlierPolicy, HealthPolicy, HedgePolicy, BulkheadPolicy)
    have = [
        {type(value) for value in vars(policy).values() if isinstance(value, parts)}
        for policy in (presets.STARTUP, presets.GROWTH, presets.SCALE, presets.HYPERSCALE)
    ]
    assert [len(one) for one in have] == [0, 3, 4, 5]
    assert have[0] < have[1] < have[2] < have[3]
