"""Tells the user's own functions what happens in a run, on rank 0, and takes what they ask for.

- `events`: what a hook is told, and what it may ask: `Opened`, `Logged`, `Evaluated`, `Saved`, `Amended`,
  `WorldChanged`, `Ended`; `Ask`;
- `telling`: calls hooks, one after the other; `keeping`: puts back what a hook changes in the process;
- `mlflow`, `wandb`, `prometheus`: hooks that ship with the harness, each imported by its name.

A hook gets neither parameters nor ranks, and nothing here knows them.
"""

from harness.hooks.events import Amended, Ask, Ended, Evaluated, Event, Hook, Logged, Opened, Saved, WorldChanged
from harness.hooks.telling import Hooks, given_hooks, load_hooks

__all__ = [
    "Amended",
    "Ask",
    "Ended",
    "Evaluated",
    "Event",
    "Hook",
    "Hooks",
    "Logged",
    "Opened",
    "Saved",
    "WorldChanged",
    "given_hooks",
    "load_hooks",
]
