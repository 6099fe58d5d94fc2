"""The way to PyTorch: which array goes where, the proof that it is the same network, and the optimizer's state.

`layers.py` says what both sides tell of their layers, `of_gluon.py` and `of_torch.py` read and run one side each;
`proposal.py` pairs layers, `mapping.py` holds which array comes from which, `verify.py` compares the two networks and
`diagnosis.py` names what is wrong; `optimizers.py` carries the optimizer's state over. The only folder that imports
torch, and nothing but its command imports it.
"""
