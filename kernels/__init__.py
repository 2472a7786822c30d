"""The Triton kernels, imported as `kdlab.kernels`.

row_state.py  the associative state of a row: how it takes a tile, how two combine, how it finishes
softened.py   a tile whose row is known: p and q, the sums of js and tv, the slopes of all
forward.py    read both tensors once, write the row's loss and state
lookback.py   loss and gradient in one launch, for rows that are longer than a tile
differences.py  the same for mse_logits without labels, which needs one sweep only
backward.py   one program a tile: read both tensors once, write the gradients that are wanted
scale.py      multiply a gradient in place, or leave it where the factor is 1
launch.py     tile sizes, warps, how many programs share a row, and the launches
resources.py  registers, spills and vector widths, without a GPU
instructions.py  how many a logit costs, from the disassembly

Nothing here is imported before the first CUDA tensor (or TRITON_INTERPRET=1) asks for it.
"""
