"""Runs in this process, whose folders are closed when a test ends."""

from __future__ import annotations

from harness.comm import SingleWorld
from harness.config import load_config
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions


def run_builder(common, tmp_path, request):
    """Makes runs of the digits by name, with the settings that they have in common and others."""

    def build(name, *settings, guard=None, resume="never", on_conflict="error"):
        words = [*common, f"output={tmp_path}", f"name={name}", *settings]
        config = load_config("configs/digits.yaml", words)
        start = StartOptions(resume=str(resume), on_conflict=on_conflict)
        run = prepare_run(config, SingleWorld(), threads=1, guard=guard, start=start)
        request.addfinalizer(run.folder.close)
        return run

    return build
