"""The run's configuration: YAML and `--set` in, one frozen and checked `RunConfig` out."""

from harness.config.loading import dump_config, load_config, parse_config, parse_lr
from harness.config.lr import LRConfig
from harness.config.messages import config_error
from harness.config.model import RunConfig, deciding
from harness.config.running import GuardConfig
from harness.config.sections import DataConfig, TrainConfig
from harness.config.values import Problem

__all__ = [
    "DataConfig",
    "GuardConfig",
    "LRConfig",
    "Problem",
    "RunConfig",
    "TrainConfig",
    "config_error",
    "deciding",
    "dump_config",
    "load_config",
    "parse_config",
    "parse_lr",
]
