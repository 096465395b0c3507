"""What a command's words name: images, folders, patterns, videos, streams and webcams."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from glob import glob, has_magic
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from centermask.datasets.images import SUFFIXES, files_in, find_images
from centermask.utils.errors import InputError

VIDEO_SUFFIXES = (
    '.3gp', '.asf', '.avi', '.flv', '.m2ts', '.m4v', '.mjpeg', '.mjpg', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts',
    '.ogv', '.ts', '.vob', '.webm', '.wmv', '.y4m',
)  # fmt: skip
STREAMS = ('http', 'https', 'rtmp', 'rtmps', 'rtp', 'rtsp', 'rtsps', 'srt', 'tcp', 'udp')


class Inputs(NamedTuple):
    """What is to be predicted.

    Attributes:
        images: paths of them.
        root: the folder that all images are in, from which their names are counted.
        videos: paths, addresses of streams and numbers of webcams.
    """

    images: list[Path]
    root: Path
    videos: list[str]


def sort_inputs(words: Sequence[str]) -> Inputs:
    """Find the images and videos that words name; each is named once.

    A word is an image, a video, a folder of them, a pattern such as ``'*.jpg'``, the address of a stream, or the number
    of a webcam. Files with the endings of videos are videos, all others are images.

    Raises:
        InputError: a word names nothing.
    """
    images: dict[Path, None] = {}
    videos: dict[str, None] = {}
    roots = []
    for name in (name for word in words for name in _expand(word)):
        path = Path(name)
        if is_stream(name) or (path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()):
            if not is_stream(name) and not path.is_file():
                raise InputError(f"The video {name} doesn't exist: give the path of a file.")
            videos[name] = None
            continue
        clips = files_in(path, VIDEO_SUFFIXES)
        videos.update((str(clip), None) for clip in clips)
        if not clips or files_in(path, SUFFIXES):
            images.update((image, None) for image in find_images(name))
            roots.append(path if path.is_dir() else path.parent)
    if len(set(roots)) > 1:  # some may be relative, or begin with ..
        images = {Path(os.path.abspath(image)): None for image in images}
        roots = [Path(os.path.abspath(root)) for root in roots]
    return Inputs([*images], Path(os.path.commonpath(roots)) if roots else Path(), [*videos])


def require_packages(track: bool) -> None:
    """Raise an :class:`InputError` where a package is missing that videos, or ``--track``, need."""
    needed = {'av': 'videos need', **({'supervision': '--track needs', 'trackers': '--track needs'} if track else {})}
    for package, why in needed.items():
        if find_spec(package) is None:
            raise InputError(f"{package} isn't installed, which {why}: pip install 'centermask[video]'.")


def name_files_not_read(words: Sequence[str]) -> None:
    """Print the endings of files in folders that are neither images nor videos."""
    for folder in filter(os.path.isdir, words):
        endings = {path.suffix for path in Path(folder).rglob('*') if path.is_file()}
        others = {ending for ending in endings if ending and ending.lower() not in (*SUFFIXES, *VIDEO_SUFFIXES)}
        if others:
            print(f'not read as images or videos: files that end in {", ".join(sorted(others))}')


def is_stream(name: str) -> bool:
    """Return whether a name is the address of a stream or the number of a webcam, and not that of a file."""
    return (name.partition('://')[0].lower() in STREAMS and '://' in name) or (
        name.isdecimal() and not Path(name).exists()
    )


def output_name(video: str, taken: Collection[str]) -> str:
    """Return the name of a video's results without an ending: its own, the stream's address or ``webcam0``.

    Args:
        video: path, address or number.
        taken: names that other videos have.
    """
    if is_stream(video):
        name = f'webcam{video}' if video.isdecimal() else _name_of_address(video)
    else:
        name = Path(video).stem
    count = 2
    while name in taken:
        name, count = f'{name.removesuffix(f"-{count - 1}")}-{count}', count + 1
    return name


def _name_of_address(address: str) -> str:
    """Return the host, port and path of an address, in letters that files may have."""
    address, _, query = re.sub(r'^\w+://([^/@]*@)?|#.*', '', address).partition('?')
    host, slash, path = address.partition('/')
    name = re.sub(r'[^\w.-]+', '_', host + slash + re.sub(r'\.\w+$', '', path)).strip('_.') or 'stream'
    # A query may tell cameras apart, and may hold a password.
    return f'{name}-{crc32(query.encode()):08x}' if query else name


def _expand(word: str) -> list[str]:
    """Return the paths that a pattern matches, and any other word as it is."""
    if is_stream(word) or os.path.exists(word) or not has_magic(word):
        return [word]
    found = sorted(name for name in glob(word, recursive=True) if os.path.isfile(name))
    if not found:
        raise InputError(f'No file matches the pattern {word}: give the path of an image or a video.')
    return found
