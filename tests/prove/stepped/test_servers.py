"""A server of one's own to step on."""

import psycopg
import pytest

from faultproof.prove.stepped.servers import own_server


@pytest.mark.soak
def test_own_server_is_there_and_then_gone() -> None:
    with own_server() as url:
        assert "@127.0.0.1:" in url
        with psycopg.connect(url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("off",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
