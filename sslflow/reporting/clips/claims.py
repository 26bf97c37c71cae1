"""What can be said of the methods for clips in plain words: learned or not, and whether by a shortcut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sslflow.reporting.clips.results import Correspondences, Estimate, Task

ASKED = {
    "source": "asked whether a frame and a sound belong together or come from different sources",
    "moment": "asked whether frames and a sound are of the same moment or of two moments of one clip",
    "own": "asked its own question",
}
ALONE = {"picture": "the frame alone", "sound": "the sound alone", "metadata": "what the files say of themselves"}


def sentences(runs: Correspondences) -> list[str]:
    """First what was learned and whether a shortcut is open, of all methods; then of each method."""
    tasks = list(runs.tasks())
    if not tasks:
        return ["Nothing can be said yet: no method was tested on clips of sources that it has not seen."]
    return [_summary(tasks), *(_sentence(runs, name, tasks) for name in _methods(tasks))]


def _summary(tasks: Sequence[Task]) -> str:
    learned = _methods(task for task in tasks if task.learned and not task.shortcuts)
    doubtful = [name for name in _methods(task for task in tasks if task.shortcuts) if name not in learned]
    rest = [name for name in _methods(tasks) if name not in (*learned, *doubtful)]
    parts = []
    if learned:
        parts.append(f"Learned: {listed(learned)}.")
    if doubtful:
        parts.append(f"In doubt, since a shortcut tells the same pairs: {listed(doubtful)}.")
    if rest:
        parts.append(f"Not learned: {listed(rest)}." if learned or doubtful else "Nothing was learned yet.")
    controlled = [task for task in tasks if task.controls]
    if any(task.shortcuts for task in tasks):
        names = listed([ALONE[name] for name in dict.fromkeys(one for task in tasks for one in task.shortcuts)])
        parts.append(f"A shortcut was found: {names} tell{'s' if ' and ' not in names else ''} what belongs together.")
    elif controlled:
        parts.append("No shortcut was found.")
    return " ".join(parts)


def _sentence(runs: Correspondences, method: str, tasks: Sequence[Task]) -> str:
    own = [task for task in tasks if task.method == method]
    said = [f"{method}, {'; '.join(f'{ASKED[task.kind]}, {_right(task)}' for task in own)}."]
    for task in own:
        for name in task.shortcuts:
            control = task.controls[name]
            said.append(f"But {ALONE[name]} tells the same pairs in {_share(control)}: its score means little.")
        conditions = task.controls.get("conditions")
        if conditions and conditions.above(0.5):
            said.append(
                f"The frame rates and sound rates of the two files tell pairs in {_share(conditions)}: part of the "
                "score may be how clips were recorded."
            )
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
