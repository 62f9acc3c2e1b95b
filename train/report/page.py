"""The report as one HTML file, which makes no requests and runs no scripts: its own policy forbids both."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from streamer.replay.scoring import KINDS
from streamer.types import CELL, SAMPLE_RATE_HZ
from train.card import purpose
from train.evaluation.bootstrap import Drawn
from train.evaluation.measuring import Evaluation
from train.report import charts, tables, timelines, words
from train.report.style import STYLE

_CELL_S = CELL / SAMPLE_RATE_HZ
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_BOTH = '<div class="legend"><span><i class="offline"></i>offline</span><span><i class="streaming"></i>streaming</span>'
_LEGEND = f"{_BOTH}</div>"
_TIMELINES = (
    f'{_BOTH}<span><i class="truth"></i>true</span><span><i class="posterior"></i>posterior, as a stream</span></div>'
)


@dataclass(frozen=True, slots=True)
class Made:
    """How the report was made."""

    command: str
    corpus: str  # its folder
    version: str  # of Earwitness
    date: str  # UTC


def page(evaluation: Evaluation, made: Made) -> str:
    """The text of the report."""
    title = f"Evaluation of {evaluation.bundle.name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{words.marked(purpose(evaluation.bundle))}</p>',
        _lead(evaluation),
        _tiles(evaluation),
        _section("Scores", _scores(evaluation)),
        _section("Class by class", _classes(evaluation)),
        _section("As a live stream", _live(evaluation)),
        _section("Latency against accuracy", _curve(evaluation)),
        _section("All thresholds", _psd(evaluation)),
        _section("What false alarms really were", _confused(evaluation)),
        _section("The best and the worst clips", _clips(evaluation)),
        _section("What was measured", _facts(evaluation, made)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{chr(10).join(filter(None, parts))}\n</body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}\n</section>" if body else ""


def _lead(evaluation: Evaluation) -> str:
    counts, streaming = evaluation.offline.counts, evaluation.streaming.report.total("event")
    rate = evaluation.streaming.alarms_per_hour[len(evaluation.bundle.classes)]
    late = evaluation.latency_s[0]
    text = (
        f"{words.number(len(counts.names), 'clip')} ({words.duration(evaluation.seconds)}) with "
        f"{words.number(streaming.true, 'event')} of {len(evaluation.bundle.classes)} classes were put through the "
        f"model. Heard as a live stream, it reported {words.number(streaming.found, 'event')}, of which "
        f"<b>{streaming.right:,} were right</b> in class, onset and offset; "
        f"{words.number(int(evaluation.streaming.alarms.counts.sum()), 'was', 'were')} false altogether "
        f"({words.ranged(rate.interval, times=1)} an hour)"
    )
    if len(evaluation.latencies.seconds):
        text += f", and half of the onsets were certain within {words.ranged(late.interval, times=1, digits=2)} s"
    return f'<p class="lead">{text}.</p>'


def _tiles(evaluation: Evaluation) -> str:
    way = evaluation.streaming
    shown: list[tuple[str, Drawn]] = [
        ("clip F1, micro", way.f1["clip"].micro),
        ("segment F1, micro", way.f1["segment"].micro),
        ("event F1, macro", way.f1["event"].macro),
        *((one.scenario.name, one.score) for one in way.psds),
    ]
    tiles = [
        f'<div class="tile"><b>{words.percent(float(of.value))}</b><span>{name}, streaming</span>{_range(of)}</div>'
        for name, of in shown
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _range(of: Drawn) -> str:
    if not of.interval.known:
        return "<span>no interval</span>"
    return f"<span>[{words.percent(of.interval.low)}, {words.percent(of.interval.high)}]</span>"


def _scores(evaluation: Evaluation) -> str:
    meanings = [(f"{kind.capitalize()} F1", words.KINDS[kind]) for kind in KINDS]
    if evaluation.offline.psds:
        meanings += list(words.PSDS.items())
    else:
        meanings.append(("PSDS", "Not computed: sed_scores_eval is not installed, or the clips have no events."))
    described = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in meanings)
    return (
        "<p>In percent. <b>Offline</b> means that the model had each clip as a whole; <b>streaming</b>, that it heard "
        f"it as the daemon does, with {_look(evaluation)}. {words.F1}</p>"
        f"{tables.scores(evaluation)}"
        f'<p class="soft">{words.interval_note(evaluation)} A difference is <b>marked</b> where its interval, from the '
        "same draws, does not hold zero. *: the three figures that Boes &amp; Van hamme (2021) give.</p>"
        f"<dl>{described}</dl>"
    )


def _look(evaluation: Evaluation) -> str:
    settings = evaluation.settings
    return (
        f"{settings.lookahead_cells * _CELL_S:.2f} s of sound behind each moment and a window every "
        f"{settings.hop_cells * _CELL_S:.2f} s"
    )


def _classes(evaluation: Evaluation) -> str:
    return (
        "<p>Bars are F1 in percent, lines their intervals. The number of recordings says how far to trust a class: a "
        "figure from one or two is a figure about these.</p>"
        f"{_LEGEND}<figure>{charts.class_bars(evaluation)}</figure>{tables.classes(evaluation)}"
    )


def _live(evaluation: Evaluation) -> str:
    covered = evaluation.coverage
    share = covered.covered / covered.cells if covered.cells else 0.0
    masked = [
        f"{escape(name)} lacked {words.percent(count / covered.cells)} %"
        for name, count in covered.masked.items()
        if count and covered.cells
    ]
    cut = words.number(evaluation.latencies.cut, "onset")
    return (
        f"<dl><dt>Onset latency</dt><dd>{words.LATENCY} {cut} that were certain only because the clip ended are left "
        f"out.</dd><dt>False alarms</dt><dd>{words.ALARMS}</dd><dt>Coverage: {words.percent(share)} %</dt>"
        f"<dd>{words.COVERAGE}{' ' + '; '.join(masked) + '.' if masked else ''}</dd></dl>{tables.live(evaluation)}"
    )


def _curve(evaluation: Evaluation) -> str:
    drawn = charts.latency_curve(evaluation)
    if not drawn and evaluation.curve:
        return "<p>No onset was reported within 200 ms of a true one, so there is no latency to draw.</p>"
    if not drawn:
        return ""
    return (
        "<p>The more sound there is behind a moment when it is judged (lookahead), the more accurate the events, and "
        "the later they come; windows at longer intervals (hop) save computing time and delay them too. The big dot is "
        "the daemon's default, with its interval; the dashed line is the score offline. Only onsets that are found "
        f"have a latency.</p><figure>{drawn}</figure>"
    )


def _psd(evaluation: Evaluation) -> str:
    drawn = charts.psd_roc(evaluation)
    if not drawn:
        return ""
    return (
        "<p>Lower thresholds find more events and raise more false alarms. A curve shows the share of events found at "
        "each rate of false alarms (the mean over the classes, less their standard deviation); PSDS is the area under "
        f"it.</p>{_LEGEND}<figure>{drawn}</figure>"
    )


def _confused(evaluation: Evaluation) -> str:
    drawn = charts.confusions(evaluation)
    if not drawn:
        return "<p>There were no false alarms.</p>"
    return (
        "<p>False alarms of the live stream by what sounded meanwhile. One during which several classes sounded is "
        f"shared among them.</p><figure>{drawn}</figure>"
    )


def _clips(evaluation: Evaluation) -> str:
    best, worst = timelines.best_and_worst(evaluation)
    if not best:
        return ""
    drawn = [
        f"<h3>{which}: {words.code(clip.name)}, event F1 {words.percent(clip.event_f1)} as a stream</h3>"
        f"<figure>{timelines.timeline(evaluation, clip)}</figure>"
        for which, clips in (("Best", best), ("Worst", worst))
        for clip in clips
    ]
    return (
        "<p>By event F1 as a live stream, of the clips that have events. The grey area is the posterior, the model's "
        "estimate of the probability that the class sounds; the dashed line is the threshold at which an event begins."
        f"</p>{_TIMELINES}{''.join(drawn)}"
    )


def _facts(evaluation: Evaluation, made: Made) -> str:
    bundle, report = evaluation.bundle, evaluation.offline.report
    rows = [
        ("Model", f"{escape(bundle.name)}, {words.code(bundle.fingerprint())}"),
        ("Inputs", escape(", ".join(bundle.modalities))),
        ("Thresholds", f"{escape(bundle.provenance.decoding)}, kept in the bundle; nothing was tuned here"),
        ("Clips", f"part {escape(evaluation.part.part)} of {words.code(made.corpus)}"),
        ("Subset", f"{report.clips} of {report.annotated} annotated clips; SHA-256 of their annotations: "
         f"{words.code(report.subset_sha256)}"),
        ("Data", f"SHA-256 of media, annotations and features: {words.code(evaluation.part.sha256)}"),
        ("Resampled", evaluation.groups.number(len(evaluation.groups.groups.names))),
        ("Command", words.code(made.command)),
        ("Made", f"{escape(made.date)} by Earwitness {escape(made.version)}"),
    ]  # fmt: skip
    return tables.table(["", ""], [[name, text] for name, text in rows], css="facts")
