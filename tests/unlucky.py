"""A source for the tests, in a module of its own so that worker processes import little."""

import os
import signal


class Unlucky:
    """Pictures of which some raise, and one kills the process that reads it."""

    def __init__(self, good):
        self.name, self.good = "unlucky", good
        self.ids = [f"g{i}" for i in range(40)]

    def __len__(self):
        return 40

    def read(self, i):
        if i == 33:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        if i == 5:
            raise MemoryError
        if i == 7:
            raise ZeroDivisionError
        return self.good
