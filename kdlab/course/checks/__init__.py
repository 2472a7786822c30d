"""The checks of the exercises, one file a notebook: chapter03.py has those of 03_algorithm."""
