"""A run from its first line to its last; its modules are imported one by one, so that this stays light.

- `prepare`: configuration -> `Run` (`run`), with its data (`samples`) and resume point (`resume`);
- `resolve`: what a checkpoint makes of configuration and plan (`conflicts`, `plans`), pure;
- `build`: run -> learner; `find`: the learning-rate finder of a run;
- `loop`: from top to bottom, what happens in every iteration; `state`: what it carries from one to the next;
- `log`, `saving`, `divergence`, `decisions`, `hooks`: what the loop calls.
"""
