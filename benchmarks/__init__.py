"""Figures: what faultproof costs, beside its peers and beside doing it by hand, in one run. See `docs/benchmarks.md`.

`model.py` is the language; `measures/` says what is measured and by whom, `peers/` speaks to other people's libraries;
`contest.py` runs contestants in turns, each in a process of its own (`child.py`); `report.py`, `table.py` and `page.py`
say what came out.
"""
