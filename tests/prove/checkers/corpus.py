"""Histories written by hand: what each model allows, and the classic bugs."""

GOOD: dict[str, tuple[str, ...]] = {
    "register": (
        "a read | a ok null",
        "a write 1 | b read | b ok null | a ok",
        "a write 1 | b read | b ok 1 | a ok",
        "a write 1 | b write 2 | a ok | b ok | a read | a ok 1 | a read | a ok 1",
        "a write 1 | b write 2 | a ok | b ok | a read | a ok 2",
        "a write 1 | a info | b write 2 | b ok | b read | b ok 1",
    ),
    "cas-register": (
        "a cas [null, 1] | a ok | a cas [1, 2] | a ok true | b read | b ok 2",
        "a cas [1, 2] | a ok false | b read | b ok null",
        "a write 1 | b cas [1, 2] | b ok | a ok | c read | c ok 2",
        # Found: the second write of 2 was put in its place where it changed nothing, and was not there when it was needed.
        "f read | c cas [2, 4] | d write 2 | b read | f ok null | a cas [2, 0] | e write 2 "
        "| a ok true | e ok | d ok | c ok true | b ok 2",
        # Either of two lost calls explains the first 3, and only one of them the second: the other must be taken first.
        "a write 0 | a ok | l write 3 | m cas [0, 3] | r read | r ok 3 | a write 1 | a ok | r read | r ok 3",
        "a write 0 | a ok | m cas [0, 3] | l write 3 | r read | r ok 3 | a write 1 | a ok | r read | r ok 3",
        "a write 1 | a ok | b cas [1, 2] | c cas [1, 3] | c ok false | b info | c read | c ok 2",
    ),
    "counter": (
        "a add 1 | b add 2 | a ok | c read | c ok 1 | b ok | c read | c ok 3",
        "a add 1 | a info | b read | b ok 0 | b read | b ok 1",
        "a add -1 | a ok | b read | b ok -1",
    ),
    "queue": (
        "a dequeue | a ok null",
        'a enqueue "x" | a ok | b enqueue "y" | b ok | c dequeue | c ok "x" | c dequeue | c ok "y" | c dequeue | c ok null',
        'a enqueue "x" | b enqueue "y" | a ok | b ok | c dequeue | c ok "y" | c dequeue | c ok "x"',
        'a enqueue "x" | a ok | b dequeue | b info | c dequeue | c ok null',
        'a enqueue "x" | a info | b dequeue | b ok "x"',
    ),
    "lock": (
        "a acquire | b acquire | a ok | a release | a ok | b ok | b release | b ok",
        'a acquire "a" | a ok | b acquire "b" | b ok false | a release "a" | a ok | b acquire "b" | b ok true',
        'a acquire "a" | a info | b acquire "b" | b ok false',
        'a acquire "a" | a ok | a release "a" | a info | b acquire "b" | b ok',
        'b release "b" | b ok false',
    ),
}
"""By model."""

BAD: dict[str, dict[str, tuple[str, ...]]] = {
    "register": {
        "stale read": (
            "a write 1 | a ok | a write 2 | a ok | b read | b ok 1",
            "write 2",
            "read → 1",
            "read → 2",
        ),
        "read of what nobody wrote": ("a write 1 | a ok | b read | b ok 7", "read → 7", "read → 1"),
        "lost write": ("a write 1 | a ok | b read | b ok null", "write 1", "read → null", "read → 1"),
        "read that goes back": (
            "a write 1 | b read | b ok 1 | b read | b ok null | a ok",
            "write 1 → ?",
            "read → 1",
            "read → null",
            "read → 1",
        ),
        "dirty read of a failed write": ("a write 1 | a fail | b read | b ok 1", "read → 1", "read → null"),
        "readers who disagree": (
            "a write 1 | b write 2 | a ok | b ok | c read | c ok 1 | d read | d ok 2",
            "read → 1",
            "read → 2",
            "read → 1",
        ),
    },
    "cas-register": {
        "two winners": (
            "a write 0 | a ok | a cas [0, 1] | b cas [0, 2] | a ok | b ok",
            "cas [0,1]",
            "cas [0,2]",
            "cas refused, for the register holds 1",
        ),
        "cas that was answered and lost": (
            "a write 0 | a ok | a cas [0, 1] | a ok | b read | b ok 0",
            "cas [0,1]",
            "read → 0",
            "read → 1",
        ),
        "refused without a reason": (
            "a write 0 | a ok | a cas [0, 1] | a ok false",
            "write 0",
            "cas [0,1] → false",
            "cas done, for the register holds 0",
        ),
    },
    "counter": {
        "lost update": (
            "a add 1 | b add 1 | a ok | b ok | c read | c ok 1",
            "add 1",
            "add 1",
            "read → 1",
            "read → 2",
        ),
        "counted twice": ("a add 1 | a ok | c read | c ok 2", "read → 2", "read → 1"),
    },
    "queue": {
        "double dequeue": (
            'a enqueue "x" | a ok | b dequeue | c dequeue | b ok "x" | c ok "x"',
            'enqueue "x"',
            'dequeue → "x"',
            'dequeue → "x"',
            "dequeue → null",
        ),
        "lost element": (
            'a enqueue "x" | a ok | b dequeue | b ok null',
            'enqueue "x"',
            "dequeue → null",
            'dequeue → "x"',
        ),
        "last in, first out": (
            'a enqueue "x" | a ok | a enqueue "y" | a ok | b dequeue | b ok "y"',
            'enqueue "x"',
            'dequeue → "y"',
            'dequeue → "x"',
        ),
    },
    "lock": {
        "held twice": (
            'a acquire "a" | a ok | b acquire "b" | b ok',
            'acquire "a"',
            'acquire "b"',
            'acquire refused, for the lock is held by "a"',
        ),
        "released by somebody else": (
            'a acquire "a" | a ok | b release "b" | b ok',
            'release "b"',
            'release refused, for the lock is held by "a"',
        ),
        "nobody has it and nobody gets it": (
            'a acquire "a" | a ok | a release "a" | a ok | b acquire "b" | b ok false',
            'release "a"',
            'acquire "b" → false',
            "acquire granted, for the lock is free",
        ),
    },
}
"""By model and bug: the history, the calls of the part that is shown, and what was expected."""
