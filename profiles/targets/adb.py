"""An Android device through adb. All of ours there is in /data/local/tmp/edgelstm.

The agent needs Python on the device, which Android does not have by itself (Termux brings it);
`--runner native` and `--runner benchmark_model` measure without.
"""

from __future__ import annotations

from edgelstm.profiles.devices import Device
from edgelstm.profiles.native_runner import NativeRunner
from edgelstm.profiles.targets.debug_bridge import DebugBridge
from edgelstm.profiles.targets.remote import RemoteTarget, Require

HOME = "/data/local/tmp/edgelstm"


class AdbTarget(RemoteTarget):
    """The device's `serial`, or the only one that is connected."""

    def __init__(
        self,
        device: Device,
        *,
        time_limit_s: float = 120.0,
        native: NativeRunner | None = None,
        require: Require | None = None,
    ) -> None:
        connection = DebugBridge(device.name, device.serial)
        super().__init__(
            device, connection, home=HOME, time_limit_s=time_limit_s, native=native, require=require
        )
