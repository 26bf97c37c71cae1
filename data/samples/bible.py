"""Write the verses of the King James Bible, in order, to data/samples/bible/verses.parquet.

    apt-get download bible-kjv bible-kjv-text
    for package in bible-kjv*.deb; do dpkg -x "$package" FOLDER; done
    python data/samples/bible.py FOLDER

The text is stored compressed in a format of its own, which the package's program unpacks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).parent / "bible" / "verses.parquet"
VERSE = re.compile(r"(\d?[A-Za-z]+)\s?(\d+):(\d+) (.*)")
DIVISIONS = {
    "law": ("Genesis", "Exodus", "Leviticus", "Numbers", "Deuteronomy"),
    "history": (
        *("Joshua", "Judges", "Ruth", "1 Samuel", "2 Samuel", "1 Kings", "2 Kings", "1 Chronicles", "2 Chronicles"),
        *("Ezra", "Nehemiah", "Esther"),
    ),
    "poetry": ("Job", "Psalms", "Proverbs", "Ecclesiastes", "Song of Solomon"),
    "prophets": (
        *("Isaiah", "Jeremiah", "Lamentations", "Ezekiel", "Daniel", "Hosea", "Joel", "Amos", "Obadiah", "Jonah"),
        *("Micah", "Nahum", "Habakkuk", "Zephaniah", "Haggai", "Zechariah", "Malachi"),
    ),
    "gospels and acts": ("Matthew", "Mark", "Luke", "John", "Acts"),
    "letters": (
        *("Romans", "1 Corinthians", "2 Corinthians", "Galatians", "Ephesians", "Philippians", "Colossians"),
        *("1 Thessalonians", "2 Thessalonians", "1 Timothy", "2 Timothy", "Titus", "Philemon", "Hebrews", "James"),
        *("1 Peter", "2 Peter", "1 John", "2 John", "3 John", "Jude"),
    ),
    "revelation": ("Revelation",),
}
"""Groups of books, as they are commonly divided; in the order of the text."""
VERSES = 31_102


def main(folder: Path) -> None:
    command = [str(folder / "usr/bin/bible"), "-f", "-l100000", "-p", str(folder / "usr/lib"), "Gen1:1-Rev22:21"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    found = [match.groups() for line in said.splitlines() if (match := VERSE.fullmatch(line.strip()))]
    names = [(division, book) for division, books in DIVISIONS.items() for book in books]
    short = dict.fromkeys(name for name, *_ in found)
    assert (len(found), len(short)) == (VERSES, len(names)), f"{len(found)} verses of {len(short)} books"
    of = dict(zip(short, names, strict=True))
    table = {
        "division": [of[name][0] for name, *_ in found],
        "book": [of[name][1] for name, *_ in found],
        "chapter": pa.array([int(chapter) for _, chapter, _, _ in found], pa.int16()),
        "verse": pa.array([int(verse) for *_, verse, _ in found], pa.int16()),
        "text": [" ".join(text.split()) for *_, text in found],
    }
    FILE.parent.mkdir(exist_ok=True)
    dictionaries = ["division", "book"]
    pq.write_table(pa.table(table), FILE, compression="zstd", compression_level=22, use_dictionary=dictionaries)
    print(f"{len(found)} verses, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
