"""GPUs of a worker: what the run asks for, and the check that they can be used."""
