"""Other people's libraries, each configured as it comes and as its own documentation recommends for speed.

Only these modules import them, inside functions, so that a benchmark of ours needs none.
"""
