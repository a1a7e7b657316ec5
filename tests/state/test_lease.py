from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from mainstay.state.lease import LEASES, Lease, LeaseLost, standing

if TYPE_CHECKING:
    from mainstay.state.database import Database


def test_one_holds_it_and_others_wait(database: Database) -> None:
    assert standing(database) is None
    one, other = Lease(database, 60), Lease(database, 60)
    assert one.take()
    assert not other.take()
    found = standing(database)
    assert found is not None
    assert (found.holder, found.epoch) == (one.holder, 1)
    assert 55 < found.seconds_left <= 60


def test_whoever_takes_it_over_raises_the_epoch_and_the_one_before_writes_nothing(database: Database) -> None:
    one, other = Lease(database, 0.2), Lease(database, 60)
    assert one.take()
    one.renew()
    time.sleep(0.3)
    assert other.take()
    assert (one.epoch, other.epoch) == (1, 2)
    with pytest.raises(LeaseLost, match="epoch 2"):
        one.renew()
    with pytest.raises(LeaseLost):
        one.write(lambda connection: connection.execute(sa.delete(LEASES)))
    assert other.write(lambda connection: connection.execute(sa.select(sa.func.count()).select_from(LEASES)).scalar())
    one.give_up()  # it is not theirs to give
    found = standing(database)
    assert found is not None
    assert found.seconds_left > 0


def test_a_holder_that_is_late_holds_on_while_nobody_took_it(database: Database) -> None:
    lease = Lease(database, 0.05)
    assert lease.take()
    time.sleep(0.1)
    lease.renew()
    assert lease.write(lambda _: 7) == 7


def test_who_gives_it_up_is_followed_at_once(database: Database) -> None:
    one, other = Lease(database, 60), Lease(database, 60)
    assert one.take()
    one.give_up()
    assert other.take()
    assert other.epoch == 2
