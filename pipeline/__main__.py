"""`manyeyes`, and `python -m pipeline`: signals are heard before anything that takes time is loaded."""

from pipeline.host.signals import end_at_once


def main() -> None:
    """The console script."""
    end_at_once()
    from pipeline.face.terminal import prepare

    prepare()
    from pipeline.face.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
