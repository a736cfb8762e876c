"""Settings of all tests."""

from hypothesis import settings

# how long an example takes is the machine's affair; what hangs is pytest-timeout's
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")
