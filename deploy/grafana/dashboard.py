"""Generates the Grafana dashboard: `python deploy/grafana/dashboard.py > deploy/grafana/dashboard.json`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimeline
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphDrawStyle
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh, VariableSort
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel: TypeAlias = Timeseries | StateTimeline | Stat | Table
Kind = TypeVar("Kind", Timeseries, StateTimeline, Stat, Table)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
DAEMON = 'instance=~"$instance"'
STREAM = f'{DAEMON}, stream=~"$stream"'


def query(expr: str, legend: str, *, instant: bool = False, table: bool = False) -> Dataquery:
    """A query; `legend` is the template for the names of its series."""
    made = Dataquery().expr(expr).legend_format(legend).datasource(SOURCE)
    made = made.instant() if instant else made.range()
    return made.format(PromQueryFormat.TABLE) if table else made


def panel(kind: Callable[[], Kind], title: str, text: str, *queries: Dataquery, width: int = 12) -> Kind:
    """A panel, `width` 24ths of the page wide; `text` is its description, behind the (i)."""
    made = kind().title(title).description(text).datasource(SOURCE).height(8).span(width)
    for number, one in enumerate(queries):
        made = made.with_target(one.ref_id(chr(ord("A") + number)))
    return made


def is_heard() -> Sequence[Panel]:
    """Whether every stream is connected and scored."""
    return (
        panel(
            Stat,
            "Streams heard",
            "Streams that are connected and scored now, of all.",
            query(f'sum(earwitness_stream_state{{{STREAM}, state="streaming"}})', "heard", instant=True),
            query(f'count(earwitness_stream_state{{{STREAM}, state="streaming"}})', "of", instant=True),
            width=6,
        ),
        panel(
            Stat,
            "Events in the last day",
            "Onsets of all classes.",
            query(f"sum(increase(earwitness_events_total{{{STREAM}}}[1d]))", "events", instant=True),
            width=6,
        ).decimals(0),
        panel(
            StateTimeline,
            "Stream heard",
            "1: the stream is connected and scored.",
            query(f'earwitness_stream_state{{{STREAM}, state="streaming"}}', "{{stream}}"),
        ),
        panel(
            Timeseries,
            "Coverage",
            "Share of the last minute that was analyzed. Media that was lost or dropped lowers it.",
            query(f"earwitness_coverage_ratio{{{STREAM}}}", "{{stream}}"),
        )
        .unit("percentunit")
        .min(0)
        .max(1),
        panel(
            Timeseries,
            "Scored cells per second",
            "The output of the last stage: normally 15.1 a second for each stream.",
            query(f"rate(earwitness_scored_cells_total{{{STREAM}}}[$__rate_interval])", "{{stream}}"),
        ).min(0),
    )


def events() -> Sequence[Panel]:
    """The number of events, and how soon they are published."""
    return (
        panel(
            Timeseries,
            "Events per hour by class",
            "Onsets published.",
            query(f"sum by (class) (increase(earwitness_events_total{{{STREAM}}}[1h]))", "{{class}}"),
        ).draw_style(GraphDrawStyle.BARS),
        panel(
            Timeseries,
            "Events per hour by stream",
            "Onsets published.",
            query(f"sum by (stream) (increase(earwitness_events_total{{{STREAM}}}[1h]))", "{{stream}}"),
        ).draw_style(GraphDrawStyle.BARS),
        panel(
            Timeseries,
            "From onset to message",
            "Time from the arrival of an onset's media to its message: median and 95th percentile of the last hour.",
            *(
                query(
                    f"histogram_quantile({share}, sum by (le) "
                    f"(rate(earwitness_onset_to_message_seconds_bucket{{{STREAM}}}[1h])))",
                    legend,
                )
                for share, legend in ((0.5, "median"), (0.95, "95 %"))
            ),
        ).unit("s"),
        panel(
            Timeseries,
            "Media waiting",
            "Age of the oldest media that is not processed yet. Beyond the stream's queue_s, sound is dropped.",
            query(f"earwitness_media_lag_seconds{{{STREAM}}}", "{{stream}}"),
        ).unit("s"),
    )


def inputs() -> Sequence[Panel]:
    """Levels, states and formats of the inputs."""
    return (
        panel(
            Timeseries,
            "Input level",
            "RMS and peak of the newest second.",
            query(f"earwitness_input_rms_dbfs{{{STREAM}}}", "{{stream}} RMS"),
            query(f"earwitness_input_peak_dbfs{{{STREAM}}}", "{{stream}} peak"),
        ).unit("dB"),
        panel(
            StateTimeline,
            "Input is silent, cancelling, too quiet or out of range",
            "1: the signal can't be the sound of a room.",
            query(f'max by (stream) (earwitness_input_state{{{STREAM}, input!~"ok|unknown"}})', "{{stream}}"),
        ),
        panel(
            Table,
            "Input formats",
            "Codec, rate, track and channel of each stream.",
            query(f"earwitness_audio_info{{{STREAM}}}", "{{stream}}", instant=True, table=True),
            width=24,
        ),
    )


def faults() -> Sequence[Panel]:
    """Lost connections, and lost, dropped, damaged or late media and messages."""
    return (
        panel(
            Timeseries,
            "Lost connections per hour",
            "By reason.",
            query(
                f"sum by (stream, reason) (increase(earwitness_reconnects_total{{{STREAM}}}[1h]))",
                "{{stream}} {{reason}}",
            ),
        ).draw_style(GraphDrawStyle.BARS),
        panel(
            Timeseries,
            "Media dropped per second",
            "Discarded chunks of audio and pictures, by reason.",
            query(
                f"sum by (stream, reason) (rate(earwitness_dropped_total{{{STREAM}}}[$__rate_interval]))",
                "{{stream}} {{reason}}",
            ),
        ).min(0),
        panel(
            Timeseries,
            "Damaged media per second",
            "Packets that could not be decoded, and pictures with implausible timestamps.",
            query(f"rate(earwitness_corrupt_packets_total{{{STREAM}}}[$__rate_interval])", "{{stream}} packets"),
            query(f"rate(earwitness_stray_pictures_total{{{STREAM}}}[$__rate_interval])", "{{stream}} pictures"),
        ).min(0),
        panel(
            Timeseries,
            "Cells without a modality, per second",
            "Masked: the modality had no data for the cell. Late: its data came after the cell was decided.",
            query(
                f"sum by (stream, modality) (rate(earwitness_masked_cells_total{{{STREAM}}}[$__rate_interval]))",
                "{{stream}} {{modality}} masked",
            ),
            query(
                f"sum by (stream, modality) (rate(earwitness_late_cells_total{{{STREAM}}}[$__rate_interval]))",
                "{{stream}} {{modality}} late",
            ),
        ).min(0),
        panel(
            Timeseries,
            "Messages lost per hour",
            "By failing sinks, by a full queue to the sinks, and by slow subscribers.",
            query(f"sum by (sink) (increase(earwitness_sink_errors_total{{{DAEMON}}}[1h]))", "{{sink}}"),
            query(f"sum by (type) (increase(earwitness_messages_dropped_total{{{DAEMON}}}[1h]))", "queue: {{type}}"),
            query(f"sum(increase(earwitness_subscriber_overflows_total{{{DAEMON}}}[1h]))", "slow subscribers"),
        ).min(0),
        panel(
            Timeseries,
            "Abandoned readers",
            "Reader threads that hung and were replaced, since the daemon's start.",
            query(f"earwitness_readers_abandoned_total{{{STREAM}}}", "{{stream}}"),
        ).min(0),
    )


def kept() -> Sequence[Panel]:
    """The event store, and refused connections."""
    return (
        panel(
            Timeseries,
            "Event store",
            "Its size, its limit (store.keep_mb), and the free space on its disk.",
            query(f"earwitness_store_bytes{{{DAEMON}}}", "{{instance}} used"),
            query(f"earwitness_store_limit_bytes{{{DAEMON}}}", "{{instance}} limit"),
            query(f"earwitness_store_free_bytes{{{DAEMON}}}", "{{instance}} free on disk"),
        )
        .unit("bytes")
        .min(0),
        panel(
            Timeseries,
            "Stored messages",
            "Messages in the store, and messages that wait because the store fails.",
            query(f"earwitness_store_messages{{{DAEMON}}}", "{{instance}} stored"),
            query(f"earwitness_store_waiting{{{DAEMON}}}", "{{instance}} waiting"),
        ).min(0),
        panel(
            Timeseries,
            "Store failures and removals per hour",
            "Failed accesses, and messages removed because of keep_days (age) or keep_mb (size).",
            query(f"sum by (why) (increase(earwitness_store_failures_total{{{DAEMON}}}[1h]))", "failed: {{why}}"),
            query(f"sum by (limit) (increase(earwitness_store_removed_total{{{DAEMON}}}[1h]))", "removed: {{limit}}"),
        ).min(0),
        panel(
            Timeseries,
            "Connections refused per hour",
            "At the sockets for subscribers (zmq) and at the HTTP port (http), by reason.",
            query(
                f"sum by (socket, reason) (increase(earwitness_connections_refused_total{{{DAEMON}}}[1h]))",
                "{{socket}}: {{reason}}",
            ),
        ).min(0),
        panel(
            Timeseries,
            "Missed messages sent per hour",
            "Messages that subscribers requested from the store because they had been away, and requests that failed.",
            query(f"sum by (instance) (increase(earwitness_catch_up_messages_total{{{DAEMON}}}[1h]))", "{{instance}}"),
            query(
                f'sum by (result) (increase(earwitness_catch_up_requests_total{{{DAEMON}, result!="answered"}}[1h]))',
                "requests: {{result}}",
            ),
        ).min(0),
        panel(
            Timeseries,
            "Age of the oldest stored message",
            "A subscriber that was away for less than this can still catch up completely.",
            query(f"time() - (earwitness_store_oldest_timestamp_seconds{{{DAEMON}}} > 0)", "{{instance}}"),
        )
        .unit("s")
        .min(0),
    )


def load() -> Sequence[Panel]:
    """CPU, memory, and the time of each stage."""
    return (
        panel(
            Timeseries,
            "CPU",
            "Cores in use.",
            query(
                'rate(process_cpu_seconds_total{job="earwitness", instance=~"$instance"}[$__rate_interval])',
                "{{instance}}",
            ),
        ).min(0),
        panel(
            Timeseries,
            "Memory",
            "Resident memory.",
            query('process_resident_memory_bytes{job="earwitness", instance=~"$instance"}', "{{instance}}"),
        )
        .unit("bytes")
        .min(0),
        panel(
            Timeseries,
            "Time per stage",
            "Seconds per second that each stage takes: CPU time of decode, wall time of the others.",
            query(f"sum by (stage) (rate(earwitness_stage_seconds_sum{{{DAEMON}}}[$__rate_interval]))", "{{stage}}"),
        ).min(0),
        panel(
            Timeseries,
            "Windows per batch",
            "Mean. Equals the number of streams if the windows of all are due at once.",
            query(
                f"sum(rate(earwitness_batch_windows_sum{{{DAEMON}}}[$__rate_interval])) "
                f"/ sum(rate(earwitness_batch_windows_count{{{DAEMON}}}[$__rate_interval]))",
                "windows",
            ),
        ).min(0),
        panel(
            Timeseries,
            "Picture stride",
            "Cells per picture that the model uses: higher when the machine is busy. 0: no pictures.",
            query(f"earwitness_picture_stride{{{STREAM}}}", "{{stream}}"),
        ).min(0),
        panel(
            Timeseries,
            "Hop stretch",
            "Factor on windows.hop_cells: over 1 when the machine is too slow, so that events come later.",
            query(f"earwitness_hop_stretch{{{STREAM}}}", "{{stream}}"),
        ).min(0),
        panel(
            Table,
            "Versions",
            "Versions of the daemon, the model and Python.",
            query(f"earwitness_build_info{{{DAEMON}}}", "{{version}}", instant=True, table=True),
        ),
    )


ROWS = {
    "Is everything heard?": is_heard,
    "What is heard?": events,
    "What do the inputs deliver?": inputs,
    "What goes wrong?": faults,
    "Event store and refused connections": kept,
    "What does it cost?": load,
}


def dashboard() -> Dashboard:
    """The whole dashboard."""
    made = (
        Dashboard("Earwitness")
        .uid("earwitness")
        .tags(["earwitness"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for name, asked in (
        ("instance", "label_values(earwitness_build_info, instance)"),
        ("stream", f"label_values(earwitness_stream_state{{{DAEMON}}}, stream)"),
    ):
        made = made.with_variable(
            QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query(asked)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
        )
    for title, panels in ROWS.items():
        made = made.with_row(Row(title))
        for one in panels():
            made = made.with_panel(one)
    return made


if __name__ == "__main__":
    sys.stdout.write(JSONEncoder(sort_keys=True, indent=1).encode(dashboard().build()) + "\n")
