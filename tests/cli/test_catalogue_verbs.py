"""`faultproof patterns` and `faultproof show`, asked through the real executable."""

import json
from pathlib import Path

import pytest

from tests.cli.executable import faultproof

ALL = [
    "Outbox",
    "Saga",
    "Escrow",
    "Event Sourcing",
    "CQRS",
    "Hedged Request",
    "Sidecar",
    "Leader-Follower",
    "Scatter-Gather",
    "Write-Through",
    "Read Repair",
    "Checkpoint",
    "Bulkhead",
    "Batch",
    "Shadow",
    "Request-Response",
    "Streaming",
    "Fan-out",
    "Analytics",
    "Async Task",
    "Graph",
    "Ledger",
    "ML Inference",
    "Search",
]


def test_patterns_lists_all_24_in_the_order_of_the_specification() -> None:
    rows = json.loads(faultproof("patterns", "--json").stdout)
    assert [row["name"] for row in rows] == ALL
    assert [row["number"] for row in rows] == list(range(1, 25))


def test_patterns_gives_status_and_proof() -> None:
    rows = json.loads(faultproof("patterns", "--json").stdout)
    assert {row["name"]: row["proof"] for row in rows if row["status"] == "ready"} == {
        "Outbox": "faultproof.patterns.outbox.proof:OUTBOX",
        "Saga": "faultproof.patterns.saga.proof:SAGA",
        "Escrow": "faultproof.patterns.escrow.proof:ESCROW",
        "Hedged Request": "faultproof.patterns.hedged_request.proof:HEDGED",
        "Sidecar": "faultproof.patterns.sidecar.proof:SUPERVISED",
        "Scatter-Gather": "faultproof.patterns.scatter_gather.proof:SCATTER",
        "Bulkhead": "faultproof.patterns.bulkhead.proof:BULKHEAD",
        "Batch": "faultproof.patterns.batch.proof:BATCH",
        "Shadow": "faultproof.patterns.shadow.proof:SHADOW",
        "Request-Response": "faultproof.patterns.request_response.proof:REQUEST_RESPONSE",
        "Fan-out": "faultproof.patterns.fan_out.proof:FAN_OUT",
    }
    assert all(row["proof"] is None for row in rows if row["status"] == "planned")
    assert {row["status"] for row in rows} == {"ready", "planned"}


def test_patterns_row_has_exactly_the_columns_of_the_table() -> None:
    assert json.loads(faultproof("patterns", "--json").stdout)[21] == {
        "number": 22,
        "name": "Ledger",
        "primitives": ["P3", "P5", "P13"],
        "guarantee": "immutable, ACID",
        "status": "planned",
        "proof": None,
    }


def test_piped_table_has_one_line_a_pattern() -> None:
    header, *lines = faultproof("patterns").stdout.splitlines()
    assert header.split() == ["#", "pattern", "primitives", "guarantee", "status", "proof"]
    assert len(lines) == 24
    assert "P3+P7+P19" in lines[0]
    assert "exactly once to the stream, in commit order" in lines[0]
    assert "faultproof.patterns.outbox.proof:OUTBOX" in lines[0]
    assert lines[0].split()[-2:] == ["ready", "faultproof.patterns.outbox.proof:OUTBOX"]
    assert max(map(len, lines)) <= 150


def test_table_obeys_columns() -> None:
    lines = faultproof("patterns", env={"COLUMNS": "70"}).stdout.splitlines()
    assert max(map(len, lines)) <= 70
    assert len(lines) > 25


def test_piped_output_carries_no_colour_codes() -> None:
    assert "\x1b" not in faultproof("patterns").stdout + faultproof("show", "outbox").stdout


@pytest.mark.parametrize(
    "name", ["event-sourcing", "Event Sourcing", "event_sourcing", "EVENTSOURCING", "event sourcing pattern"]
)
def test_show_takes_a_name_however_it_is_typed(name: str) -> None:
    assert json.loads(faultproof("show", name, "--json").stdout)["name"] == "Event Sourcing"


def test_show_gives_all_that_the_specification_says() -> None:
    sheet = json.loads(faultproof("show", "outbox", "--json").stdout)
    readme = Path(sheet.pop("readme"))
    assert readme.parts[-4:] == ("faultproof", "patterns", "outbox", "README.md")
    assert sheet == {
        "number": 1,
        "name": "Outbox",
        "primitives": [
            {
                "id": "P3",
                "name": "Durable log",
                "provides": "replay, order",
                "must_show": "a replay gives the identical state; no gap in the sequence that a reader can skip over",
            },
            {
                "id": "P7",
                "name": "Idempotency",
                "provides": "effect exactly once under retry",
                "must_show": "duplicate == no-op with the same answer; same key, other content == an error of its own",
            },
            {
                "id": "P19",
                "name": "Change data capture",
                "provides": "a stream out of a database",
                "must_show": "no event lost, order preserved; log-based, not polling, where the engine can",
            },
        ],
        "problem": "How to atomically update database and publish event without distributed transactions?",
        "guarantee": "exactly once to the stream, in commit order",
        "guarantees": [
            "Either both DB update and event occur, or neither",
            "Events published exactly once",
            "Events published in order of transaction commit",
        ],
        "must_show": "events in the stream == what the database committed, per key in order, after any crash",
        "table": {
            "problem_solved": "Dual write problem",
            "guarantees": "ExactlyOnceToStream",
            "implementation": "Same DB transaction writes outbox table",
            "proof": "CDC events match DB state",
        },
        "checklist": [
            "Outbox table in same database as business data",
            "CDC configured to monitor outbox table",
            "Event deduplication using event_id",
            "Dead letter queue for failed processing",
            "Outbox cleanup after successful publication",
        ],
        "scale_variants": [],
        "variants": [],
        "architecture": [],
        "use_cases": [],
        "status": "ready",
        "proof": "faultproof.patterns.outbox.proof:OUTBOX",
        "performance": {
            "pattern": "Outbox",
            "latency": "+5-10ms",
            "throughput": "High",
            "consistency": "Strong",
            "complexity": "Medium",
        },
        "selection": [],
        "anti_patterns": [
            {
                "name": "Dual Writes",
                "mistake": "Writing to DB and message broker separately",
                "detection": "Inconsistency between DB and events",
                "fix": "Use Outbox pattern",
                "pattern": "Outbox",
            }
        ],
    }


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "saga",
            [
                "Atomic multi-service operation (alternative: Two-phase commit; avoid: Distributed",
                "Distributed Transactions: Using 2PC instead of Saga. Detection: XA transaction monitoring.",
                "Latency: +50-200ms",
                "- Compensation actions for every forward action",
                "P8 Retry and timeouts: fault tolerance",
                "every path ends all-done or all-compensated; nothing stuck unseen",
                "faultproof.patterns.saga.proof:SAGA",
            ],
        ),
        (
            "request-response",
            [
                "Hyperscale: Global load balancers, intelligent routing",
                "- Linearizable operations",
                "P12 Load balancing and shedding: graceful degradation",
            ],
        ),
        ("streaming", ["none yet", "- Change data capture"]),
        (
            "analytics",
            [
                "Hybrid: Balanced approach with lambda architecture",
                "control: Workload Manager (resource optimization)",
            ],
        ),
        ("cqrs", ["Latency: Read: <1ms, Write: +5ms", "- Fallback to write side for critical reads"]),
        (
            "bulkhead",
            ["Problem solved: Fault isolation", "Guarantees: NoContagion", "Proof: Isolation verified"],
        ),
    ],
)
def test_show_prints_the_rows_that_concern_a_pattern(name: str, lines: list[str]) -> None:
    # Folded lines are joined again: where they fold is a matter of width, not of content.
    printed = " ".join(faultproof("show", name).stdout.split())
    assert [line for line in lines if line not in printed] == []


def test_show_leaves_out_sections_the_specification_is_silent_on() -> None:
    printed = faultproof("show", "search").stdout
    assert "Search" in printed
    assert [
        heading
        for heading in ("Scale variants", "Performance", "Implementation checklist", "It mends")
        if heading in printed
    ] == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("outbx", "There is no pattern named 'outbx'; did you mean Outbox?"),
        ("event", "There is no pattern named 'event'; did you mean Event Sourcing?"),
        ("zzz", "There is no pattern named 'zzz'; `faultproof patterns` lists them."),
        ("", "There is no pattern named ''; `faultproof patterns` lists them."),
    ],
)
def test_unknown_name_is_one_sentence_and_exit_status_2(name: str, sentence: str) -> None:
    got = faultproof("show", name, status=2)
    assert (got.stdout, got.stderr) == ("", sentence + "\n")
