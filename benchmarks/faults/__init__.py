"""What a queue of jobs survives, tried out on real workers: `python -m benchmarks.faults --json OUT [--short]`."""
