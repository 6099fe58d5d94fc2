"""Write `averages.json`: moving averages of random weights by PyTorch's AveragedModel and timm's ModelEmaV3.

Not run by tests. In an environment of its own, which has NumPy, PyTorch (CPU) and timm's file `timm/utils/model_ema.py`
(timm itself needs torchvision), without this project:

    python tests/gluon/peers_of_average.py PATH/TO/model_ema.py > tests/gluon/averages.json
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
        function = swa_utils.get_ema_multi_avg_fn(settings["decay"])
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


def main() -> None:
    """Write all cases."""
    torch = importlib.import_module("torch")
    spec = importlib.util.spec_from_file_location("model_ema", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(27)
    generator, cases = random.Random(27), []
    for use_buffers in (True, False):
        for decay in (0.5, 0.9, 0.999, round(generator.uniform(0.6, 0.99), 4)):
            cases.append(case(torch, "torch", {"decay": decay, "use_buffers": use_buffers}, module))
    for warmup in (False, True):
        for gamma, power in ((1.0, 2 / 3), (1.0, 3 / 4), (10.0, 1.0)):
            for update_after_step in (0, 4):
                settings = {"decay": 0.9, "use_warmup": warmup, "warmup_gamma": gamma, "warmup_power": power}
                cases.append(case(torch, "timm", {**settings, "update_after_step": update_after_step}, module))
    lines = ",\n ".join(json.dumps(one) for one in cases)
    sys.stdout.write(f"[\n {lines}\n]\n")


if __name__ == "__main__":
    main()
