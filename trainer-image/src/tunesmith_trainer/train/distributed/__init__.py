"""Distributed training: DDP and DeepSpeed set-up, rendezvous of workers, collectives."""
