"""Train a run of MXNet's to its end in PyTorch, from one of its checkpoints, on the ranks of torchrun.

Weights and optimizer are those that `launch/bridge.py export` wrote; rates and batches are those that the run would
have had. Run it from the project folder, after the commands in examples/README.md:
torchrun --nproc-per-node 2 examples/leaving/train.py runs/leaving-digits/checkpoints/iteration-000000048
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from harness.bridge.continuing import open_run
from harness.bridge.data import EvaluationBatches, TrainingBatches, as_loader
from harness.bridge.of_torch import biased_variances
from harness.bridge.rates import as_torch
from harness.bridge.torch_calls import build_loss
from harness.bridge.updates import backward
from harness.comm import read_launch
from harness.command import report_failure
from harness.errors import ConfigError, HarnessError
from harness.shipped import name_command


def main(checkpoint: Path) -> None:
    """Train on every rank; rank 0 prints, and writes `final.pt`."""
    launch, on_gpu = read_launch(), torch.cuda.is_available()
    device = torch.device("cuda", launch.local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False  # convolutions in float32, as before
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    exported = checkpoint.parents[1] / "bridge"

    with open_run(checkpoint) as run:
        module, optimizer = load(checkpoint, run.iteration, device)
        model = DistributedDataParallel(module, forward_sync_buffers=False)  # `backward` keeps them equal
        rates = as_torch(run.plan, optimizer, iteration=run.iteration)
        loss_of = build_loss(run.config.network.loss, run.config.network.loss_params, axis=-1)
        total = run.sizes.num_iterations
        every = run.sizes.iterations(run.config.evaluation.every)
        torch.manual_seed(1000 * run.config.seed + launch.rank)  # dropout is each rank's own

        model.train()
        for update in as_loader(TrainingBatches(run), pin_memory=on_gpu):
            with biased_variances(module):  # MXNet's running variances are over n, and PyTorch's over n - 1
                loss = backward(model, update.to(device), loss_of)
            if update.t % every == 0 or update.t == total:
                distributed.all_reduce(loss)
                tell(launch.rank, f"[{update.t}/{total}] lr {rates.get_last_lr()[0]:.5g}  loss {loss.item():.4f}")
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            if update.t % every == 0 or update.t == total:
                mean, accuracy = evaluate(module, EvaluationBatches(run), loss_of, device)
                tell(launch.rank, f"[{update.t}/{total}] test: loss {mean:.4f}  accuracy {accuracy:.4f}")

    if launch.rank == 0:
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "rates": rates.state_dict()}
        torch.save(state, exported / "final.pt")
        print(f"wrote {exported / 'final.pt'}")
    distributed.destroy_process_group()


def load(checkpoint: Path, iteration: int, device: torch.device) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The module and its optimizer as they were exported from a checkpoint, on a device."""
    program = checkpoint.parents[1] / "bridge" / "go_on.py"
    sys.path.insert(0, str(Path.cwd()))  # where the module's own code is found
    names = runpy.run_path(str(program)) if program.exists() else {}
    if names.get("iteration") != iteration:  # a run's folder has one export, of whichever checkpoint was the last
        found = f"is the export of iteration {names['iteration']}" if "iteration" in names else "is no such export"
        command = f"{name_command('bridge')} export {checkpoint} --module MODULE:FUNCTION"
        raise ConfigError(
            f"{program}: {found}, and rates and batches would be those after iteration {iteration}; export that "
            f"checkpoint: `{command}`"
        ).on_all_ranks()
    module, optimizer = names["module"], names["optimizer"]
    state = optimizer.state_dict()
    module.to(device)
    optimizer.load_state_dict(state)  # which puts it where the parameters are now
    return module, optimizer


def evaluate(module: torch.nn.Module, batches: EvaluationBatches, loss_of, device: torch.device) -> tuple[float, float]:
    """Mean loss and accuracy over the samples of all ranks."""
    module.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    with torch.no_grad():
        for batch in batches:
            on_device = batch.to(device)
            prediction = module(on_device.data)
            right = (prediction.argmax(1) == on_device.label).sum()
            sums += torch.stack([loss_of(prediction, on_device.label).sum(), right, right.new_tensor(len(prediction))])
    module.train()
    distributed.all_reduce(sums)
    return (sums[0] / sums[2]).item(), (sums[1] / sums[2]).item()


def tell(rank: int, line: str) -> None:
    """Print on one rank."""
    if rank == 0:
        print(line, flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except HarnessError as error:
        sys.exit(report_failure(error, read_launch().rank))
