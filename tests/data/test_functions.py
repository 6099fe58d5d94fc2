"""Functions of the user's own between items and batches: what they are given, what they may give, what is refused."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.data import (
    ArrayDataset,
    Augmentation,
    BatchStream,
    CollatedDataset,
    Functions,
    Order,
    SequenceDataset,
    describe_scale,
    draws_at_random,
    evaluation_batches,
    evaluation_samples,
    load,
    make_splits,
    probe_splits,
    seeded_splits,
    with_functions,
)
from harness.data.arrays import Subset
from harness.errors import ConfigError, DataError
from harness.model import seed_generator
from tests.programs import functions

EVERYTHING = np.arange(40)
PLAIN = Augmentation()


def ragged(count=40):
    """Arrays of one to seven ids, and a class."""
    lengths = np.random.default_rng(1).integers(1, 8, count)
    return [(np.random.default_rng(i).integers(0, 9, lengths[i]), i % 3) for i in range(count)]


def shifted(item, random):
    data, label = item
    return (data if random is None else data + random.integers(1, 9, len(data))), label


def made(items, transform=None, collate=None):
    """A data set of items with functions."""
    given = Functions.of(transform, collate)
    items = SequenceDataset(items, transform=given.transform, is_ragged=given.collate is not None)
    return with_functions(items, given)


def stream(dataset, shards=(0, 1), batch_size=3, seed=0, augmentation=PLAIN):
    return BatchStream(dataset, Order(len(dataset), 2, batch_size, 0, "keep"), shards, augmentation, seed)


def probed(dataset):
    return probe_splits(make_splits(dataset, count_classes=False), seed_generator)


def leaves(batch):
    return [*batch.data, batch.label]


def test_padded_batches_hold_the_items_of_the_order():
    items, order = ragged(), Order(40, 2, 3, 0, "keep")
    with stream(made(items, collate={"pad": {"value": -1, "lengths": True}})) as batches:
        for t in range(1, 8):
            for batch in batches(t).batches:
                data, lengths = batch.data
                own = [items[i] for i in order.shard_indices(t, batch.shard)]
                assert lengths.tolist() == [len(ids) for ids, _ in own]
                assert data.shape[1] == max(lengths)
                assert batch.label.tolist() == [label for _, label in own]
                for row, (ids, _) in zip(data, own, strict=True):
                    assert row.tolist() == [*ids, *[-1] * (data.shape[1] - len(ids))]
                assert (data.dtype, lengths.dtype, batch.label.dtype) == (np.int64, np.int32, np.int64)


def test_a_short_and_an_empty_shard():
    with stream(made(ragged(38), collate="pad"), batch_size=3) as batches:
        last = batches(7)
    assert [batch.count for batch in last.batches] == [2, 0]
    assert last.num_samples == 2
    assert last.batches[1].data.ndim == 2


def test_items_are_drawn_for_their_epoch_and_not_for_their_batch():
    """The same item gets the same numbers in any shard and batch of an epoch, others in the next one, none without."""
    dataset = made(ragged(), shifted, "pad")
    found = []
    for shards, size in ((1, 40), (2, 20), (8, 5)):
        order = Order(40, shards, size, 0)
        with BatchStream(dataset, order, range(shards), PLAIN, 0) as batches:
            for epoch in (1, 2):
                rows = {}
                for batch in batches(epoch).batches:
                    indices = order.shard_indices(epoch, batch.shard)
                    rows |= {i: row[: len(ragged()[i][0])].tolist() for i, row in zip(indices, batch.data, strict=True)}
                found.append(rows)
    first, second = found[:2]
    assert found == [first, second] * 3
    assert sum(first[i] != second[i] for i in first) > 30  # one of eight single numbers is equal by chance
    plain = evaluation_samples(dataset, EVERYTHING, PLAIN)[0]
    assert all(plain[i, : len(ids)].tolist() == ids.tolist() for i, (ids, _) in enumerate(ragged()))


def test_collate_draws_for_iteration_and_shard():
    def noted(items, random):
        number = -1.0 if random is None else random.random()
        return np.full((len(items), 1), number, np.float32), np.stack([label for _, label in items])

    dataset, found = made(ragged(), collate=noted), {}
    for shards, seed in (((0, 1), 0), ((1,), 0), ((1, 0), 0), ((0,), 1)):
        with stream(dataset, shards, seed=seed) as batches:
            for t in (5, 2):
                for batch in batches(t).batches:
                    number = float(batch.data[0, 0])
                    assert found.setdefault((seed, t, batch.shard), number) == number
    assert len(set(found.values())) == len(found) == 6
    assert {float(batch.data.min()) for batch in evaluation_batches(dataset, 16, PLAIN)} == {-1.0}


def test_evaluation_does_not_depend_on_who_reads_a_batch():
    dataset = made(ragged(), shifted, "pad")
    whole = list(evaluation_batches(dataset, 16, PLAIN))
    parts = [list(evaluation_batches(dataset, 16, PLAIN, first, 2)) for first in (0, 1)]
    assert [len(batch.label) for batch in whole] == [16, 16, 8]
    for batch in whole:
        again = parts[batch.number % 2][batch.number // 2]
        assert batch.number == again.number
        np.testing.assert_array_equal(batch.data, again.data)


def test_items_may_be_anything_of_which_a_transform_makes_pairs():
    words = ["ab", "c", "def"]
    dataset = made(words, lambda item, _: ([ord(one) for one in item], len(item)), {"pad": {"to": [4]}})
    data, label = evaluation_samples(dataset, np.arange(3), PLAIN)
    assert data.tolist() == [[97, 98, 0, 0], [99, 0, 0, 0], [100, 101, 102, 0]]
    assert label.tolist() == [2, 1, 3]
    assert list(probed(dataset)) == ["train"]


def test_rows_of_arrays_have_functions_as_well():
    images = np.arange(40 * 4, dtype=np.uint8).reshape(40, 1, 2, 2)
    arrays = ArrayDataset(images, EVERYTHING % 3, 200.0)
    given = Functions.of(lambda item, random: (item[0][:, ::-1], item[1]), None)
    for dataset in (arrays, arrays.subset(EVERYTHING[5:])):
        turned = with_functions(dataset, given)
        data, label = evaluation_samples(turned, np.arange(3), PLAIN)
        plain = evaluation_samples(dataset, np.arange(3), PLAIN)
        np.testing.assert_array_equal(data, plain[0][:, :, ::-1])
        np.testing.assert_array_equal(label, plain[1])
        assert describe_scale(turned) == "bytes / 200"
    floats = with_functions(arrays, Functions.of(lambda item, random: (item[0] / 2, item[1]), None))
    assert evaluation_samples(floats, np.arange(1), PLAIN)[0].ravel().tolist() == [0, 0.5, 1, 1.5]


def test_collate_gets_items_as_the_network_does():
    """Scaled, augmented in training and normalised, each by itself."""
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 6, 6)).astype(np.uint8)
    augmentation = Augmentation(pad_crop=1, flip=True, mean=(0.5,), std=(0.25,))
    plain = ArrayDataset(images, np.arange(12), 255.0)
    lists = SequenceDataset(list(zip(images, np.arange(12), strict=True)))
    with stream(plain, augmentation=augmentation) as batches:
        wanted = batches(1)
    for dataset in (plain, lists):
        with stream(with_functions(dataset, Functions.of(None, "stack")), augmentation=augmentation) as batches:
            for one, other in zip(batches(1).batches, wanted.batches, strict=True):
                np.testing.assert_array_equal(one.data, other.data)
                np.testing.assert_array_equal(one.label, other.label)


def test_functions_of_items_that_draw_from_global_generators():
    """Items are seeded by (seed, epoch, item) as ever; the transform has a generator of its own."""

    def item(index):
        return np.array([np.random.random(), mx.nd.random.uniform(shape=1).asscalar()]), 0

    def added(item, random):
        return item[0] + (0 if random is None else random.random()), item[1]

    splits = make_splits(made(functions.Items(30, item), added, "stack"), num_classes=1)
    splits = seeded_splits(splits, probe_splits(splits, seed_generator), 3, seed_generator)
    assert draws_at_random(splits.train)
    found = []
    for number in range(2):
        np.random.seed(number)
        mx.random.seed(number)
        with stream(splits.train) as batches:
            found.append(batches(2).batches[0].data)
    np.testing.assert_array_equal(*found)


def test_held_out_samples_are_transformed_too():
    splits = load("tests.programs.functions:series", functions=Functions.of("tests.programs.functions:window", None))
    assert splits.num_classes is None
    assert splits.sample_shape == ((8,), ())
    held = load("digits", validation=0.1, functions=Functions.of(shifted_digits, "stack"))
    assert isinstance(held.train, CollatedDataset)
    assert isinstance(held.validation.dataset, Subset)
    assert held.num_classes == 10
    assert evaluation_samples(held.validation, np.arange(2), PLAIN)[0].max() <= 1


def shifted_digits(item, random):
    return np.roll(item[0], 0 if random is None else int(random.integers(-1, 2)), axis=-1), item[1]


def test_the_probe_gives_a_digest_of_what_functions_give():
    def plus(number):
        def transform(item, random):
            return item[0] + number, item[1]

        return transform

    def collate(number):
        def function(items, random):
            return np.stack([data[:1] + number for data, _ in items]), np.stack([label for _, label in items])

        return function

    given = [(None, None), (plus(0), None), (plus(1), None), (plus(1), "pad"), (None, collate(0)), (None, collate(1))]
    items = [(np.arange(3), i % 3) for i in range(20)]
    found = [probed(made(items, *one))["train"].digest for one in given]
    assert len(set(found)) == len(found)
    assert found == [probed(made(items, *one))["train"].digest for one in given]
    arrays = ArrayDataset(np.zeros((9, 2)), np.arange(9))
    assert not probed(arrays)
    assert probed(with_functions(arrays, Functions.of(None, "stack")))["train"].digest


def test_the_probe_leaves_global_generators_where_they_were():
    np.random.seed(5)
    before = np.random.random()
    np.random.seed(5)
    probed(made(ragged(), shifted, "pad"))
    assert np.random.random() == before


SENTENCES = functions.sentences()["train"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("counts", "'counts': was called twice|: counts: was called twice with the same arguments"),
        ("tells_time", "on the clock, or on a generator of its own"),
        ("draws_globally", r"draws from the global generators of random or np.random\. The run could not be repeated"),
        ("draws_from_python", "Draw from the generator that is the second argument"),
        ("draws_from_mxnet", r"draws from a global generator, such as mx\.random"),
        ("raises", r"data\.transform: raises: raised KeyError: 'divisor' for item 0 \(at .*functions\.py:\d+\)"),
        ("needs_random", r"'NoneType' object has no attribute 'random' for item 0 .*; random is None outside of"),
        ("gives_one", r"data\.transform: gives_one: item 0 is an ndarray; an item is a pair \(data, label\)"),
        ("two_types", "the data of item 0 is int64 .*, but that of item 0 is float32 .*; give all items the same type"),
    ],
)
def test_transforms_that_are_refused(name, message):
    with pytest.raises(DataError, match=message):
        probed(made(SENTENCES, getattr(functions, name)))


def test_a_transform_that_changes_its_item_is_refused():
    arrays = [(np.ones(2, np.float32), 0) for _ in range(20)]

    def doubled(item, random):
        item[0][:] *= 2
        return item

    with pytest.raises(DataError, match="doubled: changed item 0, which belongs to the data set"):
        probed(made(arrays, doubled))


def test_batches_that_are_written_to_again_are_refused():
    """Because batches are read ahead. Items may be, because they are copied one by one."""
    buffer = np.zeros((8, 1), np.float32)

    def filled(item, random):
        buffer[0] = len(item[0])
        return buffer[0], item[1]

    def gathered(items, random):
        batch = buffer[: len(items)]
        batch[:, 0] = [len(data) for data, _ in items]
        return batch, np.array([label for _, label in items])

    data, _ = evaluation_samples(made(SENTENCES, filled, "stack"), np.arange(8), PLAIN)
    assert data.ravel().tolist() == [len(SENTENCES[i][0]) for i in range(8)]
    with pytest.raises(DataError, match="gathered: wrote to arrays that it had returned in an earlier call"):
        probed(made(SENTENCES, functions.pass_on, gathered))


def test_items_that_differ_in_length_name_what_pads_them():
    with pytest.raises(
        DataError, match=r"the data of item \d+ is int64 \(\d,\), but .* \(data.collate: pad, in a prog"
    ):
        SequenceDataset(ragged()).take(EVERYTHING)
    stacked = made(ragged(), collate="stack")
    with pytest.raises(DataError, match=r"'stack': data: \d items .*: data has the shapes .* \(collate: pad\)"):
        probed(stacked)


def test_pictures_that_are_decoded_for_each_epoch_have_no_transform():
    class Decoded:
        full_scale, source = 1.0, "pictures"

    with pytest.raises(DataError, match=r"pictures: .*: there is no transform of pictures that data\.pictures reads"):
        with_functions(Decoded(), Functions.of(shifted, "pad"))
    assert with_functions(Decoded(), Functions.of(None, "mixup")).source == "pictures"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("counting", "counting: was called twice with the same arguments, and gave different values"),
        ("global_mix", r"draws from the global generators of random or np\.random"),
        ("mxnet_mix", r"draws from a global generator, such as mx\.random"),
        ("writes", r"writes: raised ValueError: .*read-only for .*: what it is given|return new arrays"),
        ("drops_one", r"data has the shape \(7, 1\), but its first dimension must be the number of items, 8"),
        ("squeezed", "gave data as float32 of 2 dimensions, but data as float32 of 1 dimension for one item in"),
        ("other_in_training", r"in training: gave no label, but label as float32 of 2 dimensions for one item"),
        ("list_of_items", r"data is a list; return an array \(np\.stack\), or a tuple of arrays"),
        ("only_data", r"returned an ndarray; return a pair \(data, label\), each an array \(n, \.\.\.\)"),
        ("no_columns", r"data has the shape \(1, 0\); MXNet has no empty arrays"),
    ],
)
def test_collates_that_are_refused(name, message):
    with pytest.raises(DataError, match=message):
        probed(made(SENTENCES, functions.pass_on, getattr(functions, name)))


@pytest.mark.parametrize(
    ("transform", "collate", "message"),
    [
        (
            functions.one_argument,
            None,
            r"data\.transform: one_argument: takes \(item\), but is called with \(item, ran",
        ),
        (3, None, r"data\.transform: found an int; give a function\(item, random\)$"),
        (None, 3, r"data\.collate: found an int; give a function\(items, random\), stack, pad"),
        (None, "paddd", r"data\.collate: unknown name 'paddd'; did you mean 'pad'\? known: cutmix, mixup, pad, stack"),
        (None, {"pad": {"values": 1}}, r"data\.collate\.pad\.values: there is no such parameter; did you mean 'value'"),
        (None, {"pad": {"axis": -1}}, r"axis is -1; allowed: a whole number from 0"),
        (None, {"pad": {"lengths": "all"}}, r"lengths is 'all'; allowed: true, false, 'data', 'label' or 'both'"),
        (None, {"pad": {"value": "x"}}, r"value is 'x'; allowed: a finite number"),
        (None, {"tests.programs.functions:targets": {"a": 1}}, "takes no parameters here; give only its name"),
    ],
)
def test_names_and_parameters_that_are_refused(transform, collate, message):
    with pytest.raises(ConfigError, match=message):
        Functions.of(transform, collate)


@pytest.mark.parametrize(
    ("params", "shapes"),
    [
        ({}, [(2, 5), (2,), (2, 4)]),
        ({"to": [6, 9]}, [(2, 6), (2,), (2, 6)]),
        ({"to": [6, 9], "arrays": ["data[0]"]}, None),
        ({"arrays": ["data[0]", "label"]}, [(2, 5), (2,), (2, 4)]),
        ({"lengths": True}, [(2, 5), (2,), (2,), (2, 4)]),
        ({"lengths": "label"}, [(2, 5), (2,), (2, 4), (2,)]),
        ({"lengths": "both"}, [(2, 5), (2,), (2,), (2, 4), (2,)]),
    ],
)
def test_which_arrays_are_padded(params, shapes):
    items = [(np.ones(5), 3, np.ones(2)), (np.ones(1), 4, np.ones(4))]
    if shapes is None:
        with pytest.raises(DataError, match=r"label has the shapes \(2,\), \(4,\), which cannot be stacked"):
            evaluation_samples(made(items, collate={"pad": params}), np.arange(2), PLAIN)
        return
    data, label = evaluation_samples(made(items, collate={"pad": params}), np.arange(2), PLAIN)
    assert [one.shape for one in (*data, *(label if isinstance(label, tuple) else [label]))] == shapes


def test_values_and_axes_of_padding():
    items = [
        ({"a": np.full((1, 2), 7), "b": 1.5}, np.array([1])),
        ({"a": np.full((3, 1), 8), "b": 2.5}, np.array([], int)),
    ]
    pad = {"axis": [0, 1], "value": {"data['a']": -1}, "arrays": ["data['a']"]}
    with pytest.raises(DataError, match=r"label has the shapes \(1,\), \(0,\)"):
        evaluation_samples(made(items, collate={"pad": pad}), np.arange(2), PLAIN)
    data, label = evaluation_samples(
        made([(one, 0) for one, _ in items], collate={"pad": {**pad, "lengths": True}}), np.arange(2), Augmentation()
    )
    assert data["a"].tolist() == [[[7, 7], [-1, -1], [-1, -1]], [[8, -1], [8, -1], [8, -1]]]
    assert data["b"].tolist() == [1.5, 2.5]
    assert data["lengths"].tolist() == [1, 3]
    data, label = evaluation_samples(
        made([(3.0, label) for _, label in items], collate={"pad": {"value": {"label": -1}}}),
        np.arange(2),
        Augmentation(),
    )
    assert label.tolist() == [[1], [-1]]


@pytest.mark.parametrize(
    ("items", "params", "message"),
    [
        ([(np.ones(3, int), 0)], {"value": 0.5}, r"data is int64, which cannot hold the value 0\.5"),
        ([(np.ones(3, np.uint8), 0)], {"value": -1}, "data is uint8, which cannot hold the value -1"),
        ([(np.ones(3), 0)], {"to": [2]}, r"data has a length of 3, more than the largest of pad\.to, 2"),
        ([(np.ones(3), 0)], {"arrays": ["data[0]"]}, r"there is no data\[0\]; items have data, label"),
        ([(np.ones(3), 0)], {"value": {"labels": 1}}, "there is no labels; items have data, label"),
        ([(np.ones(3), 0)], {"lengths": "label"}, "there is no array in label to fill up, so it has no lengths"),
        ([({"lengths": np.ones(3)}, 0)], {"lengths": True}, "data has an array named lengths already"),
        ([(np.ones((2, 3)), 0), (np.ones((2, 4)), 0)], {}, "which differ in more than axis 0, along which they are"),
    ],
)
def test_what_cannot_be_padded(items, params, message):
    with pytest.raises(DataError, match=message):
        evaluation_samples(made(items, collate={"pad": params}), np.arange(len(items)), PLAIN)


def test_functions_of_a_data_set_and_of_a_job_do_not_add_up():
    given = Functions.of(shifted, "pad")
    dataset = made(ragged(), shifted, "pad")
    with pytest.raises(DataError, match=r"has a collate of its own .* beside .*; remove one of them"):
        with_functions(dataset, given)
    assert with_functions(dataset, Functions.of(shifted, None)).dataset.transform.function is shifted
    with pytest.raises(DataError, match=r"has a transform of its own .* beside .*; remove one of them"):
        with_functions(dataset, Functions.of(shifted_digits, None))
