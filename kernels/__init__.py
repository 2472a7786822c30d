"""The Triton kernels, imported as `kdlab.kernels`.

row_state.py  the associative state of a row: one tile's sums, how two combine, how they finish
forward.py    one program a row: read both tensors once, write the row's loss and its state
backward.py   one program a tile: read both tensors once, write the gradient once
launch.py     tile sizes, warps and the launches

Nothing here is imported before the first CUDA tensor (or TRITON_INTERPRET=1) asks for it.
"""
