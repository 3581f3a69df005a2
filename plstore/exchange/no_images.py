"""What is no image by its name: what file managers leave behind, tables, texts, videos."""

import os
from collections import Counter
from typing import Final

_FOLDERS: Final = frozenset(
    (
        *("@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information"),
        *("lost+found", "__pycache__"),
    )
)  # in lower case, as the others
_FILES: Final = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
_KNOWN_HIDDEN: Final = frozenset((".DS_Store", ".ipynb_checkpoints"))
_SUFFIXES: Final = frozenset(
    (
        # text and tables
        *(".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".geojson", ".txt", ".md", ".rst"),
        *(".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".log", ".html", ".htm"),
        *(".parquet", ".arrow", ".feather", ".sqlite", ".db", ".xlsx", ".xls", ".ods"),
        *(".pdf", ".doc", ".docx", ".odt", ".rtf", ".ppt", ".pptx", ".tex", ".bib"),
        # beside photos: edits, places, checksums, downloads that are not done
        *(".xmp", ".aae", ".gpx", ".kml", ".lrcat", ".picasa", ".md5", ".sha1", ".sha256"),
        *(".part", ".crdownload", ".partial", ".url", ".lnk", ".webloc"),
        # programs, arrays, weights
        *(".py", ".pyc", ".ipynb", ".sh", ".bat", ".js", ".css", ".php", ".cpp", ".java"),
        *(".exe", ".dll", ".so", ".apk", ".dmg", ".iso"),
        *(".npy", ".npz", ".pkl", ".pickle", ".h5", ".hdf5", ".mat", ".pt", ".pth", ".onnx"),
        *(".safetensors", ".tfrecord"),
        # archives
        *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
        # video and sound
        *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv"),
        *(".3gp", ".mts", ".m2ts", ".mp3", ".wav", ".flac", ".ogg", ".m4a", ".aac", ".wma"),
    )
)
"""Of files that are no images. One of another suffix, or of none, may be: it is looked into."""

EMPTY: Final = "empty files"
DANGLING: Final = "links that lead nowhere"
SPECIAL: Final = "pipes, sockets and devices"


def folder_is_passed_over(name: str, ignored: Counter[str]) -> bool:
    """Return whether a folder is hidden, or a file manager's, and count it."""
    return _is_junk(name, _FOLDERS, ignored)


def is_no_image(name: str, ignored: Counter[str]) -> bool:
    """Return whether a file is no image by its name, and count it by the reason."""
    if _is_junk(name, _FILES, ignored):
        return True
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  a million times
    if suffix not in _SUFFIXES:
        return False
    ignored[suffix] += 1
    return True


def _is_junk(name: str, junk: frozenset[str], ignored: Counter[str]) -> bool:
    is_hidden = name.startswith(".")
    if not is_hidden and name.lower() not in junk:
        return False
    known = name in _KNOWN_HIDDEN or not is_hidden
    ignored[name if known else "hidden files and folders"] += 1
    return True
