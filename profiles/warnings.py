"""Every warning a profile can carry, as data, and what to do about each.

The advice knows the settings: it never recommends what is in use already.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from edgelstm.profiles.settings import ProfileSettings


class WarningKind(enum.Enum):
    """What a reader of the figures must know; the value is the name in the JSON."""

    UNSTABLE_MEDIAN = "unstable_median"
    MEDIAN_UNKNOWN = "median_unknown"
    FEW_RUNS = "few_runs"
    NOT_SETTLED = "not_settled"
    OUTLIERS = "outliers"
    DRIFT = "drift"
    SLOW_FIRST_RUN = "slow_first_run"
    COARSE_TIMER = "coarse_timer"
    FREQUENCY_SCALING = "frequency_scaling"
    OTHER_LOAD = "other_load"
    MORE_THREADS_THAN_PROCESSORS = "more_threads_than_processors"
    IDLE_DELEGATE = "idle_delegate"
    NO_PROPORTIONAL_MEMORY = "no_proportional_memory"
    DIFFERENT_OUTPUT = "different_output"
    MEMORY_GROWS = "memory_grows"
    THROTTLED = "throttled"
    COARSE_ENERGY = "coarse_energy"
    DEVICE_LOST = "device_lost"


Value = float | int | str


@dataclasses.dataclass(frozen=True)
class ProfileWarning:
    """One warning.

    Attributes:
        configuration: name of the configuration concerned; None for the whole profile.
        values: the numbers of the case, by the names that `text` and `advice` use.
    """

    kind: WarningKind
    configuration: str | None = None
    values: Mapping[str, Value] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """One sentence with the numbers."""
        return _TEXTS[self.kind].format(**self.values)

    def advice(self, settings: ProfileSettings) -> str | None:
        """What the user can do that these settings do not do yet; None when nothing is left."""
        return _advice(self, settings)


_TEXTS: dict[WarningKind, str] = {
    WarningKind.UNSTABLE_MEDIAN: (
        "the median is known to ±{half_width:.2%} only, wanted ±{wanted:.2%}"
    ),
    WarningKind.MEDIAN_UNKNOWN: (
        "{batches} batches of runs are too few to tell how far the median can be trusted"
    ),
    WarningKind.FEW_RUNS: "{runs} warm runs are too few for {figures}",
    WarningKind.NOT_SETTLED: "latency was still settling when the time was over",
    WarningKind.OUTLIERS: "{share:.1%} of the runs are slow outliers; they make up p99",
    WarningKind.DRIFT: "latency changed by {change:+.1%} from the first to the last run",
    WarningKind.SLOW_FIRST_RUN: "the first inference took {ratio:.1f} times a warm one",
    WarningKind.COARSE_TIMER: "the clock makes up {share:.1%} of the median",
    WarningKind.FREQUENCY_SCALING: "the processor's governor is '{governor}'",
    WarningKind.OTHER_LOAD: "other programs used {processors:.2f} processors meanwhile",
    WarningKind.MORE_THREADS_THAN_PROCESSORS: "{threads} threads share {processors} processors",
    WarningKind.IDLE_DELEGATE: "{delegate} took no part of the graph: this is the cpu's latency",
    WarningKind.NO_PROPORTIONAL_MEMORY: (
        "this kernel does not tell PSS: the process's steady memory is its resident set, shared pages included"
    ),
    WarningKind.DIFFERENT_OUTPUT: (
        "output '{output}' is {error:.2g} of its range off, wanted {wanted:g}{where}"
    ),
    WarningKind.MEMORY_GROWS: (
        "memory grows by {bytes:.1f} bytes per run, {total:.2f} MB in {all_runs} runs"
    ),
    WarningKind.THROTTLED: (
        "the device got {degrees:.0f} degrees hotter and its clock fell by {share:.0%}"
    ),
    WarningKind.COARSE_ENERGY: (
        "the energy counter moved {steps} times only: energy per run is known to ±{share:.0%}"
    ),
    WarningKind.DEVICE_LOST: "the device was lost: what it had measured until then is shown",
}


def _advice_on_outputs(configuration: str, settings: ProfileSettings) -> str:
    delegates = settings.delegates
    if settings.golden is not None:
        if "cpu" in delegates:
            return "compare with the cpu's row: an error that it shares comes from the model"
        return "measure cpu beside it, to see whether the delegate or the model is off"
    # The truth is the cpu's own output.
    if configuration.startswith("edgelstm"):
        other = "compare with" if "xnnpack" in delegates else "measure"
        return (
            f"{other} xnnpack beside it: an error that it shares is XNNPACK's, which takes what "
            "edgelstm leaves and may round integers to a neighbour"
        )
    if configuration.startswith("xnnpack"):
        return "an integer model may be one step of the output's scale off, as XNNPACK rounds otherwise"
    return "give --golden, the source's own outputs, to see which of them is off"


def _advice(warning: ProfileWarning, settings: ProfileSettings) -> str | None:
    bounds, values = settings.bounds, warning.values
    longer = f"raise --max-seconds (now {bounds.max_seconds:g})"
    match warning.kind:
        case WarningKind.UNSTABLE_MEDIAN | WarningKind.MEDIAN_UNKNOWN | WarningKind.FEW_RUNS:
            if int(values["all_runs"]) >= bounds.max_runs:
                return f"raise --max-runs (now {bounds.max_runs})"
            if float(values["seconds"]) >= bounds.max_seconds:
                return longer
            return f"raise --min-seconds (now {bounds.min_seconds:g})"
        case WarningKind.NOT_SETTLED:
            return longer
        case WarningKind.OUTLIERS:
            return "close other programs, or read p99 as the machine's rather than the model's"
        case WarningKind.DRIFT:
            if float(values["change"]) > 0:
                return "let the device cool down, and look at its temperature"
            return f"measure longer: raise --min-seconds (now {bounds.min_seconds:g})"
        case WarningKind.SLOW_FIRST_RUN:
            return "run one inference at the application's start, before a user waits for it"
        case WarningKind.COARSE_TIMER:
            return "measure a longer sequence, and read differences between configurations only"
        case WarningKind.FREQUENCY_SCALING:
            return "set it to 'performance' while measuring, if the figures are to be compared"
        case WarningKind.OTHER_LOAD:
            if len(settings.delegates) * len(settings.threads) > 1:
                # Turns alternate, so comparisons inside the report hold.
                return "close them and repeat; ratios inside this report suffer less"
            return "close them and repeat"
        case WarningKind.MORE_THREADS_THAN_PROCESSORS:
            return f"measure with at most {values['processors']}"
        case WarningKind.IDLE_DELEGATE:
            if "cpu" in settings.delegates:
                return f"leave {values['delegate']} out: cpu is in this report"
            return "add cpu to compare with"
        case WarningKind.DIFFERENT_OUTPUT:
            return _advice_on_outputs(warning.configuration or "", settings)
        case WarningKind.MEMORY_GROWS:
            if "cpu" in settings.delegates and len(settings.delegates) > 1:
                return "see whether cpu's memory grows too"
            return "measure cpu beside it, and make a new interpreter from time to time until then"
        case WarningKind.THROTTLED:
            return "cool the device, or read p99 and the drift as its sustained speed"
        case WarningKind.COARSE_ENERGY:
            return f"raise --energy (now {settings.energy_s:g}s)"
        case WarningKind.NO_PROPORTIONAL_MEMORY | WarningKind.DEVICE_LOST:
            return None
