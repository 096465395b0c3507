"""Prediction on a video, a stream or a webcam, with reading, the model, and drawing and writing side by side."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from tqdm import tqdm

from centermask.engine.inferencer import CenterMaskInferencer
from centermask.utils.errors import InputError, RunError
from centermask.utils.interrupts import Interrupts
from centermask.video.drawing import FrameDrawing
from centermask.video.inputs import output_name
from centermask.video.results import FrameResults
from centermask.video.source import Frame, VideoSource, Webcam, open_source
from centermask.video.threads import CpuTimes, ReadAhead, WriteBehind
from centermask.video.tracking import Tracker
from centermask.video.window import Window
from centermask.video.writer import VideoWriter

AHEAD = 3  # frames that wait for the model, and for the writer
LOGGED = 10  # seconds between lines about the progress in a file
PARTS = ('decoding', 'resizing', 'tracking', 'drawing', 'encoding', 'JSON')


@dataclass(frozen=True)
class VideoOptions:
    """What is made of a video.

    Attributes:
        score_thr: the least score of a detection that is drawn.
        json: whether all detections are written as COCO results.
        track: whether objects get numbers that stay.
        show: whether the frames are shown in a window.
    """

    score_thr: float = 0.3
    json: bool = False
    track: bool = False
    show: bool = False


def predict_videos(
    names: Sequence[str], inferencer: CenterMaskInferencer, out_dir: Path, options: VideoOptions
) -> None:
    """:func:`predict_video` for several, one after the other, into one folder.

    Raises:
        InputError: a result would replace a video, or as :func:`predict_video` does.
        RunError: as :func:`predict_video` does, after the other videos.
    """
    outs: dict[str, Path] = {}
    for name in names:
        outs[name] = out_dir / output_name(name, [out.name for out in outs.values()])
    written = {out.with_name(f'{out.name}.mp4').resolve() for out in outs.values()}
    for name in names:
        if Path(name).exists() and Path(name).resolve() in written:
            raise InputError(f'--out-dir {out_dir}: the video {name} would be replaced: name another folder.')
    failed: list[Exception] = []
    for name, out in outs.items():
        try:
            predict_video(name, inferencer, out, options)
        except (InputError, RunError) as error:
            if len(names) == 1:
                raise
            print(f'error: {error}', file=sys.stderr)
            failed.append(error)
    if failed:
        raise RunError(f'{len(failed)} of the {len(names)} videos are not or not wholly predicted, see above why.')


def predict_video(name: str, inferencer: CenterMaskInferencer, out: Path, options: VideoOptions) -> None:
    """Write ``OUT.mp4``, the video with its detections drawn, and ``OUT.json``.

    An error, Ctrl-C and SIGTERM end both with the frames done by then. A live stream drops the frames that there is no
    time for; a file drops none.

    Args:
        name: path, address or number of a webcam.
        inferencer: the detector.
        out: path of the results without an ending.
        options: what to do.

    Raises:
        InputError: the video can't be read, or something that an option needs is missing.
        RunError: it breaks off, or the results can't be written.
    """
    source = open_source(name)
    window = Window(source.name) if options.show else None
    prediction = _Prediction(source, inferencer, out, options)
    interrupts = Interrupts(f'{source.name} ends after this frame, its results are written')
    with interrupts:
        prediction.run(lambda: bool(interrupts.number), window)
    interrupts.leave()


class _Prediction:
    """The parts of :func:`predict_video`, of which each runs in one thread."""

    def __init__(
        self, source: VideoSource | Webcam, inferencer: CenterMaskInferencer, out: Path, options: VideoOptions
    ) -> None:
        self.source, self.inferencer = source, inferencer
        meta = inferencer.model.dataset_meta
        self.drawing = FrameDrawing(meta, options.score_thr)
        self.tracker = Tracker(source.rate, options.score_thr) if options.track else None
        self.video = VideoWriter(out.with_name(f'{out.name}.mp4'), source.rate, source.pixel_shape)
        self.results = FrameResults(out.with_name(f'{out.name}.json'), meta['classes']) if options.json else None
        self.times = CpuTimes()
        self.done = self.dropped = 0
        self.shown: np.ndarray | None = None

    def run(self, stop: Callable[[], bool], window: Window | None) -> None:
        """Predict until the end, ``stop()`` or the window's end, and print what was written."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            with ExitStack() as stack:
                stack.enter_context(self.video)
                if self.results:
                    stack.enter_context(self.results)
                if window:
                    stack.callback(window.close)
                ahead = ReadAhead(self.read, 1 if self.source.live else AHEAD)
                stack.callback(ahead.close)
                behind = WriteBehind(self.write, AHEAD)
                stack.callback(behind.close)
                often = 0.1 if sys.stderr.isatty() else LOGGED
                bar = stack.enter_context(
                    tqdm(desc=self.source.name, total=self.source.total, unit='frame', mininterval=often)
                )
                for frame, image, batch in ahead.take(stop):
                    with torch.no_grad():
                        sample = self.inferencer.model.test_step(batch)[0]
                    behind.put((frame, image, sample))
                    bar.update()
                    if window and self.shown is not None and not window.show(self.shown):
                        break
        finally:
            if self.done:
                print(self.summary(time.perf_counter() - wall, time.process_time() - cpu))

    def read(self, has_room: Callable[[], bool]) -> Iterator[tuple[Frame, np.ndarray, dict]]:
        """Yield frames with their images (H, W, 3) in BGR and the model's input; of a live stream drop the others."""
        frames = iter(self.source)
        while True:
            with self.times.of('decoding'):
                frame = next(frames, None)
                if frame is None:
                    return
                if self.source.live and not has_room():
                    self.dropped += 1
                    continue
                image = frame.read()
            with self.times.of('resizing'):
                packed = self.inferencer.pipeline(image)
                batch = {'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]}
            yield frame, image, batch

    def write(self, item: tuple[Frame, np.ndarray, DetDataSample]) -> None:
        """Track, draw and write the detections of a frame."""
        frame, image, sample = item
        found = sample.pred_instances
        found = InstanceData(
            **{key: value.cpu().numpy() if isinstance(value, torch.Tensor) else value for key, value in found.items()}
        )
        ids = None
        if self.tracker:
            with self.times.of('tracking'):
                ids = self.tracker.update(found.bboxes, found.scores, frame.seconds)
        with self.times.of('drawing'):
            if 'pred_panoptic_seg' in sample:
                drawn = self.drawing.panoptic(image, sample.pred_panoptic_seg.sem_seg[0].cpu().numpy())
            else:
                drawn = self.drawing.objects(image, found, ids)
        self.shown = drawn
        with self.times.of('encoding'):
            self.video.add(drawn, frame.seconds)
        if self.results:
            with self.times.of('JSON'):
                lists = self.inferencer.pred2dict(sample)
                if ids is not None:
                    lists['track_ids'] = ids.tolist()
                self.results.add(frame.number, frame.seconds, image.shape[:2], lists)
        self.done += 1

    def summary(self, wall: float, cpu: float) -> str:
        """Return the closing line: files, frames a second, and how the processor time divides."""
        parts = {part: self.times.seconds[part] for part in PARTS if part in self.times.seconds}
        shares = ', '.join(f'{part} {100 * seconds / cpu:.1f}' for part, seconds in parts.items())
        written = [file.path for file in (self.video, self.results) if file and file.path.is_file()]
        files = ' and '.join(map(str, written)) or 'nothing is written'
        dropped = f', {self.dropped} dropped' if self.dropped else ''
        return (
            f'{files}: {self.done} frames{dropped} in {wall:.1f} s, {self.done / wall:.2f} a second; processor time '
            f'{1000 * cpu / self.done:.0f} ms a frame, of which in percent the model '
            f'{100 * (1 - sum(parts.values()) / cpu):.1f}, {shares}'
        )
