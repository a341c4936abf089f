"""One job in a process of its own: prepares, trains, tells its job's folder of it, and outlives who started it."""
