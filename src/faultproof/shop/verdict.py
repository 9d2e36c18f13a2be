"""What a run came to: the audit's counters under their names, whether it held, and whether it could have failed."""

from __future__ import annotations

import msgspec

from faultproof.shop.dependencies import COUNTED
from faultproof.shop.findings import Check
from faultproof.shop.messages import ROLES, Role
from faultproof.shop.mistakes import DELAYED, Breakage
from faultproof.shop.options import ShopOptions
from faultproof.shop.run import Outcome

HELD, VIOLATED, VACUOUS = 0, 1, 3
"""Exit statuses."""
FULFILLED_LEAST = 0.1
"""Of the orders: a shop that undoes whatever it is asked for is sound, and of no use."""
COMPENSATED_LEAST, LOST_LEAST = 0.1, 0.05
"""Of the orders, and of the provider's answers: with fewer a run shows too little of what goes wrong."""


class Verdict(msgspec.Struct, kw_only=True):
    """The JSON document. Nothing that decides `held` was counted by the shop: see `audit.py`."""

    held: bool
    vacuous: str | None
    """Why the run shows nothing although it held."""
    gave_up: str | None
    """Why it did not get to the end of its work."""
    accepted: int
    lost_orders: int
    duplicate_orders: int
    unknown_orders: int
    wrong_items: int
    lost_events: int
    duplicate_events: int
    phantom_events: int
    out_of_order: int
    lost_effects: int
    duplicate_effects: int
    disordered_effects: int
    fulfilled: int
    compensated: int
    unfinished: int
    needs_attention: int
    oversold: int
    charge_mismatches: int
    orphan_holds: int
    damage: int
    answers: int
    """That the provider has given, or tried to."""
    answers_lost: int
    """Of work that it had done."""
    kill_every: float
    """Seconds; 0 if no kill was asked for."""
    kills: int
    kills_while_busy: int
    kills_by_role: dict[Role, int]
    kills_by_state: dict[str, int]
    delays: int
    """Orders that were held up where a mistake would show."""
    request_path: dict[str, int]
    """How often a call to the provider was hedged, and the hedge won; one was shed; a door of the provider was ejected; and
    quotes were missing."""
    server_restarts: int
    """Of the shop's own server, in the midst of the orders; 0 for a server that is not its own, and for a file."""
    retries: int
    seconds: float
    orders_per_second: float
    seed: int
    planted: Breakage | None
    aim: Breakage | None
    durability: str
    database: str
    kept: bool = True
    """Whether the database, the journal and the processes' errors are still there."""
    checks: list[Check]

    @property
    def status(self) -> int:
        """The command's exit status."""
        if not self.held:
            return VIOLATED
        return VACUOUS if self.vacuous else HELD


def judge(options: ShopOptions, outcome: Outcome) -> Verdict:
    """Judge a run."""
    processes = outcome.processes
    wrong = {check.name: check.violations for check in outcome.audit.checks}
    return Verdict(
        held=outcome.audit.held and outcome.gave_up is None,
        vacuous=_vacuous(options, outcome),
        gave_up=outcome.gave_up,
        accepted=outcome.audit.accepted,
        lost_orders=wrong["lost_orders"],
        duplicate_orders=wrong["duplicate_orders"],
        unknown_orders=wrong["unknown_orders"],
        wrong_items=wrong["wrong_items"],
        lost_events=wrong["lost_events"],
        duplicate_events=wrong["duplicate_events"],
        phantom_events=wrong["phantom_events"],
        out_of_order=wrong["out_of_order"],
        lost_effects=wrong["lost_effects"],
        duplicate_effects=wrong["duplicate_effects"],
        disordered_effects=wrong["disordered_effects"],
        fulfilled=outcome.audit.fulfilled,
        compensated=outcome.audit.compensated,
        unfinished=wrong["unfinished"],
        needs_attention=wrong["needs_attention"],
        oversold=wrong["oversold"],
        charge_mismatches=wrong["charge_mismatches"],
        orphan_holds=wrong["orphan_holds"],
        damage=wrong["damage"],
        answers=outcome.audit.answers,
        answers_lost=outcome.audit.answers_lost,
        kill_every=options.kill_every,
        kills=processes.kills.total(),
        kills_while_busy=processes.kills_while_busy,
        kills_by_role={role: processes.kills[role] for role in ROLES},
        kills_by_state=dict(processes.states),
        delays=processes.delays,
        request_path={what: processes.counted[what] for what in sorted(set(COUNTED.values()))},
        server_restarts=outcome.server_restarts,
        retries=outcome.progress.retries,
        seconds=round(outcome.seconds, 2),
        orders_per_second=round(outcome.audit.accepted / outcome.orders_s, 1),
        seed=options.seed,
        planted=options.planted,
        aim=options.aim,
        durability=outcome.durability,
        database=outcome.database,
        checks=outcome.audit.checks,
    )


def _vacuous(options: ShopOptions, outcome: Outcome) -> str | None:
    """What was asked for and did not happen."""
    if outcome.audit.fulfilled < FULFILLED_LEAST * outcome.audit.accepted:
        return (
            f"only {outcome.audit.fulfilled} orders could be fulfilled: look into the database for what kept the others"
        )
    if outcome.audit.compensated < COMPENSATED_LEAST * outcome.audit.accepted:
        return f"only {outcome.audit.compensated} orders had to be undone: take more orders"
    if outcome.audit.answers_lost < LOST_LEAST * outcome.audit.answers:
        return f"only {outcome.audit.answers_lost} answers of the provider were lost: take more orders"
    if options.kill_every == 0:
        return None
    if options.target in DELAYED:
        return None if outcome.processes.delays else "no order was held up: take more orders"
    if outcome.processes.kills_while_busy == 0:
        return "no process was killed while it was busy: take more orders, or kill more often"
    if options.store.crash is not None and options.target is None and not outcome.server_restarts:
        return "the server was not restarted: take more orders"
    if missing := outcome.processes.missing(options.target):
        return f"no {' and no '.join(missing)} was killed: take more orders, or kill more often"
    return None
