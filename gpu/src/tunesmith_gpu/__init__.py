"""Check of a pod's GPUs, shared by trainer and engine: facts about GPUs, driver and torch, and their judgment."""
