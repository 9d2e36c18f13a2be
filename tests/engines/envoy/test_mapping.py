"""Nothing of a policy is dropped: each field is in Envoy's configuration, or refused by name where it is written."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest

from faultproof.engines.envoy.document import documents
from faultproof.engines.envoy.mapping import TABLE, Absent, Nearly, asked
from faultproof.errors import InvalidInput
from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.patterns.request_response.policy import Budget, Policy
from faultproof.patterns.request_response.toml import Address, upstream_from_toml
from faultproof.patterns.sidecar import SidecarFile, SidecarOptions, TlsFiles, sidecar_from_toml
from faultproof.primitives.health import HealthPolicy
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff
from tests.docs.markdown import REPOSITORY
from tests.engines.envoy.sidecars import policy_file

ENDPOINT = Address(name="a", url="https://a.example:8443", weight=2)
FULL = SidecarFile(
    endpoints=(ENDPOINT,),
    policy=Policy(
        attempt_timeout=1.0,
        balance="ring",
        outliers=OutlierPolicy(),
        health=HealthPolicy(),
        bulkhead=BulkheadPolicy(),
    ),
    sidecar=SidecarOptions(
        health_path="/health", key_header="x-key", cert="/c.pem", key="/k.pem", client_ca="/ca.pem", log="/log"
    ),
    tls=TlsFiles(ca="/ca.pem", cert="/c.pem", key="/k.pem", server_name="a.example"),
)
"""All there is, but hedges, which do not go with the time for an attempt."""
HEDGED = SidecarFile(endpoints=(ENDPOINT,), policy=Policy(idempotent=True, hedge=HedgePolicy(at_first=0.1), retry=None))
OTHERS: dict[tuple[type, str], Any] = {
    (SidecarFile, "name"): "other",
    (Address, "name"): "b",
    (Address, "url"): "https://b.example",
    (Address, "weight"): 3,
    (Policy, "deadline"): 9.0,
    (Policy, "calls"): 10_000,
    (Policy, "idempotent"): True,
    (Policy, "balance"): "round-robin",
    (Policy, "ring_bound"): 1.5,
    (Policy, "attempt_timeout"): 0.5,
    (Backoff, "attempts"): 4,
    (Backoff, "base"): 0.02,
    (Backoff, "cap"): 1.0,
    (HedgePolicy, "at_first"): 0.2,
    (HedgePolicy, "attempts"): 3,
    (Budget, "ratio"): 0.2,
    (OutlierPolicy, "in_a_row"): 7,
    (OutlierPolicy, "interval"): 3.0,
    (OutlierPolicy, "share"): 0.25,
    (OutlierPolicy, "eject_for"): 3.0,
    (OutlierPolicy, "eject_most"): 33.0,
    (OutlierPolicy, "jitter"): 0.5,
    (HealthPolicy, "interval"): 7.0,
    (HealthPolicy, "jitter"): 0.5,
    (HealthPolicy, "timeout"): 1.0,
    (HealthPolicy, "rise"): 5,
    (HealthPolicy, "fall"): 5,
    (BulkheadPolicy, "concurrency"): 32,
    (BulkheadPolicy, "queue"): 99,
    (SidecarOptions, "address"): "127.0.0.1:1234",
    (SidecarOptions, "admin"): "127.0.0.1:1235",
    (SidecarOptions, "cert"): "/other",
    (SidecarOptions, "key"): "/other",
    (SidecarOptions, "client_ca"): "/other",
    (SidecarOptions, "health_path"): "/other",
    (SidecarOptions, "key_header"): "x-other",
    (SidecarOptions, "keep"): 9.0,
    (SidecarOptions, "connections"): 9,
    (SidecarOptions, "log"): "none",
    (TlsFiles, "ca"): "/other",
    (TlsFiles, "cert"): "/other",
    (TlsFiles, "key"): "/other",
    (TlsFiles, "server_name"): "other.example",
}
"""Another value of each field that is in the configuration."""
ELSEWHERE = {
    (Policy, "calls"): "without a bulkhead",
    (HedgePolicy, "least"): "no more than `at_first`, which is the delay",
    (BulkheadPolicy, "wait"): "a call waits until its deadline",
    (SidecarOptions, "public"): "a check",
    (SidecarOptions, "workers"): "a flag of Envoy's",
    (SidecarOptions, "linger"): "the supervisor's",
    (SidecarOptions, "drain"): "the supervisor's",
}
"""In force, and not by the configuration."""


def _all_types(kind: Any = SidecarFile) -> Iterator[type]:
    """Every dataclass that a file is made of, but those of what is refused whole."""
    yield kind
    for name, hint in get_type_hints(kind).items():
        if not isinstance(TABLE[kind][name], Absent):
            for inner in (hint, *get_args(hint)):
                if is_dataclass(inner):
                    yield from _all_types(inner)


def test_each_field_of_each_part_has_a_line_and_no_line_is_of_none():
    assert {kind: list(TABLE[kind]) for kind in _all_types()} == {
        kind: [each.name for each in fields(kind)] for kind in _all_types()
    }
    assert set(TABLE) == set(_all_types())


@pytest.mark.parametrize(("kind", "name"), OTHERS, ids=lambda value: getattr(value, "__name__", value))
def test_what_is_in_force_changes_the_configuration(kind: type, name: str):
    file = HEDGED if kind is HedgePolicy else FULL
    if (kind, name) in ELSEWHERE:
        file = replace(FULL, policy=replace(FULL.policy, bulkhead=None))
    other = _changed(file, kind, name)
    assert other != file
    one, two = (documents(each, room="/room", trusted="/trusted") for each in (file, other))
    assert one.whole != two.whole
    assert (one.fixed, one.moving) != (two.fixed, two.moving)


def test_each_line_but_those_of_what_is_missing_is_tried_or_says_where_it_is():
    told = {
        (kind, name)
        for kind, lines in TABLE.items()
        for name, line in lines.items()
        if not isinstance(line, Absent) and getattr(line, "how", "") != "its parts are below"
    }
    assert told == OTHERS.keys() | ELSEWHERE.keys()


def _changed(part: Any, kind: type, name: str) -> Any:
    """The same with another value in the field of that name, wherever that part is."""
    if type(part) is kind:
        return replace(part, **{name: OTHERS[kind, name]})
    found = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if is_dataclass(value):
            found[field.name] = _changed(value, kind, name)
        elif isinstance(value, tuple):
            found[field.name] = tuple(_changed(each, kind, name) for each in value)
    return replace(part, **found)


REFUSED = {
    "policy.breaker": "[policy.breaker]\nminimum_calls = 10",
    "policy.hedge.quantile": "[policy]\nidempotent = true\nhedge = { at_first = 0.1, quantile = 0.95 }",
    "policy.budget.burst": "[policy.budget]\nburst = 5",
    "policy.outliers.gap": "[policy.outliers]\ngap = 0.2",
    "policy.outliers.minimum_calls": "[policy.outliers]\nminimum_calls = 5",
    "policy.bulkhead.patience": "[policy.bulkhead]\npatience = 4",
    "policy.bulkhead.tenants": "[policy.bulkhead]\ntenants = { acme = { weight = 2.0 } }",
    "policy.bulkhead.others": "[policy.bulkhead]\nothers = { weight = 2.0 }",
    "policy.bulkhead.adaptive": "[policy.bulkhead]\nadaptive = { latency = 0.1 }",
}


def test_there_is_a_file_for_all_that_is_missing():
    assert {name.rpartition(".")[2] for name in REFUSED} == {
        name for lines in TABLE.values() for name, line in lines.items() if isinstance(line, Absent)
    }


@pytest.mark.parametrize("name", REFUSED)
def test_what_envoy_has_not_is_refused_by_its_name_and_said_where_it_is_a_default(name: str):
    file, written = sidecar_from_toml(policy_file(["http://127.0.0.1:1"], REFUSED[name]))
    with pytest.raises(InvalidInput, match=f"`{name}`"):
        asked(file, written)
    plain, written = sidecar_from_toml(policy_file(["http://127.0.0.1:1"]))
    assert asked(plain, written).left_out.keys() == {"policy.breaker", "policy.budget.burst", "policy.outliers.gap"}


@pytest.mark.parametrize(
    ("policy", "sidecar", "says"),
    [
        ("[policy]\nidempotent = true\nhedge = {}", "", "needs `at_first`"),
        ("[policy]\nidempotent = true\nattempt_timeout = 1.0\nhedge = { at_first = 0.1 }", "", "attempt_timeout"),
        ("[policy]\nidempotent = true\nhedge = { at_first = 0.1 }\nretry = { attempts = 3 }", "", "the same number"),
        ("[policy.health]\ninterval = 1.0\ntimeout = 0.5", "", "needs `sidecar.health_path`"),
        ("", 'health_path = "/health"', "belongs to `policy.health`"),
        ('[policy]\nbalance = "ring"', "", "needs `sidecar.key_header`"),
        ("[policy]\nring_bound = 1.5", "", "belongs to `balance"),
        ("[policy.bulkhead]\nwait = 0.5", "", "until their deadline"),
        ("[policy.bulkhead]\nconcurrency = 8\nqueue = 4", "", "at least `concurrency`"),
        ("[policy]\ncalls = 10", "", "at least 192"),
        ("", '[tls]\nca = "ca.pem"', "there are none"),
    ],
)
def test_what_envoy_cannot_do_together_is_refused(policy: str, sidecar: str, says: str):
    file, written = sidecar_from_toml(policy_file(["http://127.0.0.1:1"], policy, sidecar=sidecar))
    with pytest.raises(InvalidInput, match=says):
        asked(file, written)


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        (["ftp://127.0.0.1:1"], "http:// or https://"),
        (["http://127.0.0.1:1/v1"], "its own path"),
        (["http://a:b@127.0.0.1:1"], "its own path"),
        (["https://127.0.0.1:1"], "tls.server_name"),
        (["http://a.example", "https://b.example"], "all http"),
        ([""], "no `url`"),
    ],
)
def test_endpoints_that_cannot_be_called_are_refused(urls: list[str], says: str):
    file, written = sidecar_from_toml(policy_file(urls))
    with pytest.raises(InvalidInput, match=says):
        asked(file, written)


def test_the_readme_says_what_is_missing_and_what_is_different():
    readme = (REPOSITORY / "src/faultproof/patterns/sidecar/README.md").read_text()
    for kind, lines in TABLE.items():
        for name, line in lines.items():
            if isinstance(line, Absent):
                assert f"`{kind.__name__}.{name}` | refused" in readme, name
            if isinstance(line, Nearly):
                assert f"`{kind.__name__}.{name}` | nearly | {line.but}" in readme, name


def test_a_field_without_a_default_is_one_that_a_file_must_have():
    assert [f.name for f in fields(SidecarFile) if f.default is MISSING and f.default_factory is MISSING] == [
        "endpoints"
    ]


def test_a_client_takes_the_same_file_and_passes_over_what_is_a_sidecar_s():
    text = policy_file(["https://a.example"], '[policy]\ndeadline = 3.0\n[tls]\nca = "ca.pem"')
    file, _ = sidecar_from_toml(text)
    upstream = upstream_from_toml(text)
    assert (upstream.endpoints, upstream.policy, upstream.name) == (file.endpoints, file.policy, file.name)
    with pytest.raises(InvalidInput, match="unknown key 'sidecars'"):
        upstream_from_toml(text.replace("[sidecar]", "[sidecars]"))
