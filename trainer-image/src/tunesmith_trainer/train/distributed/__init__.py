"""Distributed training: parallelism of devices and rendezvous of workers."""
