"""Ids: no two alike, from whatever thread or process they are drawn."""

import os
import string
import threading

from faultproof.clock import SystemIds

DRAWN = 1_000


def test_ids_are_32_hexadecimal_digits_and_differ() -> None:
    ids = SystemIds()
    drawn = [ids.new() for _ in range(DRAWN)]
    assert len(set(drawn)) == DRAWN
    assert all(len(id) == 32 and set(id) <= set(string.hexdigits.lower()) for id in drawn)


def test_threads_that_draw_at_the_same_time_get_different_ids() -> None:
    ids = SystemIds()
    found: list[list[str]] = [[] for _ in range(8)]
    begin = threading.Barrier(len(found))

    def draw(into: list[str]) -> None:
        begin.wait()
        into += [ids.new() for _ in range(DRAWN)]

    threads = [threading.Thread(target=draw, args=(each,)) for each in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id for each in found for id in each}) == len(found) * DRAWN


def test_a_forked_process_draws_its_own() -> None:
    ids = SystemIds()
    ids.new()  # there are more in store
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, "".join(ids.new() for _ in range(100)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(theirs) == 3_200
    assert {ids.new() for _ in range(100)}.isdisjoint(theirs[at : at + 32] for at in range(0, 3_200, 32))
