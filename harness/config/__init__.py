"""The run's configuration: YAML and `--set` in, one frozen and checked `RunConfig` out."""

from harness.config.messages import Problem, config_error
from harness.config.model import DataConfig, LRConfig, RunConfig, TrainConfig, dump_config, load_config, parse_config

__all__ = [
    "DataConfig",
    "LRConfig",
    "Problem",
    "RunConfig",
    "TrainConfig",
    "config_error",
    "dump_config",
    "load_config",
    "parse_config",
]
