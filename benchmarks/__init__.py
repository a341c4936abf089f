"""Measurements: not run by the tests, because a shared machine's times say nothing about right or wrong."""
