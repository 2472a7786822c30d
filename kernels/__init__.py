"""The Triton kernels, imported as `kdlab.kernels`.

row_state.py  the associative state of a row: how it takes a tile, how two combine, how it finishes
softened.py   a tile whose row is known: p and q, the sums of js and tv, the slopes of all
sweep.py      one program along a row, tile by tile
results.py    what is written of a row: its loss, its statistics
forward.py    one program a row: read both tensors once, write the loss
parts.py      a row in parts, which programs read and join: for few rows of many classes
teams.py      loss and gradient in one launch: programs at once hold a row of many tiles together
lookback.py   the same by programs in any order, for what no team can hold: two sweeps, one from L2
differences.py  the same for mse_logits without labels, which needs one sweep only
backward.py   one program a tile: read both tensors once, write the gradients that are wanted
scale.py      multiply a gradient in place, or leave it where the factor is 1
tiles.py      how wide: tiles, warps, how many programs share a row
launch.py     the launches
resources.py  registers, spills and vector widths, without a GPU
instructions.py  how many a logit costs, from the disassembly

Nothing here is imported before the first CUDA tensor (or TRITON_INTERPRET=1) asks for it.
"""
