"""Suites: own data, the built-in safety suites, tasks of lm-evaluation-harness, users' containers."""
