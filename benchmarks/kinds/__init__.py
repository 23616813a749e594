"""Kinds of values, and the ways on which they travel: ``python -m benchmarks.kinds --help``.

Whatever is large goes by reference, however it is made. There is a value of each kind that
programs have been seen to pass to tasks, and of some that nobody thought of. The tests have
the same ones.
"""
