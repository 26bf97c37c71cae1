"""What can be said of the methods for clips in plain words: learned or not, and whether recordings give pairs away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sslflow.reporting.clips.results import Correspondences, Estimate, Task

ASKED = {
    "source": "asked whether a frame and a sound belong together or come from different sources",
    "moment": "asked whether frames and a sound are of the same moment or of two moments of one clip",
    "own": "asked its own question",
}
CONDITIONS = (
    "How clips were recorded (frame rate and black borders of the picture; rate, loudness and bandwidth of the sound)"
)


def sentences(runs: Correspondences) -> list[str]:
    """First what was learned and whether recordings give pairs away, of all methods; then of each method."""
    tasks = list(runs.tasks())
    if not tasks:
        return ["Nothing can be said yet: no method was tested on clips of sources that it has not seen."]
    return [_summary(tasks), *(_sentence(runs, name, tasks) for name in _methods(tasks))]


def _summary(tasks: Sequence[Task]) -> str:
    learned = _methods(task for task in tasks if task.learned and not task.doubtful)
    doubtful = [name for name in _methods(task for task in tasks if task.learned) if name not in learned]
    rest = [name for name in _methods(tasks) if name not in (*learned, *doubtful)]
    parts = []
    if learned:
        parts.append(f"Learned: {listed(learned)}.")
    if doubtful:
        parts.append(f"In doubt, since how clips were recorded tells the same pairs: {listed(doubtful)}.")
    if rest:
        parts.append(f"Not learned: {listed(rest)}." if learned or doubtful else "Nothing was learned yet.")
    if any(task.conditions for task in tasks):
        tells = "tells" if any(task.shortcut for task in tasks) else "does not tell"
        parts.append(f"{CONDITIONS} {tells} what belongs together.")
    return " ".join(parts)


def _sentence(runs: Correspondences, method: str, tasks: Sequence[Task]) -> str:
    own = [task for task in tasks if task.method == method]
    said = [f"{method}, {'; '.join(f'{ASKED[task.kind]}, {_right(task)}' for task in own)}."]
    for task in own:
        if task.conditions and task.shortcut:
            right, part = _share(task.conditions), "all" if task.doubtful else "part"
            said.append(f"By how clips were recorded alone, {right} is right: {part} of the score may be that.")
    for name, hits, beside in runs.pointing():
        if name == method:
            said.append(_pointing(hits, beside))
    return " ".join(said)


def _right(task: Task) -> str:
    verdict = "above" if task.learned else "which is not above"
    return f"is right in {_share(task.accuracy)}, {verdict} chance ({100 * task.chance:.0f})"


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


def _pointing(hits: Estimate, beside: dict[str, float | None]) -> str:
    known = {name: value for name, value in beside.items() if value is not None}
    names = {"centre": "the frame's centre", "silence": "silence instead", "noise": "noise instead"}
    level = [f"{names[name]} ({100 * known[name]:.0f})" for name in names if known.get(name, 0.0) >= hits.low]
    words = f"Its maps point at what sounds in {_share(hits)} of frames"
    return f"{words}, not clearly more than {listed(level)}." if level else f"{words}, more than without the sound."


def _methods(tasks: Iterable[Task]) -> list[str]:
    return list(dict.fromkeys(task.method for task in tasks))


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
