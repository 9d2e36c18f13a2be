"""What job queues and outboxes claim about workers that die, and whether it holds: ours and the peers', by one harness.

    python -m benchmarks.faults pgqueuer --kills 100

Every contender is given the same jobs. A job's handler makes its effect, a row committed on a connection of its own, and
then its process is killed before it can acknowledge. docs/peers.md has what was found.
"""
