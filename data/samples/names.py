"""Names and keywords of the sample emoji, from Unicode's CLDR.

    npm pack cldr-annotations-full@48.2.0
    npm pack cldr-annotations-derived-full@48.2.0
    mkdir -p FOLDER/full FOLDER/derived
    tar xzf cldr-annotations-full-48.2.0.tgz -C FOLDER/full
    tar xzf cldr-annotations-derived-full-48.2.0.tgz -C FOLDER/derived
    python data/samples/names.py FOLDER

It writes emoji/names.csv: a row for each code point of the pictures, which it reads from emoji/noto.parquet.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).parent
PACKAGES = {
    "annotations": "full/package/annotations/en/annotations.json",
    "annotationsDerived": "derived/package/annotationsDerived/en/annotations.json",
}


def main(folder: Path) -> None:
    known: dict[str, dict[str, list[str]]] = {}
    for kind, file in PACKAGES.items():
        known |= json.loads((folder / file).read_text(encoding="utf-8"))[kind]["annotations"]
    with (HERE / "emoji/names.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(("code_point", "name", "keywords"))
        for code_point in pq.read_table(HERE / "emoji/noto.parquet", columns=["code_point"])["code_point"].to_pylist():
            letters = "".join(chr(int(part, 16)) for part in code_point.split("-"))
            found = known.get(letters) or known[letters.replace("\ufe0f", "")]  # CLDR leaves out variation selectors
            table.writerow((code_point, found["tts"][0], ", ".join(found.get("default", []))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
