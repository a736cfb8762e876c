"""From one process to the next: messages, shared memory, credits."""
