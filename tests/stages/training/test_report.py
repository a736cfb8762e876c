"""The report is one file that says what the evaluation says, whatever the names in the data set."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from pipeline.detections import Detections
from pipeline.errors import ResourceError
from stages.training.datasets import DataSet, Sample
from stages.training.evaluate import Evaluation, evaluate
from stages.training.report import draw_errors, tables, write_html


def found(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int32),
    )


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Evaluation, list[Detections], DataSet]:
    samples = []
    for name in ("fine.png", "<b>bad.png"):
        cv2.imwrite(str(tmp_path / name), np.full((100, 200, 3), 90, np.uint8))
        samples.append(
            Sample(
                path=tmp_path / name,
                width=200,
                height=100,
                xyxy=np.float32([[10, 10, 50, 50], [120, 20, 180, 80], [60, 60, 90, 90]]),
                labels=np.int32([0, 1, 0]),
                crowd=np.zeros(3, bool),
                difficult=np.array([False, False, True]),
                image_id=len(samples),
                group="",
            )
        )
    data = DataSet(
        name="two & a half",
        classes=("car", "<script>", "[dog]"),
        samples=tuple(samples),
        problems=(),
        sha256="ab" * 32,
    )
    predictions = [
        found((10, 10, 50, 50, 0.9, 0), (120, 20, 180, 80, 0.8, 1)),
        found((10, 10, 50, 50, 0.9, 1), (0, 60, 40, 90, 0.7, 2), (0, 0, 9, 9, 0.1, 2)),
    ]
    return evaluate(predictions, data, score_threshold=0.5, speed={"infer": 2.0}), predictions, data


class Page(HTMLParser):
    """Texts, tags and sources of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_whole_and_needs_nothing_beside_it(
    judged: tuple[Evaluation, list[Detections], DataSet], tmp_path: Path
) -> None:
    evaluation, predictions, data = judged
    write_html(evaluation, predictions, data, tmp_path / "report.html", title="A <model>")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("img") == 6 + 1  # plots, and the one picture with errors
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://", text)
    assert {"A <model>", "<script>", "[dog]"} <= set(page.texts)
    assert any("<b>bad.png · 4 wrong" in one for one in page.texts)
    assert f"{evaluation.overall.chosen.recall:.3f}" in page.texts


def test_a_page_without_any_error_or_detection(
    judged: tuple[Evaluation, list[Detections], DataSet], tmp_path: Path
) -> None:
    _, predictions, data = judged
    data = replace(data, samples=data.samples[:1])
    for one in (predictions[0], Detections.empty()):
        evaluation = evaluate([one], data, score_threshold=0.5)
        write_html(evaluation, [one], data, tmp_path / "report.html")
        text = (tmp_path / "report.html").read_text()
        assert ("Not one error" in text) == bool(len(one))
    with pytest.raises(ResourceError, match="cannot be written"):
        write_html(evaluation, [one], data, tmp_path / "none" / "report.html")


def test_the_terminal_shows_names_as_they_are(
    judged: tuple[Evaluation, list[Detections], DataSet],
) -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(tables(judged[0]))
    text = screen.getvalue()
    assert "[dog]" in text
    assert "missed 1" in text
    assert "…" not in text  # nothing cut off on 80 columns


def test_errors_are_drawn_in_their_colours(
    judged: tuple[Evaluation, list[Detections], DataSet],
) -> None:
    evaluation, predictions, data = judged
    image = np.full((100, 200, 3), 90, np.uint8)
    before = image.copy()
    right = draw_errors(image, predictions[0], data.samples[0], evaluation).astype(int)
    wrong = draw_errors(image, predictions[1], data.samples[1], evaluation).astype(int)
    np.testing.assert_array_equal(image, before)

    def reddish(canvas: np.ndarray) -> int:
        return int((canvas[..., 2] - canvas[..., :2].max(axis=2) > 100).sum())

    assert reddish(right) == 0 < reddish(wrong)
