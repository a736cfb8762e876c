from __future__ import annotations

import subprocess
import sys

from sink_frames import result

from stages.sinks.null import Null, NullConfig


def test_it_takes_everything_and_gives_nothing():
    sink = Null(NullConfig())
    sink.check(sink.config)
    sink.setup()
    assert sink.process(result(found=0)) is None
    assert sink.process(result()) is None
    sink.close()


def test_the_supervisor_can_read_all_sinks_without_heavy_libraries():
    modules = ", ".join(
        f"stages.sinks.{m}" for m in ("events", "video", "snapshot", "window", "null")
    )
    code = f"import sys, {modules}; sys.exit(bool({{'cv2', 'av', 'torch'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
