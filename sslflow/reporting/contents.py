"""The sections of the report, in their order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A part of the page below a heading: its anchor, its template, and what of the content it shows; where that is
    empty, the page is without it."""

    name: str
    title: str
    template: str
    content: str
    open: bool = False


SECTIONS = (
    Section("sofar", "So far", "so_far.html.j2", "so_far", open=True),
    Section("leaderboard", "Leaderboard", "leaderboard.html.j2", "table", open=True),
    Section("worth", "What labels are worth", "worth.html.j2", "worth", open=True),
    Section("where", "What is where", "where.html.j2", "where", open=True),
    Section("captions", "Images and captions", "captions.html.j2", "matched", open=True),
    Section("depth", "How far away", "depth.html.j2", "depth", open=True),
    Section("language", "Language", "language.html.j2", "language", open=True),
    Section("imbalance", "Large and small classes", "imbalance.html.j2", "imbalance"),
    Section("data", "Data", "data.html.j2", "data"),
    Section("audit", "Audit of the data", "audit.html.j2", "audited"),
    Section("map", "Map of the features", "map.html.j2", "map", open=True),
    Section("neighbours", "Nearest neighbours", "neighbours.html.j2", "neighbours"),
    Section("clusters", "Clusters", "clusters.html.j2", "clusters"),
    Section("pseudolabels", "Can pseudo-labels be trusted?", "pseudolabels.html.j2", "pseudolabels"),
    Section("confusion", "Confusion", "confusion.html.j2", "confusion"),
    Section("verdict", "Verdict on each training", "verdict.html.j2", "verdicts"),
    Section("curves", "Training curves", "curves.html.j2", "curves"),
    Section("views", "What each method does", "views.html.j2", "views"),
    Section("audiovisual", "Picture and sound", "clips.html.j2", "heard", open=True),
    Section("adaptation", "Adaptation to another domain", "adaptation.html.j2", "adapted", open=True),
    Section("origin", "How it was made", "origin.html.j2", "card"),
)
"""In the order in which a reader asks: what came of it, can I believe it, what does it look like, how was it made."""
