"""Collectives on real ranks, and in a world of one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.comm import SingleWorld, connect, read_launch
from harness.errors import ConfigError, DataError


@pytest.mark.parametrize("np_", [1, 2, 3])
def test_every_collective_on_real_ranks(start, tmp_path, np_):
    start("tests/programs/collectives.py", tmp_path, np=np_)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(np_)]
    for rank, report in enumerate(found):
        assert (report["rank"], report["size"], report["local"]) == (rank, np_, [rank, np_])
        assert report["kind"] == "horovod over Gloo"
        alone = "the file is not here" if np_ == 1 else f"rank {np_ - 1}: the file is not here"
        assert report["errors"] == [
            ["DataError", alone],
            ["ConfigError", "the file is not here"],
            [True, "the file is not here"],
        ]


def test_a_world_of_one():
    world = connect("auto", read_launch({}))
    assert isinstance(world, SingleWorld)
    array = np.ones(3)
    assert world.allreduce(array, "a") is not array
    np.testing.assert_array_equal(world.broadcast(array, "b"), array)
    assert world.allgather_object({"a": 1}, "c") == [{"a": 1}]
    assert world.broadcast_object("x", "d") == "x"

    def work():
        raise DataError("gone")

    with pytest.raises(DataError, match=r"^gone$"):
        world.agreed("e", work)
    world.barrier("f")
    world.close()


def test_processes_that_would_each_train_alone_are_refused():
    launch = read_launch({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"})
    with pytest.raises(ConfigError, match="horovodrun started 2 processes, each of which would train alone"):
        connect("single", launch)


def test_an_unknown_world_lists_the_known_ones():
    with pytest.raises(ConfigError, match="comm: 'nccl' is unknown; allowed: auto, single, horovod"):
        connect("nccl", read_launch({}))
