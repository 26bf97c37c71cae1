"""An encoder, checked and with a card, for other programs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sslflow.runtime.files import usual_mode
from sslflow.settings.params import closest
from sslflow.use.card import card
from sslflow.use.encoder import ImageEncoder
from sslflow.use.formats import ENDINGS, Format, normalises, write
from sslflow.use.snippet import TOLERANCE, brought_to, differs, snippet


def export(encoder: ImageEncoder, to: Format, file: Path) -> tuple[Path, float]:
    """Write the encoder, on the CPU, to `file`, and a model card beside it, in which stands Python that was run; the
    card, and how far its features were from the encoder's, as a share of the largest.

    Raises `ValueError`, and leaves nothing behind, for an encoder that the format can't hold, and for features that are
    further than `TOLERANCE` from the original's.
    """
    encoder = encoder.cpu()
    with checked(to, file, ENDINGS) as made:
        code = snippet(encoder, to, write(encoder, to, made, _about(encoder, to)))
        apart = differs(code, made.parent, encoder.images.side, "embed", lambda files: [encoder.embed(files).numpy()])
        if not apart <= TOLERANCE:
            raise ValueError(
                f"{file}: not written: its features would differ from those of {encoder.name} by {apart:.1e} of the "
                f"largest, and {TOLERANCE:.0e} are allowed; choose another format of {', '.join(ENDINGS)}"
            )
        card_of(made).write_text(card(encoder, to, file, code, apart), encoding="utf-8")
    return card_of(file), apart


@contextlib.contextmanager
def checked(to: Format, file: Path, endings: Mapping[Format, str]) -> Iterator[Path]:
    """A place to write a file and its card to, of one of the formats with these `endings`; where all goes well, both
    take their places. Raises `ValueError` for another format or ending."""
    if to not in endings:
        raise ValueError(f"--to: there is no format '{to}'{closest(to, endings)}; there are {', '.join(endings)}")
    if file.suffix != endings[to] or file.is_dir():
        raise ValueError(f"{file}: what is written is of {to}: give it a name that ends in {endings[to]}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        made = Path(folder) / file.name
        mode = usual_mode(made)
        yield made
        made.chmod(mode)
        made.replace(file)
        card_of(made).replace(card_of(file))


def card_of(file: Path) -> Path:
    """Where the card of an exported file stands."""
    return file.with_name(f"{file.name}.md")


def _about(encoder: ImageEncoder, to: Format) -> dict[str, Any]:
    """What the file says of itself."""
    given, images = encoder.encoder.given, encoder.images
    mean, std = (given.mean, given.std) if given else (images.mean, images.std)
    kept = {name: value for name, value in encoder.encoder.facts.items() if name in ("data", "start", "teacher")}
    run = encoder.encoder.facts.get("run", {})
    return {
        "encoder": Path(encoder.name).name if Path(encoder.name).is_file() else encoder.name,
        "sha256": encoder.sha256,
        "licence": encoder.licence,
        "network": encoder.encoder.settings["name"],
        "dim": encoder.encoder.dim,
        "images": asdict(images),
        "input": "shares of white from 0 to 1, not normalised" if normalises(to) else "normalised shares of white",
        "mean": mean,
        "std": std,
        "side": images.side if normalises(to) else brought_to(encoder),
        **{name: run[name] for name in ("method", "seed") if name in run},
        **kept,
    }
