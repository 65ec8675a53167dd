"""A small chat bot: the guest that Muster's demo releases."""

import os
import signal

VERSION = "1"

if os.getpid() == 1:
    # The kernel drops a SIGTERM that PID 1 does not handle. Obey it from the first instant; a process
    # with something to finish installs its own handler later.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
