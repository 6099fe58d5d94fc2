"""The way to PyTorch: which array goes where, the proof that it is the same network, and the optimizer's state.

`layers.py` says what both sides tell of their layers, `of_gluon.py` and `of_torch.py` read and run one side each;
`proposal.py` pairs layers, `mapping.py` holds which array comes from which, `verify.py` compares the two networks and
`diagnosis.py` names what is wrong; `optimizers.py` carries the optimizer's state over. `continuing.py` opens a run for
programs of PyTorch under torchrun, which have its rates by `rates.py`, its batches by `data.py` and its gradients by
`updates.py`. The only folder that imports torch, and nothing but its command imports it.
"""
