"""Memory of batches: used again once nobody reads it any more, and never before."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from harness.data.memory import BatchMemory

VIEWS = {
    "itself": lambda array: array,
    "rows": lambda array: array[1:],
    "one number": lambda array: array[2, 3:4],
    "transposed": lambda array: array.T,
    "another shape": lambda array: array.reshape(-1)[::2],
    "another type": lambda array: array.view(np.int32),
    "a view of a view": lambda array: np.ascontiguousarray(array[:2])[1:][:],
    "memory": memoryview,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
def test_memory_is_used_again_only_when_no_view_is_left(view):
    memory = BatchMemory()
    held = view(memory.empty((3, 4)))
    other = memory.empty((3, 4))
    assert memory.num_made == 2
    assert not np.shares_memory(np.asarray(held), other)
    del held, other
    arrays = [memory.empty((3, 4)) for _ in range(3)]
    assert memory.num_made == 3
    assert all(array.flags.writeable and array.flags.c_contiguous for array in arrays)


def test_memory_that_a_batch_was_read_only_in_is_writeable_again():
    memory = BatchMemory()
    array = memory.empty((8,))
    array.flags.writeable = False
    del array
    memory.empty((8,))[:] = 1.0
    assert memory.num_made == 1


def test_blocks_fit_and_small_ones_are_given_up():
    memory = BatchMemory()
    assert memory.empty((0, 3)).shape == (0, 3)
    assert memory.num_made == 0
    for shape, made in (((4, 5), 1), ((2, 5), 1), ((4, 5), 1), ((4, 6), 2), ((4, 5), 2), ((4, 6), 2)):
        array = memory.empty(shape)
        assert array.shape == shape
        assert memory.num_made == made
        del array
    memory.clear()
    memory.empty((1,))
    assert memory.num_made == 3


def test_threads_never_get_memory_that_another_one_writes_to():
    memory, wrong = BatchMemory(), []

    def work(number):
        for count in range(400):
            array = memory.empty((1 + count % 7, 50))
            array[:] = number
            part = array[:, ::3]
            del array
            if not (part == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert memory.num_made < 400
