"""Sandbox for the code of answers, which runs against tests and can harm nothing.

What holds wherever it runs (Linux on x86-64 or arm64, Landlock from kernel 5.13 on; otherwise nothing is run):

- seccomp: no sockets, no new processes or programs, no signals, tracing, mounts or name spaces.
- Landlock: reads of Python's own files and the system's libraries alone; writes to a folder of its own alone.
- Limits: processor time, wall time, address space, size of files and of their folder, open files; no core dumps.
- An empty environment; no input beside the code; its output is dropped.
- Where the server is root, the code runs without capabilities, and as nobody if nobody can read Python's files.

The code and its tests run in one process. Code that attacks its own tests can pretend to pass, as in other harnesses;
it can't reach anything else.
"""
