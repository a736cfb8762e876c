"""`manyeyes`, and `python -m pipeline`: signals are heard before anything that takes time is loaded."""

from pipeline.signals import end_at_once
from pipeline.terminal import prepare


def main() -> None:
    """The console script."""
    end_at_once()
    prepare()
    from pipeline.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
