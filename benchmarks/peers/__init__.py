"""What people use instead, and the plain limits: run beside ours, no part of the runtime."""
