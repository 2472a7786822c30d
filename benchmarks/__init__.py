"""What `distillation_loss` costs, beside what a user would pick instead.

checkout.py   find kdlab.kernels in a checkout that is not installed
cases.py      which sizes, dtypes and divergences are measured
peers.py      who is measured: eager PyTorch, torch.compile, Liger, kdlab
measure.py    how: inputs past the cache, interleaved times, peak memory, the copy as the yardstick
accuracy.py   the error of a loss and its gradient against float64
run.py        `make bench`: measure and write results/<device>-<date>.json
report.py     `make bench-report`: the README's table and the plots, from results/ alone
tune.py       `make gpu-tune`: the kernels' tile shapes beside each other, on a GPU
deadline.py   a pytest plugin that ends a run of tests in time
gpu_check.py  `make gpu-check`: tests, notebooks and a short benchmark on a machine with a GPU
"""
