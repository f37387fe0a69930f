"""What `handgrad bench` is measured against: each computation as its own field writes it, and nothing of handgrad.

A module of this folder has

    ways(**sizes)          name -> function of the arguments, for the workload's sizes
    parameters(theirs)     handgrad's parameters under this program's names and in its layout; gradients likewise

The latter renames, reorders and joins and does nothing else, so that both sides compute the same numbers. Where the
first argument isn't a model's parameters and the result not (value, gradient), a module may have `arguments(*theirs)`
and `results(theirs)` in its place; with none of these, both sides call and lay out everything alike. A way whose name
contains "checkpoint" trades time for memory. Modules whose names end in _torch are PyTorch's.
"""
