"""Which of a host's addresses lead to other hosts."""

from __future__ import annotations

import socket

from harness.comm.addresses import addresses_towards, family_of, is_loopback, own_addresses, source_address


def test_loopback_addresses_lead_to_no_other_host():
    assert [is_loopback(one) for one in ("127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "1.127.0.0")] == [
        *[True] * 3,
        *[False] * 2,
    ]
    assert not any(map(is_loopback, own_addresses(socket.gethostname())))
    assert not any(map(is_loopback, own_addresses("no host of this name.invalid")))


def test_the_source_address_is_this_hosts_own_and_empty_without_a_route():
    assert source_address("127.0.0.1") == "127.0.0.1"
    assert source_address("not an address") == ""


def test_rank_0_listens_where_the_others_come_from():
    assert addresses_towards([["10.0.0.1"], []]) == ["10.0.0.1"], "its own, where nobody has told an address"
    assert addresses_towards([[], []]) == ["127.0.0.1"]
    assert addresses_towards([["10.0.0.1"], ["127.0.0.7"]]) == ["10.0.0.1"], "a loopback address is no route"


def test_the_family_is_told_by_the_colons():
    assert (family_of("::1"), family_of("10.0.0.1")) == (socket.AF_INET6, socket.AF_INET)
