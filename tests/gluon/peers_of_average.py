"""Write `averages.json`: moving averages of random weights by PyTorch's AveragedModel and timm's ModelEmaV3.

And `swa.json`: plain means by PyTorch's AveragedModel, and the statistics of batch norm by its `update_bn`; and
`smoothing.json`: losses of smoothed labels by its `cross_entropy`.

Not run by tests. In an environment of its own, which has NumPy, PyTorch (CPU) and timm's file `timm/utils/model_ema.py`
(timm itself needs torchvision), without this project:

    python tests/gluon/peers_of_average.py PATH/TO/model_ema.py > tests/gluon/averages.json
    python tests/gluon/peers_of_average.py swa > tests/gluon/swa.json
    python tests/gluon/peers_of_average.py smoothing > tests/model/smoothing.json
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import random
import sys

UPDATES = 12


def network(torch):
    """One weight and the running statistics of a batch norm."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    return net.train()


def numbers_of(net) -> dict[str, list[float]]:
    """Every floating-point array, flat."""
    return {
        name: array.detach().reshape(-1).tolist()
        for name, array in net.state_dict().items()
        if array.is_floating_point() and not name.endswith("n_averaged")
    }


def walk(torch, net) -> None:
    """Change every array at random, as a training would."""
    with torch.no_grad():
        for array in net.state_dict().values():
            if array.is_floating_point():
                array.add_(torch.randn_like(array) * 0.3)


def case(torch, peer: str, settings: dict, module) -> dict:
    """Weights of every update, and the average after each."""
    net = network(torch)
    if peer == "torch":
        swa_utils = importlib.import_module("torch.optim.swa_utils")
        decay = settings["decay"]
        function = None if decay is None else swa_utils.get_ema_multi_avg_fn(decay)
        average = swa_utils.AveragedModel(net, multi_avg_fn=function, use_buffers=settings["use_buffers"])
    else:
        average = module.ModelEmaV3(net, **settings)
    weights, averages = [], []
    for step in range(1, UPDATES + 1):
        walk(torch, net)
        if peer == "torch":
            average.update_parameters(net)
        else:
            average.update(net, step=step)
        weights.append(numbers_of(net))
        averages.append(numbers_of(average.module))
    return {"peer": peer, "settings": settings, "weights": weights, "averages": averages}


def updated_statistics(torch, batches: int) -> dict:
    """Batch norm of the data, a layer and batch norm of what it gives, by batches of different sizes."""
    norm = torch.nn.BatchNorm1d
    net = torch.nn.Sequential(norm(3), torch.nn.Linear(3, 4, bias=False), norm(4))
    walk(torch, net)
    given = [torch.randn(5 + number, 3) * (1 + number) + number for number in range(batches)]
    importlib.import_module("torch.optim.swa_utils").update_bn(given, net)
    return {
        "weight": net[1].weight.tolist(),
        "affine": [[layer.weight.tolist(), layer.bias.tolist()] for layer in (net[0], net[2])],
        "batches": [one.tolist() for one in given],
        "statistics": [[layer.running_mean.tolist(), layer.running_var.tolist()] for layer in (net[0], net[2])],
    }


def smoothed(torch, smoothing: float, is_soft: bool) -> dict:
    """Losses and their gradients of random predictions, for classes or shares of them."""
    prediction = (torch.randn(6, 5) * 2).requires_grad_()
    label = torch.softmax(torch.randn(6, 5), dim=1) if is_soft else torch.randint(5, (6,))
    function = torch.nn.functional.cross_entropy
    losses = function(prediction, label, label_smoothing=smoothing, reduction="none")
    losses.sum().backward()
    return {
        "smoothing": smoothing,
        "prediction": prediction.tolist(),
        "label": label.tolist(),
        "losses": losses.tolist(),
        "gradient": prediction.grad.tolist(),
    }


def write(cases: list[dict]) -> None:
    """One case a line."""
    lines = ",\n ".join(json.dumps(one) for one in cases)
    sys.stdout.write(f"[\n {lines}\n]\n")


def main() -> None:
    """Write all cases."""
    torch = importlib.import_module("torch")
    torch.manual_seed(27)
    if sys.argv[1] == "swa":
        means = [case(torch, "torch", {"decay": None, "use_buffers": buffers}, None) for buffers in (True, False)]
        write([*means, *(updated_statistics(torch, batches) for batches in (1, 2, 5))])
        return
    if sys.argv[1] == "smoothing":
        write([smoothed(torch, s, is_soft) for s in (0.0, 0.1, 0.37, 0.9) for is_soft in (False, True)])
        return
    spec = importlib.util.spec_from_file_location("model_ema", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    generator, cases = random.Random(27), []
    for use_buffers in (True, False):
        for decay in (0.5, 0.9, 0.999, round(generator.uniform(0.6, 0.99), 4)):
            cases.append(case(torch, "torch", {"decay": decay, "use_buffers": use_buffers}, module))
    for warmup in (False, True):
        for gamma, power in ((1.0, 2 / 3), (1.0, 3 / 4), (10.0, 1.0)):
            for update_after_step in (0, 4):
                settings = {"decay": 0.9, "use_warmup": warmup, "warmup_gamma": gamma, "warmup_power": power}
                cases.append(case(torch, "timm", {**settings, "update_after_step": update_after_step}, module))
    write(cases)


if __name__ == "__main__":
    main()
