"""A host reached by OpenSSH: a Raspberry Pi, a board, another computer. An ordinary user is enough.

All of ours there is in ~/.cache/edgelstm: a folder per connection, which goes with it, and the
interpreter if the device had none, which stays unless the profile says `setup = "remove"`.
"""

from __future__ import annotations

from pathlib import Path

from edgelstm.profiles.devices import Device
from edgelstm.profiles.native_runner import NativeRunner
from edgelstm.profiles.targets.openssh import OpenSsh
from edgelstm.profiles.targets.remote import RemoteTarget, Require

HOME = '"${XDG_CACHE_HOME:-$HOME/.cache}/edgelstm"'


class SshTarget(RemoteTarget):
    """The device's `host`, or its name where the profile has none."""

    def __init__(
        self,
        device: Device,
        *,
        time_limit_s: float = 120.0,
        native: NativeRunner | None = None,
        require: Require | None = None,
    ) -> None:
        config = None if device.ssh_config is None else Path(device.ssh_config).expanduser()
        connection = OpenSsh(
            device.name, device.host or device.name, config=config, options=device.ssh_options
        )
        super().__init__(
            device, connection, home=HOME, time_limit_s=time_limit_s, native=native, require=require
        )
