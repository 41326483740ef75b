"""Runner of `make test`: parallel stages, their results, coverage per folder."""
