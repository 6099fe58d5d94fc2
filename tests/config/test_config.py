import json
import math
from pathlib import Path

import pytest

from harness.config import dump_config, load_config, parse_config, parse_lr
from harness.errors import ConfigError
from harness.plan import LRPlan, Sizes, resolve_shards

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
BASE = {"train": {"epochs": 2}, "network": {"name": "mlp"}, "lr": {"base": 0.1, "schedule": "1x"}}
_PLAIN = "has no effect, because plain learning rates are final and never scaled; write them as multiples of the base"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trian.epochs=3", "trian: unknown key; did you mean 'train'? known here: name, output, "),
        (
            "train.epochz=3",
            "train.epochz: unknown key; did you mean 'epochs'? known here: epochs, iterations, last_batch",
        ),
        (
            "lr.warmup={lenght: 5ep}",
            "lr.warmup.lenght: unknown key; did you mean 'length'? known here: length, start, mode",
        ),
        ("data.augment.pad=4", "data.augment.pad: unknown key; "),
        ("epochs=3", "epochs: unknown key; did you mean 'train.epochs'? known here: "),
        ("momentum=0.9", "momentum: unknown key; did you mean 'lr.momentum'? known here: "),
        (
            "optimizer.nesterov=true",
            "optimizer.nesterov: unknown key; known here: name, params, lr_mult, layer_decay, ",
        ),
        ("init.from_=a.params", "init.from_: unknown key; did you mean 'from'? known here: from"),
        ("train.epochs=0", "train.epochs: found 0; must be at least 1"),
        ("train.epochs=1e2", "train.epochs: found 100.0; must be a whole number; write 100"),
        ("train.epochs='5'", "train.epochs: found '5'; must be a whole number; write 5"),
        ("train.epochs=true", "train.epochs: found true; must be a whole number"),
        ("train.epochs=1:30", "train.epochs: found '1:30'; must be a whole number"),
        ("train.epochs=10000000000", "train.epochs: found 10000000000; must be at most 1000000000"),
        ("train.epochs=null", "train: found neither; give the run's length as either epochs or iterations"),
        (
            "train.iterations=5",
            "train: found both (epochs: 2, iterations: 5); give the run's length as either epochs or ",
        ),
        ("train=5", "train: found 5; must be a mapping with the keys epochs, iterations, last_batch"),
        ("train.last_batch=pad", "train.last_batch: found 'pad'; must be drop or keep"),
        ("network.name=null", "network.name: found nothing (null); must be text"),
        ("network.forward=mine", "network.forward: found 'mine'; must be package.module:function"),
        ("network.forward=':f'", "network.forward: found ':f'; must be package.module:function"),
        ("network.hybridize=1", "network.hybridize: found 1; must be true or false"),
        ("network.hybridize=off", "network.hybridize: found 'off'; must be true or false; write false"),
        (
            "network.initializer=5",
            "network.initializer: found 5; must be a name (xavier), or one name with its parameters",
        ),
        (
            "network.initializer={a: {}, b: {}}",
            "network.initializer: found {'a': {}, 'b': {}}; must be a name (xavier), ",
        ),
        ("network.initializer={a: {b: .nan}}", "network.initializer.a.b: found nan; must be a finite number, text, "),
        ("network.params={1: 2}", "network.params: the key 1 is not text; put it in quotes, or remove it"),
        ("network.params={a: [1, {b: -.inf}]}", "network.params.a.1.b: found -inf; must be a finite number, text, "),
        ("network.params={a: {1: 2}}", "network.params.a.1: keys must be text; quote it"),
        ("seed=-1", "seed: found -1; must be at least 0"),
        ("seed=2147483648", "seed: found 2147483648; must be below 2147483648"),
        ("seed=1.5", "seed: found 1.5; must be a whole number"),
        ("seed=", "seed: found nothing (null); must be a whole number"),
        ("name=2024", "name: found 2024; must be text; put it in quotes: '2024'"),
        ("name=a/b", "name: found 'a/b'; must be letters, digits, '.', '_' and '-', the first a letter or a digit"),
        ("name='../x'", "name: found '../x'; must be letters, "),
        ("comm=nccl", "comm: found 'nccl'; must be auto, single, horovod or mpi"),
        ("sum=ring", "sum: found 'ring'; must be tree or engine"),
        ("device=gpu(0)", "device: found 'gpu(0)'; must be auto, cpu or gpu; did you mean 'gpu'?"),
        ("threads_per_rank=0", "threads_per_rank: found 0; must be auto, or a whole number of at least 1"),
        ("threads_per_rank=true", "threads_per_rank: found true; must be auto, or a whole number of at least 1"),
        ("batch=32", "batch: found 32; must be a mapping with the keys size, shards"),
        ("batch.size=1.0", "batch.size: found 1.0; must be a whole number; write 1"),
        ("batch.shards=auto", "batch.shards: found 'auto'; must be a whole number"),
        (
            "data.validation=1.5",
            "data.validation: found 1.5; must be a whole number of samples, a fraction below 1 (0.1), ",
        ),
        ("data.validation=-1", "data.validation: found -1; must be a whole number of samples, "),
        ("data.validation=true", "data.validation: found true; must be a whole number of samples, "),
        (
            "data.scale=0",
            "data.scale: found 0; must be a finite number above 0, keep (which leaves integers unchanged), or null",
        ),
        ("data.scale=leave", "data.scale: found 'leave'; must be a finite number above 0, keep "),
        ("data.augment.mean=0.5", "data.augment.mean: found 0.5; must be a list, such as [0.5]"),
        ("data.augment.std=[1, 0]", "data.augment.std.1: found 0; must be above 0"),
        ("evaluation.metrics=accuracy", "evaluation.metrics: found 'accuracy'; must be a list, such as [accuracy]"),
        ("evaluation.every=1", "evaluation.every: 1 is not a length: write a length as '5ep' "),
        ("evaluation.every=0ep", "evaluation.every: found '0ep'; must be longer than 0, such as 1ep or 10it"),
        ("log.every=0", "log.every: found 0; must be longer than 0, such as 1ep or 10it"),
        ("optimizer.clip_norm=.inf", "optimizer.clip_norm: found .inf; must be a finite number"),
        ("optimizer.clip_norm=0", "optimizer.clip_norm: found 0; must be above 0"),
        ("optimizer.clip_value=.nan", "optimizer.clip_value: found .nan; must be a finite number"),
        ("optimizer.lr_mult={a: -1}", "optimizer.lr_mult.a: found -1; must be at least 0"),
        (
            "optimizer.params.momentum=1",
            "optimizer.params.momentum: found 1; must be at least 0 and below 1 (in float32)",
        ),
        (
            "optimizer.params.momentum=0.99999999",
            "optimizer.params.momentum: found 0.99999999; must be at least 0 and below 1 (in float32)",
        ),
        (
            "optimizer.params.momentum=-0.1",
            "optimizer.params.momentum: found -0.1; must be at least 0 and below 1 (in float32)",
        ),
        (
            "optimizer.params.momentum=true",
            "optimizer.params.momentum: found true; must be at least 0 and below 1 (in float32)",
        ),
        (
            "optimizer.params.momentum=big",
            "optimizer.params.momentum: found 'big'; must be at least 0 and below 1 (in float32)",
        ),
        (
            "lr.base=.inf",
            "lr.base: found .inf; must be a finite number above 0, auto (to run the learning-rate finder), or the path "
            "of a finder's result.json",
        ),
        ("lr.base=.nan", "lr.base: found .nan; must be a finite number above 0, auto"),
        ("lr.base=1e999", "lr.base: found .inf; must be a finite number above 0, auto"),
        ("lr.base=" + "9" * 400, "lr.base: found " + "9" * 60 + "...; must be a finite number above 0, auto"),
        ("lr.base=true", "lr.base: found true; must be a finite number above 0, auto"),
        ("lr.base=0", "lr.base: found 0; must be a finite number above 0, auto"),
        ("lr.scaling=log", "lr.scaling: found 'log'; must be linear, sqrt or none"),
        ("lr.warmup=5ep", "lr.warmup: found '5ep'; must be a mapping with the keys length, start, mode"),
        ("lr.warmup={}", "lr.warmup.length: is missing"),
        ("lr.warmup={length: 0ep}", "lr.warmup.length: a warm-up of length 0 has no effect: remove lr.warmup"),
        ("lr.warmup={length: 1ep, start: -1}", "lr.warmup.start: found -1; must be a finite number of at least 0, Nx"),
        (
            "lr.warmup={length: 1ep, start: 1e999x}",
            "lr.warmup.start: found '1e999x'; must be a finite number of at least 0",
        ),
        ("lr.warmup={length: 1ep, start: true}", "lr.warmup.start: found true; must be a finite number of at least 0"),
        ("lr.schedule=null", "lr.schedule: must be a mapping from one schedule's name to its parameters, "),
        ("lr.schedule={cosin: {}}", "lr.schedule.cosin: is not a schedule; did you mean 'cosine'? known: constant, "),
        (
            "lr.schedule={cosine: {min_l: 0}}",
            "lr.schedule.cosine.min_l: is not a parameter of cosine; did you mean 'min_lr'?",
        ),
        ("lr.plateau=3", "lr.plateau: found 3; must be a mapping with the keys monitor, mode, factor, patience"),
        ("lr.plateau={mode: lower}", "lr.plateau.mode: found 'lower'; must be min or max"),
        ("lr.plateau={factor: 1}", "lr.plateau.factor: found 1; must be below 1"),
        ("lr.plateau={factor: 0}", "lr.plateau.factor: found 0; must be above 0"),
        ("lr.plateau={patience: -1}", "lr.plateau.patience: found -1; must be at least 0"),
        ("lr.plateau={cooldown: 1ep}", "lr.plateau.cooldown: found '1ep'; must be a whole number"),
        (
            "lr.plateau={min_lr: -1}",
            "lr.plateau.min_lr: found -1; must be a finite number of at least 0, or Nx (N times the scaled base, such "
            "as 0.01x)",
        ),
        (
            "lr.plateau={threshold: 1}",
            "lr.plateau.threshold: 1 of the best value is never reached; give a fraction below 1 (0.01), or use "
            "threshold_mode: abs",
        ),
        ("lr.plateau={threshold_mode: best}", "lr.plateau.threshold_mode: found 'best'; must be rel or abs"),
        ("lr.plateau={monitor: f1}", "lr.plateau.monitor: 'f1' is not evaluated; choose one of loss, accuracy"),
        ("lr.plateau={eps: 1e-8}", "lr.plateau.eps: unknown key; known here: monitor, mode, factor"),
        (
            "ema=0.9",
            "ema: found 0.9; must be a mapping with the keys every, after, statistics, over, evaluate, decay, warmup",
        ),
        ("ema={decay: 1}", "ema.decay: found 1; must be below 1"),
        ("ema={decay: 0}", "ema.decay: found 0; must be above 0"),
        ("ema={every: 0it}", "ema.every: found '0it'; must be longer than 0, such as 1ep or 10it"),
        ("ema={after: 10}", "ema.after: 10 is not a length: write a length as '5ep' (epochs)"),
        ("ema={warmup: true}", "ema.warmup: found true; must be a mapping with the keys gamma, power"),
        ("ema={warmup: {gamma: 0}}", "ema.warmup.gamma: found 0; must be above 0"),
        ("ema={evaluate: both}", "ema.evaluate: found 'both'; must be beside or instead"),
        ("ema={statistics: none}", "ema.statistics: found 'none'; must be averaged, latest or recomputed"),
        ("ema={over: 1ep}", "ema.over: '1ep' has no effect with statistics: averaged; remove it"),
        ("swa={statistics: latest, over: 9it}", "swa.over: '9it' has no effect with statistics: latest; remove it"),
        ("swa={decay: 0.9}", "swa.decay: unknown key"),
        ("network.label_smoothing=1", "network.label_smoothing: found 1; must be below 1"),
        (
            "network={name: mlp, loss: l2, label_smoothing: 0.1}",
            "network.label_smoothing: 0.1 has no effect on the loss 'l2'; it is for softmax_cross_entropy, "
            "sigmoid_binary_cross_entropy, kl_div, logistic; remove it",
        ),
        ("train.early_stop={}", "train.early_stop.patience: is missing"),
        ("train.early_stop={patience: 0}", "train.early_stop.patience: found 0; must be at least 1"),
        ("train.early_stop={patience: 1, min_delta: -1}", "train.early_stop.min_delta: found -1; must be at least 0"),
        (
            "train.early_stop={patience: 1, monitor: f1}",
            "train.early_stop.monitor: 'f1' is not evaluated; choose one of loss, accuracy",
        ),
        ("lr.momentum=0.9x", "lr.momentum: momentum is never scaled: write a plain number, found '0.9x'"),
    ],
)
def test_each_refusal_names_the_key_what_was_found_and_what_is_allowed(refusal, override, line):
    lines = refusal(override)
    assert any(found.startswith(line) for found in lines), lines
    shown = override if len(override) <= 80 else override[:80] + "..."
    assert all(found.endswith(f" (from --set {shown})") for found in lines), lines
    assert len(lines) == (4 if "min_l:" in override else 2 if "lenght" in override else 1)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("amp=true", "mixed precision is not supported: MXNet's AMP patches its operators permanently"),
        ("network.dtype=float16", "mixed precision is not supported"),
        ("optimizer.multi_precision=true", "mixed precision is not supported"),
        ("sparse=true", "is not a setting: an embedding of your own network has sparse_grad=True (nn.Embedding), and"),
        ("network.sparse_grad=true", "is not a setting: an embedding of your own network has sparse_grad=True"),
        (
            "plateau=3",
            "is not a setting here: lr.plateau, beside a schedule, lowers its rates once evaluations no longer",
        ),
        ("lr.patience=3", "is not a setting here: lr.plateau, beside a schedule"),
        (
            "lr.schedule=plateau",
            "'plateau' is not a schedule, which is a function of the iteration: evaluations decide",
        ),
        ("lr.schedule={reduce_on_plateau: {patience: 3}}", "is not a schedule, which is a function of the iteration"),
        (
            "early_stopping=true",
            "is not a setting here: train.early_stop ends a run once evaluations no longer improve",
        ),
        ("accumulation=4", "is set through batch.shards: more shards than workers means that each worker accumulates"),
        ("batch.accumulation=4", "is set through batch.shards"),
    ],
)
def test_what_is_not_supported_says_why(refusal, override, sentence):
    (line,) = refusal(override)
    key = override.split("=")[0]
    assert line.startswith((f"{key}: {sentence}", f"{key}.reduce_on_plateau: {sentence}"))


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("learning_rate", "use lr.base and lr.schedule"),
        ("lr_scheduler", "use lr.schedule"),
        ("clip_gradient", "use optimizer.clip_value (each element) or optimizer.clip_norm (the whole gradient)"),
        ("rescale_grad", "the harness divides by the number of samples in the global batch"),
        ("param_dict", "the harness provides it"),
        ("param_idx2name", "the harness provides it"),
        ("begin_num_update", "the harness counts updates"),
        ("use_fused_step", "the harness leaves it to MXNet"),
        ("momentum_correction", "use lr.momentum_correction"),
        ("multi_precision", "mixed precision is not supported"),
    ],
)
def test_parameters_of_the_optimizer_that_the_harness_owns(refusal, name, instead):
    (line,) = refusal(optimizer=f"{{params: {{{name}: 1, wd: 0.1}}}}")
    assert line.startswith(f"optimizer.params.{name}: cannot be set here; ")
    assert instead in line


@pytest.mark.parametrize(
    ("lr", "optimizer", "expected"),
    [
        ("{schedule: 0.1, base: 0.1}", "{}", [f"lr.base: 0.1 {_PLAIN}"]),
        ("{schedule: 0.1, scaling: linear}", "{}", [f"lr.scaling: linear {_PLAIN}"]),
        ("{schedule: 0.1, scaling: sqrt}", "{}", [f"lr.scaling: sqrt {_PLAIN}"]),
        ("{schedule: 0.1, reference_batch: 256}", "{}", [f"lr.reference_batch: 256 {_PLAIN}"]),
        (
            "{schedule: 0.1, base: auto, scaling: linear, reference_batch: 8}",
            "{}",
            [f"lr.base: auto {_PLAIN}", f"lr.reference_batch: 8 {_PLAIN}", f"lr.scaling: linear {_PLAIN}"],
        ),
        (
            "{schedule: 0.1, base: 0.1, warmup: {length: 1ep, start: unscaled}, scaling: sqrt}",
            "{}",
            [f"lr.scaling: sqrt {_PLAIN}"],
        ),
        (
            "{schedule: 1x, base: 0.1, scaling: none, reference_batch: 256}",
            "{}",
            ["lr.reference_batch: 256 has no effect with scaling: none; remove one"],
        ),
        (
            "{schedule: 1x, base: auto, reference_batch: 256}",
            "{}",
            [
                "lr.reference_batch: 256 has no effect with base: auto, because the finder's own global batch is the "
                "reference"
            ],
        ),
        ("{schedule: 1x}", "{}", ["lr.base: is missing, but the plan uses multiples of the base (Nx)"]),
        (
            "{schedule: 0.1, warmup: {length: 1ep, start: 0.1x}}",
            "{}",
            ["lr.base: is missing, but the plan uses"],
        ),
        (
            "{schedule: 0.1, warmup: {length: 1ep, start: unscaled}}",
            "{}",
            ["lr.base: is missing, but the plan uses the base (warmup.start: unscaled)"],
        ),
        (
            "{schedule: 0.1, momentum_correction: true, momentum: 0.9}",
            "{name: rmsprop}",
            [
                "lr.momentum_correction: has no effect on 'rmsprop' as configured; it applies to sgd, nag, lars with",
                "lr.momentum: has no effect on 'rmsprop' as configured; it needs one of sgd, nag, lars, signum with "
                "optimizer.params.momentum above 0, or one of adam, adamw, adamax, lamb, whose beta1 it is",
            ],
        ),
        (
            "{schedule: 0.1, momentum_correction: false}",
            "{name: sgd}",
            ["lr.momentum_correction: has no effect on 'sgd' as configured; it applies to sgd, nag, lars with"],
        ),
        (
            "{schedule: 0.1, plateau: {min_lr: 0.1x}}",
            "{}",
            ["lr.base: is missing, but the plan uses multiples of the base (Nx); set lr.base"],
        ),
        (
            "{schedule: 0.1, momentum: 0.9}",
            "{name: sgd, params: {momentum: 0}}",
            ["lr.momentum: has no effect on 'sgd' as configured"],
        ),
    ],
)
def test_a_setting_without_effect_is_refused(refusal, lr, optimizer, expected):
    lines = refusal(lr=lr, optimizer=optimizer)
    assert len(lines) == len(expected)
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize("optimizer", ["sgd", "SGD", "nag", "lars"])
def test_momentum_correction_is_on_where_it_means_something(load, optimizer):
    with_momentum = f"{{name: {optimizer}, params: {{momentum: 0.9}}}}"
    assert load(optimizer=with_momentum).momentum_correction
    assert not load("lr.momentum_correction=false", optimizer=with_momentum).momentum_correction
    assert not load(optimizer=f"{{name: {optimizer}}}").momentum_correction
    assert load("lr.momentum=0.9", optimizer=with_momentum).lr.momentum is not None


def test_signum_has_momentum_but_no_correction(load):
    config = load("lr.momentum=0.9", optimizer="{name: signum}")
    assert config.optimizer.has_momentum
    assert not config.momentum_correction


def test_all_errors_at_once_each_with_file_and_key(refusal):
    lines = refusal(
        "batch.size=x",
        seed="-1",
        batch="{size: 4, shard: 2}",
        train="{epochs: 0}",
        network="{params: {}}",
        optimizer="{params: {learning_rate: 1, momentum: 2}, clip_norm: -1}",
        lr="{schedule: {cosine: {max_lr: 1y}}, warmup: {start: 0}, plateau: 1}",
    )
    paths = [line.split(":")[0] for line in lines]
    assert set(paths) == {
        "seed",
        "batch.size",
        "batch.shard",
        "train.epochs",
        "network.name",
        "optimizer.clip_norm",
        "lr.schedule.cosine.min_lr",
        "lr.schedule.cosine.max_lr",
        "lr.schedule.cosine.cycle_length",
        "lr.warmup.length",
        "lr.plateau",
    }
    assert [line.endswith("(from --set batch.size=x)") for line in lines] == [path == "batch.size" for path in paths]


def test_several_overrides_are_refused_at_once(refusal):
    lines = refusal("seed", "lr.schedule.x=1", "batch.size=[")
    assert lines == [
        "--set seed: must be key.path=value, such as lr.base=0.1",
        "--set lr.schedule.x=1: lr.schedule holds 0.1, which has no keys; set all of it: lr.schedule=...",
        "--set batch.size=[: its value: the text ends before every bracket and quote is closed",
    ]


def test_a_later_override_wins_and_is_the_one_blamed(refusal, load):
    assert load("seed=1", "seed=2").seed == 2
    assert refusal("seed=x", "seed=y") == ["seed: found 'y'; must be a whole number (from --set seed=y)"]


@pytest.mark.parametrize("override", ["lr.base=1", ()])
@pytest.mark.parametrize(("text", "found"), [("", "is empty"), ("- a\n", "found ['a']"), ("text", "found 'text'")])
def test_a_file_without_a_mapping(write_config, override, text, found):
    path = write_config(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override] if override else [])
    assert str(caught.value) == f"{path}: {found}; must be a mapping of settings with at least train, network and lr"


def test_missing_sections_are_named_with_their_keys(write_config):
    with pytest.raises(ConfigError) as caught:
        load_config(write_config("seed: 1\n"))
    assert [line.split(": ", 1)[1].split(":")[0] for line in str(caught.value).splitlines()] == [
        "train",
        "network",
        "lr",
    ]
    assert "train: is missing; give a mapping with the keys epochs, iterations, last_batch" in str(caught.value)


@pytest.mark.parametrize("value", ["1e-3", "1E-3", ".001", "0.001", "+1.e-3"])
def test_numbers_however_written(load, value):
    assert load(f"lr.base={value}", "lr.schedule=1x").lr.base == 0.001


def test_whole_numbers_do_for_numbers_but_not_the_other_way(load):
    config = load("optimizer.clip_norm=1", "data.validation=0.25", "data.augment.mean=[1, 0.5]")
    assert (config.optimizer.clip_norm, config.data.validation, config.data.augment.mean) == (1.0, 0.25, [1.0, 0.5])
    assert isinstance(load("data.validation=5").data.validation, int)


def _everything():
    return {
        "name": "1e5",
        "output": "off",
        "seed": 7,
        "comm": "single",
        "sum": "engine",
        "compression": "fp16",
        "device": "auto",
        "devices": ["cpu(0)", "cpu(1)"],
        "kvstore": "device",
        "update_on_kvstore": True,
        "threads_per_rank": 2,
        "data": {
            "name": "npy",
            "root": "08",
            "validation": 0.1,
            "scale": "keep",
            "augment": {
                "pad_crop": 1,
                "flip": True,
                "mean": [0.1],
                "std": [1e-7],
                "brightness": 0.4,
                "contrast": 0.3,
                "saturation": 0.2,
                "hue": 0.1,
                "lighting": 0.05,
                "erase": 0.25,
            },
            "transform": "mine:transform",
            "collate": {"pad": {"value": -1}},
            "pictures": {
                "train": {"rec": ["a.rec", "b.rec"], "idx": None, "folder": None, "lst": None},
                "validation": {"rec": "c.rec", "idx": "c.idx"},
                "test": {"folder": "d", "lst": "d.lst"},
                "num_classes": 3,
                "class_names": "names.txt",
                "size": [96, 128],
                "resize": 140,
                "crop": "random",
                "pad": 2,
                "area": [0.5, 1.0],
                "ratio": [0.9, 1.1],
                "damaged": "replace",
            },
            "workers": 2,
            "worker_kind": "process",
            "prefetch": 4,
            "timeout_s": 30.0,
            "bucket": {"by": "data[1]", "widths": [8, 16]},
            "batches": None,
            "params": {"num_classes": 3, "text": "1e5", "nested": {"yes": ["1:30", None, 1e22, False]}},
        },
        "batch": {"size": 8, "shards": 4},
        "train": {
            "iterations": 50,
            "last_batch": "keep",
            "tokens_per_sample": 12,
            "early_stop": {"monitor": "mse", "mode": "min", "patience": 4, "min_delta": 0.01},
        },
        "evaluation": {"every": "0.00001ep", "metrics": ["accuracy", "mse"]},
        "network": {
            "name": "cnn",
            "initializer": {"xavier": {"magnitude": 2}},
            "loss_params": {"weight": 2.0},
            "label_smoothing": 0.1,
            "forward": "mine:forward",
        },
        "optimizer": {
            "name": "nag",
            "params": {"momentum": 0.9},
            "lr_mult": {"features.0.*": 0.1},
            "layer_decay": {"rate": 0.5, "layers": ["a.#.*", ["b", "c"]]},
            "wd_mult": {"*": 2},
            "decay_bias_and_norm": True,
            "clip_norm": 1,
            "clip_value": 0.5,
        },
        "lr": {
            "base": 0.1,
            "reference_batch": 256,
            "scaling": "sqrt",
            "warmup": {"length": "120tok", "start": "0.1 x", "mode": "overlap", "shape": "poly", "pwr": 3},
            "momentum_correction": False,
            "stretch": 0.5,
            "schedule": {"linear_cool_down": {"schedule": "1x", "start_idx": "30%", "finish_lr": 0, "length": "20it"}},
            "momentum": {
                "cyclical": {"schedule_class": "triangular", "cycle_length": "25it", "min_lr": 0.8, "max_lr": 0.9}
            },
            "plateau": {
                "monitor": "accuracy",
                "mode": "max",
                "factor": 0.5,
                "patience": 3,
                "cooldown": 1,
                "min_lr": "0.01x",
                "threshold": 0.002,
                "threshold_mode": "abs",
            },
        },
        "ema": {
            "decay": 0.99,
            "warmup": {"gamma": 10.0, "power": 0.75},
            "every": "4it",
            "after": "10%",
            "statistics": "recomputed",
            "over": "30it",
            "evaluate": "instead",
        },
        "swa": None,
        "finder": {
            "lr_start": 1e-5,
            "lr_end": 1.0,
            "lr_multiplier": 1.2,
            "num_iterations": None,
            "spacing": "exponential",
            "max_iterations": 200,
            "smoothing": 0.2,
            "min_iter": 10,
            "growth": 3.0,
            "probes": 4,
            "repeats": 2,
            "rule": "valley",
            "on": "validation",
            "held_out_batches": 4,
        },
        "init": {"from": "a.params", "match": "all", "freeze": ["features.*"]},
        "checkpoint": {
            "every": "10min",
            "keep": 5,
            "best": "accuracy",
            "best_is": "highest",
            "on_failure": "continue",
        },
        "log": {"every": "5%", "tensorboard": True},
        "hooks": ["mine:tell", {"harness.hooks.prometheus:textfile": {"folder": "/tmp"}}],
        "hooks_fail": "stop",
        "elastic": {"wait_s": 60.5},
        "guard": {
            "verify_every": "50it",
            "stall_after_start_s": 50.5,
            "stall_after_s": 60,
            "stall_after_first_s": 61.5,
            "stall_after_evaluation_s": 62,
            "divergence": {"policy": "rewind", "at_most": 3, "lr_factor": 0.25},
        },
    }


def _streams():
    """What goes with neither a smaller last batch nor samples that are held out."""
    network = {**BASE["network"], "state": "mine:begin"}
    return {**BASE, "network": network, "evaluation": {"streams": 10}}


@pytest.mark.parametrize("raw", [BASE, _everything(), _streams()], ids=["least", "everything", "streams"])
def test_plain_data_and_yaml_give_the_same_configuration_back(raw, tmp_path):
    config = parse_config(raw)
    assert parse_config(config.plain()) == config
    path = tmp_path / "again.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert again.fingerprint() == config.fingerprint()
    assert dump_config(again) == dump_config(config)
    json.dumps(config.plain(), allow_nan=False)


def test_everything_really_is_everything():
    def keys(value, model):
        assert set(value) >= {field.alias or name for name, field in model.model_fields.items()} - {
            "params",
            "download",
        } - {
            "loss",
            "hybridize",
            "epochs",
            "state",
            "streams",
        }
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                keys(value[name], field.annotation)

    keys(_everything(), type(parse_config(BASE)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_configurations_that_are_shipped_make_plans(path, workers):
    config = load_config(path)
    samples = {"digits": 1437, "mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000, "records": 1_281_167}[
        config.data.name
    ]
    shards = resolve_shards(config, workers)
    sizes = Sizes.of(config.train, num_samples=samples, shards=shards, batch_size=config.batch.size)
    plan = LRPlan(config.lr, sizes)
    rates = [plan.lr(t) for t in plan.rows()]
    assert all(math.isfinite(rate) and rate >= 0 for rate in rates)
    assert max(rates) > 0
    assert parse_config(config.plain()) == config
    assert config.run_name == path.stem
    assert path.read_text().startswith("# ")


def test_there_are_configurations_to_look_at():
    assert {"digits", "one_cycle", "cifar10_resnet18", "imagenet_resnet50"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "output=elsewhere",
        "log.every=1it",
        "comm=single",
        "sum=engine",
        "device=cpu",
        "data.root=/a",
        "data.download=true",
    ],
)
def test_fingerprint_ignores_where_and_how_loudly_a_run_goes(load, override):
    assert load(override).fingerprint() == load().fingerprint()
    assert load(override) != load()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "batch.size=33",
        "batch.shards=2",
        "train.epochs=3",
        "train.last_batch=keep",
        "threads_per_rank=2",
        "data.name=mnist",
        "data.validation=5",
        "data.augment.flip=true",
        "data.transform=mine:transform",
        "data.collate=pad",
        "data.bucket.widths=8",
        "data.batches=mine:batches",
        "network.params.hidden=[3]",
        "network.initializer=normal",
        "network.hybridize=false",
        "network.loss=l2",
        "optimizer.name=adam",
        "optimizer.params.wd=0.1",
        "optimizer.clip_norm=1",
        "optimizer.lr_mult={a: 2}",
        "optimizer.layer_decay={rate: 0.5, layers: [a]}",
        "lr.schedule=0.2",
        "lr.warmup={length: 1it}",
        "init.from=a",
    ],
)
def test_fingerprint_sees_what_decides_the_result(load, override):
    assert load(override).fingerprint() != load().fingerprint()


def test_fingerprint_does_not_see_spelling(load):
    spelt = load(
        "lr.warmup={start: 0.0, length: 1.0ep}",
        "optimizer.params={wd: 0.1, momentum: 0.9}",
        "lr.schedule={constant: {lr: 0.1}}",
    )
    plain = load("optimizer.params={momentum: 0.9, wd: 0.1}", "lr.warmup={length: 1ep}")
    assert spelt.fingerprint() == plain.fingerprint()


def test_resolved_writes_numbers_and_changes_nothing_else(write_config):
    path = write_config()
    config = load_config(path)
    resolved = config.resolved(shards=4, threads=2)
    assert (resolved.batch.shards, resolved.threads_per_rank) == (4, 2)
    assert (config.batch.shards, config.threads_per_rank) == (None, "auto")
    assert resolved.source == config.source == str(path)
    assert resolved.fingerprint() != config.fingerprint()
    expected = config.plain()
    expected["batch"]["shards"], expected["threads_per_rank"], expected["name"] = 4, 2, path.stem
    assert resolved.plain() == expected
    assert parse_config(resolved.plain()) == resolved


def test_run_name_is_the_name_else_the_stem(load):
    assert load().run_name == "c"
    assert load("name=x.y").run_name == "x.y"


def test_a_run_has_one_average(load):
    with pytest.raises(ConfigError, match=r"swa: is not possible beside ema: a run has one average; remove one"):
        load("ema={}", "swa={}")
    assert load().average is None
    assert [load(f"{key}={{}}").average[0] for key in ("ema", "swa")] == ["ema", "swa"]


def test_a_configuration_cannot_be_changed(load):
    with pytest.raises(ValueError, match="frozen"):
        load().seed = 3


def test_the_section_lr_alone_is_read_as_in_a_file(load):
    raw = {"base": 0.2, "warmup": {"length": "1ep"}, "schedule": {"constant": {"lr": "1x"}}}
    assert parse_lr(raw) == load(f"lr={json.dumps(raw)}").lr


def test_the_mistakes_of_a_section_alone_are_all_told_with_their_keys():
    with pytest.raises(ConfigError) as caught:
        parse_lr({"scaling": "lin", "shedule": 3}, "own.py")
    assert str(caught.value) == (
        "own.py: lr.scaling: found 'lin'; must be linear, sqrt or none; did you mean 'linear'?\n"
        "own.py: lr.schedule: is missing\n"
        "own.py: lr.shedule: unknown key; did you mean 'schedule'? known here: base, reference_batch, scaling, warmup, "
        "momentum_correction, schedule, stretch, momentum, plateau"
    )


def test_a_plateau_is_not_for_a_loop_of_ones_own():
    with pytest.raises(ConfigError) as caught:
        parse_lr({"schedule": 0.1, "plateau": {}}, "own.py")
    assert str(caught.value) == (
        "own.py: lr.plateau: is for evaluations of launch/train.py; in your own loop use harness.plan.PlateauRule "
        "(plateau.md)"
    )
