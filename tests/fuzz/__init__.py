"""Fuzzing what reads bytes that others wrote: targets, a corpus for each, and what was found (docs/bad-input.md).

The targets (`targets`) are plain functions of bytes. tests/test_fuzz.py replays every file of ``corpus`` and
``regressions`` through them everywhere; with atheris (`run`) a fuzzer that watches the coverage makes new ones.
"""
