"""The commands: parse, build, run. `scripts.py` starts them, as `harness-train` and as `python launch/train.py`."""
