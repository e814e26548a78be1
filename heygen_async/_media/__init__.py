"""Files in and out: what may be given, how it goes up, how the result comes down. Constant memory, off the loop."""
