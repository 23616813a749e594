"""Benchmarks: peers side by side in one run, as ratios.

Run ``python -m benchmarks --help``.
"""
