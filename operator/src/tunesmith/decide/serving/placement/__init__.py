"""Home pods of aliases, and pods that answer requests for each other."""
