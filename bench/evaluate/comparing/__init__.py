"""Comparing methods: points chosen on validation within a budget, curves, and verdicts."""
